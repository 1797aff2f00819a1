"""Several segmenters as one."""

from __future__ import annotations

import pytest
import torch

from train_seg.config import SegmenterConfig
from train_seg.inference.export import export
from train_seg.network.segmenter import Segmenter
from train_seg.network.start import settle_start

CLASSES = ["ground", "red", "blue"]
UNET = {"architecture": "UNetGN", "width": 8}


@pytest.fixture
def members(tiny_segmenter) -> list[Segmenter]:
    """Two of different kinds."""
    return [tiny_segmenter(CLASSES), tiny_segmenter(CLASSES, seed=1, **UNET)]


def noise(size: int = 32) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, size, size), generator=rng, dtype=torch.uint8)


@torch.no_grad()
def test_averages_the_class_probabilities(members, tmp_path):
    joined = Segmenter.mean(members)
    images = noise(40)  # another size than in training
    expected = torch.stack([m.network(images).softmax(1) for m in members]).mean(0)
    torch.testing.assert_close(joined.network(images).softmax(1), expected)
    assert torch.equal(joined.predict(images), expected.argmax(1).to(torch.uint8))
    joined.save(tmp_path)
    loaded = Segmenter.load(tmp_path, "cpu")
    assert torch.equal(loaded.predict(images), joined.predict(images))
    assert loaded.architecture == "mean of DeepLabV3, UNetGN"
    assert [config.architecture for config in loaded.members] == ["DeepLabV3", "UNetGN"]


def test_a_mean_of_means_weighs_all_members_alike(members, tiny_segmenter, tmp_path):
    third = tiny_segmenter(CLASSES, seed=2)
    Segmenter.mean([Segmenter.mean(members), third]).save(tmp_path)
    nested, flat = Segmenter.load(tmp_path, "cpu"), Segmenter.mean([*members, third])
    assert len(nested.members) == 3
    with torch.no_grad():
        assert torch.equal(nested.network(noise()), flat.network(noise()))


def test_the_same_twice_is_refused(members):
    with pytest.raises(ValueError, match="found the same segmenter twice"):
        Segmenter.mean([*members, members[0]])


def test_what_is_known_of_the_members_is_kept(members):
    members[0].encoder_start, members[0].skipped = "imagenet", {"no mask": 2}
    members[1].skipped = {"no mask": 1, "no image": 1}
    joined = Segmenter.mean(members)
    assert joined.encoder == "resnet18, none"
    assert joined.encoder_start == "imagenet"
    assert joined.skipped == {"no mask": 3, "no image": 1}


@pytest.mark.parametrize(
    ("classes", "size", "message"),
    [
        (["a", "b"], (32, 32), "found classes a, b beside ground, red, blue"),
        (CLASSES, (48, 32), "found image_size 48, 32 beside 32, 32"),
    ],
)
def test_different_classes_or_sizes_are_refused(members, tiny_segmenter, classes, size, message):
    with pytest.raises(ValueError, match=message):
        Segmenter.mean([*members, tiny_segmenter(classes, size)])


def test_one_is_no_mean(members):
    with pytest.raises(ValueError, match="found 1 segmenter, expected at least 2"):
        Segmenter.mean(members[:1])


def test_no_training_starts_from_a_mean(members):
    with pytest.raises(ValueError, match="is a mean of 2: start from one of them"):
        settle_start(SegmenterConfig(), Segmenter.mean(members))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_exports(members, tmp_path, format):
    check = export(Segmenter.mean(members), tmp_path / "m", format)
    assert check.differing <= check.pixels * 1e-3
