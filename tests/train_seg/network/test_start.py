"""Starting from a generator's U-Net or from a segmenter."""

from __future__ import annotations

import logging

import pytest
import torch

from factory_core.segmentation_unet import SegmentationUNet, UNetDescription, small_unet
from train_seg.config import SegmenterConfig
from train_seg.network.network import build
from train_seg.network.segmenter import Segmenter
from train_seg.network.start import build_from, settle_start, start_digest

UNET = SegmenterConfig(architecture="UNetGN", width=8)


def describe(seed: int = 0) -> UNetDescription:
    """The U-Net of a generator: not the shape that UNetGN has by itself."""
    torch.manual_seed(seed)
    shape = {**small_unet(16, 8).config, "layers_per_block": 2, "_class_name": "UNet2DModel"}
    unet = SegmentationUNet(UNetDescription(shape), classes=3).unet
    return UNetDescription(shape, unet.state_dict())


def segmenter(config: SegmenterConfig, classes: tuple[str, ...] = ("a", "b", "c")) -> Segmenter:
    network = build(config, len(classes), (32, 32), pretrained=False)
    return Segmenter.create(network, config, classes, None, (32, 32), "d" * 64, {})


def test_all_layers_but_the_last_come_from_the_generator(tmp_path):
    init = describe()
    config = settle_start(UNET, init)
    network = build_from(init, config, ["a", "b"], (32, 32))
    state = network.net.unet.state_dict()
    same = {name for name, tensor in init.weights.items() if tensor.equal(state[name])}
    assert set(init.weights) - same == {"conv_out.weight", "conv_out.bias"}
    trained = Segmenter.create(network, config, ["a", "b"], None, (32, 32), "d" * 64, {})
    trained.save(tmp_path)
    images = torch.randint(0, 256, (2, 3, 40, 24), dtype=torch.uint8)
    assert torch.equal(Segmenter.load(tmp_path, "cpu").predict(images), trained.predict(images))


def test_a_generator_starts_only_a_u_net():
    with pytest.raises(ValueError, match=r"of UNetGN only, found DeepLabV3: set architecture=UN"):
        settle_start(SegmenterConfig(), describe())


def test_weights_that_do_not_fit_are_refused():
    init = UNetDescription(small_unet(16, 16).config, describe().weights)
    with pytest.raises(ValueError, match="cannot build UNetGN: the U-Net's weights do not fit"):
        build_from(init, settle_start(UNET, init), ["a", "b"], (32, 32))


@pytest.mark.parametrize(
    "config", [UNET, SegmenterConfig(encoder="resnet18", encoder_depth=3, atrous_rates=(1, 2, 3))]
)
def test_a_segmenter_with_other_classes_gets_a_new_last_layer(config, caplog):
    init = segmenter(config)
    with caplog.at_level(logging.WARNING):
        same = build_from(init, settle_start(config, init), ["a", "b", "c"], (32, 32))
        assert caplog.messages == []
        other = build_from(init, settle_start(config, init), ["a", "b"], (32, 32))
    assert "has the classes a, b, c, the data a, b: the last layer starts at ran" in caplog.text
    theirs, ours = init.network.state_dict(), other.state_dict()
    assert all(t.equal(theirs[k]) for k, t in same.state_dict().items())
    new = {k for k in theirs if theirs[k].shape != ours[k].shape or not theirs[k].equal(ours[k])}
    assert len(new) == 2  # weight and bias
    assert all(len(ours[k]) == 2 for k in new)


def test_a_u_net_from_a_generator_can_be_continued():
    init = describe()
    first = settle_start(UNET, init)
    network = build_from(init, first, ["a", "b"], (32, 32))
    second = Segmenter.create(network, first, ["a", "b"], None, (32, 32), "d" * 64, {})
    again = build_from(second, settle_start(UNET, second), ["a", "b"], (32, 32))
    assert all(t.equal(again.state_dict()[k]) for k, t in network.state_dict().items())


def test_a_segmenter_with_another_network_is_refused():
    config = SegmenterConfig(encoder="resnet18", encoder_depth=3)
    for given, expected in (
        ({"encoder_depth": 4}, "has encoder_depth=3, found encoder_depth=4"),
        ({"architecture": "unet"}, "has architecture=DeepLabV3, found architecture=unet"),
        ({"architecture": "UNetGN"}, "has architecture=DeepLabV3, found architecture=UNetGN"),
    ):
        with pytest.raises(ValueError, match=expected):
            settle_start(config.model_copy(update=given), segmenter(config))


def test_the_digest_follows_weights_and_shape():
    assert start_digest(None) is None
    first, again, other = (start_digest(describe(seed)) for seed in (0, 0, 1))
    assert first == again != other
    torch.manual_seed(0)
    trained = segmenter(UNET)
    assert start_digest(trained) == start_digest(trained)
    before = start_digest(trained)
    trained.classes[0] = "z"
    assert start_digest(trained) != before
