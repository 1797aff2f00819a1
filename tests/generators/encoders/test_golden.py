"""Features equal those of the original programs (tests/golden/encoders)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from generators.base import FeatureMaps

TOLERANCE = 1e-5  # of the largest value


def compare(found: FeatureMaps, expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, theirs in expected.items():
        assert found[name].shape == theirs.shape
        assert (found[name] - theirs).abs().max() <= TOLERANCE * theirs.abs().max(), name


def test_mae(load: Callable, expected: Callable) -> None:
    theirs = expected("mae")
    image, _ = theirs.pop("image"), theirs.pop("input")
    encoder = load("mae", layers=tuple(theirs))
    compare(encoder.encode(image), theirs)
    assert load("mae").network.layers == ("blocks.3", "blocks.4", "blocks.5")  # the later half


def test_swav(load: Callable, expected: Callable) -> None:
    theirs = expected("swav")
    image, _ = theirs.pop("image"), theirs.pop("input")
    compare(load("swav", image_size=64).encode(image), theirs)


@pytest.mark.parametrize(
    ("network", "size"),
    [("dinov2", 98), ("dinov2", 70), ("dinov2", 126), ("dinov3", 64), ("dinov3", 96)],
)
def test_dino(load: Callable, expected: Callable, network: str, size: int) -> None:
    prefix = f"{size}/"
    theirs = {
        name.removeprefix(prefix): t
        for name, t in expected(network).items()
        if name.startswith(prefix)
    }
    image = theirs.pop("image")
    theirs["norm.3"] = theirs.pop("norm")
    compare(load(network, image_size=size, layers=tuple(theirs)).encode(image), theirs)
    assert load(network).network.layers == ("norm.0", "norm.1", "norm.2", "norm.3")


@pytest.mark.parametrize("network", ["mae", "swav", "dinov2", "dinov3"])
def test_the_network_is_recognised_by_its_names(load: Callable, network: str) -> None:
    assert load(network).name == network


def test_a_layer_needs_only_those_before_it(load: Callable, expected: Callable) -> None:
    image = expected("mae")["image"]
    encoder, passed = load("mae", layers=("blocks.1",)), []
    for number, block in enumerate(encoder.network.transformer.blocks):
        block.register_forward_hook(lambda *_, number=number: passed.append(number))
    found = encoder.encode(image)
    assert passed == [0, 1]
    everything = load("mae", layers=("norm.1", "blocks.1", "blocks.5")).encode(image)
    assert torch.equal(found["blocks.1"], everything["blocks.1"])
    assert list(everything) == ["blocks.1", "norm.1", "blocks.5"]
