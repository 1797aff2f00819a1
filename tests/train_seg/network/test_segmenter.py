"""Networks of all kinds; the artefact: saving, loading, image sizes, damaged folders."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

from train_seg.config import SegmenterConfig
from train_seg.network.network import build, check_sizes
from train_seg.network.segmenter import Segmenter

CLASSES = ["ground", "red", "blue"]


@pytest.fixture
def segmenter() -> Segmenter:
    config = SegmenterConfig(encoder="resnet18", encoder_depth=3, encoder_weights="imagenet")
    torch.manual_seed(0)
    network = build(config, 3, (32, 32), pretrained=False)
    return Segmenter.create(network, config, CLASSES, None, (32, 32), "d" * 64, {"miou": 0.5})


def test_loads_what_it_saved_without_pretrained_weights(segmenter, tmp_path, make_labeled):
    segmenter.save(tmp_path / "model")
    loaded = Segmenter.load(tmp_path / "model", device="cpu")
    images = make_labeled(3).images
    assert torch.equal(loaded.predict(images, batch_size=2), segmenter.predict(images))
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    assert about["classes"] == CLASSES
    assert about["scores"] == {"miou": 0.5}
    assert about["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("size", [(32, 32), (50, 41), (16, 16)])
def test_predicts_at_the_size_of_the_image(segmenter, size):
    masks = segmenter.predict(torch.zeros(2, 3, *size, dtype=torch.uint8))
    assert masks.shape == (2, *size)
    assert masks.dtype == torch.uint8
    assert segmenter.predict(torch.zeros(0, 3, *size, dtype=torch.uint8)).shape == (0, *size)


FLIPS = {"horizontal_flip": True, "vertical_flip": True}


@pytest.mark.parametrize(
    ("augment", "size", "count"),
    [
        (FLIPS | {"quarter_turns": True}, (32, 32), 8),
        (FLIPS, (32, 48), 4),
        ({"horizontal_flip": True}, (32, 32), 2),
        ({}, (32, 32), 1),
    ],
)
def test_predicts_the_mean_over_flips_and_turns(tiny_segmenter, augment, size, count):
    segmenter = tiny_segmenter(CLASSES, size, augment=augment, averaged=True)
    network, rng = segmenter.network, torch.Generator().manual_seed(0)
    assert len(network.views) == count
    images = torch.randint(0, 256, (2, 3, *size), generator=rng, dtype=torch.uint8)
    with torch.no_grad():
        found = network(images).softmax(1)
        for there, back in network.views:
            moved = back(network(there(images)).softmax(1))
            torch.testing.assert_close(moved, found, rtol=1e-3, atol=1e-4)
        single = tiny_segmenter(CLASSES, size, augment=augment).network(images).softmax(1)
    assert torch.equal(single, found) == (count == 1)


def test_training_sees_one_view(tiny_segmenter):
    network = tiny_segmenter(CLASSES, augment=FLIPS, averaged=True).network
    passes = []
    network.net.register_forward_hook(lambda *_: passes.append(1))
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    for is_training, count in ((True, 1), (False, 4)):
        passes.clear()
        network.train(is_training)(images)
        assert len(passes) == count


def test_images_of_a_wrong_type_or_shape_are_refused(segmenter):
    with pytest.raises(ValueError, match=r"float32 of shape \[1, 3, 32, 32\], expected .*uint8"):
        segmenter.predict(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"shape \[32, 32, 3\], expected"):
        segmenter.predict(torch.zeros(32, 32, 3, dtype=torch.uint8))


def test_missing_and_damaged_files(segmenter, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model.json"):
        Segmenter.load(tmp_path)
    segmenter.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    os.truncate(weights, 1000)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged") as error:
        Segmenter.load(tmp_path)
    assert "\n" not in str(error.value)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model.safetensors"):
        Segmenter.load(tmp_path)


def test_other_version_and_unknown_key(segmenter, tmp_path):
    segmenter.save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**about, "format_version": 9}))
    with pytest.raises(ValueError, match=r"model\.json .*'format_version': found 9, expected 1"):
        Segmenter.load(tmp_path)
    about["config"]["learning_rate"] = 1
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"model.json .*'config.learning_rate': Extra inputs"):
        Segmenter.load(tmp_path)


def test_a_folder_of_an_earlier_version_loads(segmenter, tmp_path):
    segmenter.save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    del about["skipped"]
    for key in ("width", "unet", "then"):
        del about["config"][key]
    del about["config"]["augment"]["noise"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert Segmenter.load(tmp_path).skipped == {}


def test_refuses_weights_of_another_model(segmenter, tmp_path):
    segmenter.save(tmp_path / "a")
    with torch.no_grad():
        next(segmenter.network.parameters()).add_(1)
    segmenter.save(tmp_path / "b")
    os.replace(tmp_path / "b" / "model.safetensors", tmp_path / "a" / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or does not belong to"):
        Segmenter.load(tmp_path / "a")


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="found 1 class, expected at least 2"):
        build(SegmenterConfig(encoder="resnet18"), 1, (32, 32))


@pytest.mark.parametrize(
    "name", ["DeepLabV3Plus", "unet", "UnetPlusPlus", "FPN", "PSPNet", "UPerNet", "Segformer"]
)
def test_other_architectures(name):
    config = SegmenterConfig(architecture=name, encoder="resnet18", encoder_depth=4)
    network = build(config, 3, (24, 40), pretrained=False)
    check_sizes(network, (24, 40))
    assert network.training
    assert network.eval()(torch.zeros(1, 3, 24, 40, dtype=torch.uint8)).shape == (1, 3, 24, 40)


@pytest.mark.parametrize("size", [(24, 40), (30, 30)])
def test_the_small_u_net(size, tmp_path):
    config = SegmenterConfig(architecture="unetgn", width=8, dropout=0.25)
    network = build(config, 3, size)
    check_sizes(network, size)
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout) and m.p} == {0.25}
    trained = Segmenter.create(network, config, CLASSES, None, size, "d" * 64, {})
    trained.save(tmp_path)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert torch.equal(Segmenter.load(tmp_path, "cpu").predict(images), trained.predict(images))
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["encoder"] == "none"
    assert about["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}


def test_dropout_reaches_the_decoder():
    config = SegmenterConfig(encoder="resnet18", encoder_depth=3, dropout=0.25)
    dropouts = [m.p for m in build(config, 2, (32, 32)).modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.25]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"architecture": "DeepLab"},
            "unknown architecture 'DeepLab', did you mean 'DeepLabV3'",
        ),
        ({"architecture": "?"}, "expected one of Unet, .*, DeepLabV3, "),
        (
            {"architecture": "Unet", "dropout": 0.1},
            "has no dropout; leave that setting out",
        ),
        ({"architecture": "DPT"}, "Only Timm encoders are supported for DPT"),
    ],
)
def test_refused_architectures(settings, expected):
    with pytest.raises(ValueError, match=expected) as error:
        build(SegmenterConfig(encoder="resnet18", **settings), 3, (32, 32))
    assert "\n" not in str(error.value)


def test_an_architecture_that_does_not_support_the_size():
    config = SegmenterConfig(architecture="FPN", encoder="resnet18", encoder_depth=3)
    network = build(config, 3, (40, 40))
    with pytest.raises(ValueError, match=r"cannot take images of 40x40: .*160x160.*set image_size"):
        check_sizes(network, (40, 40))
