"""Gathering pixels equals upsampling whole maps and indexing them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.ensemble.classifiers import channel_last, group_by_size
from labelers.training import pixel_features
from labelers.training.pixel_features import Normalisation, PixelReader

SIZE = (16, 24)


def reader(features: FeatureMaps, size: tuple[int, int] = SIZE) -> PixelReader:
    return PixelReader(channel_last(features, group_by_size(features.spec)), size)


def plain(features: FeatureMaps, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Every pixel by upsampling and concatenating, `[N, H·W, C]`."""
    order = [m.name for maps in group_by_size(features.spec).values() for m in maps]
    maps = [F.interpolate(features[n], size, mode="bilinear") for n in order]
    return torch.cat(maps, 1).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("size", [SIZE, (13, 31), (5, 5), (16, 7)])
def test_gather_equals_upsampling(random_features: FeatureMaps, size):
    every = torch.arange(2 * size[0] * size[1])
    ours = reader(random_features, size).gather(every.view(2, -1))
    torch.testing.assert_close(ours, plain(random_features, size), rtol=1e-5, atol=1e-5)


def test_vectors_do_not_depend_on_how_many_are_gathered_at_a_time(
    random_features: FeatureMaps, monkeypatch: pytest.MonkeyPatch
):
    found, pixels = reader(random_features), torch.arange(2 * SIZE[0] * SIZE[1])
    normalisation = found.normalisation(pixels)
    whole = found.gather(pixels, normalisation=normalisation)
    monkeypatch.setattr(pixel_features, "CHUNK_BYTES", 1)  # one by one
    assert torch.equal(found.gather(pixels, normalisation=normalisation), whole)


def test_half_precision_tables(random_features: FeatureMaps):
    every = torch.arange(2 * 16 * 24)
    ours = reader(random_features.to(torch.float16)).gather(every)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain(random_features).flatten(0, 1), rtol=3e-3, atol=3e-3)


def test_a_given_buffer_is_filled_in_its_own_dtype(random_features: FeatureMaps):
    pixels = torch.tensor([[5, 700, 5], [0, 767, 384]])
    out = torch.full((2, 3, 14), float("nan"), dtype=torch.bfloat16)
    assert reader(random_features).gather(pixels, out) is out
    expected = plain(random_features).flatten(0, 1)[pixels].bfloat16()
    torch.testing.assert_close(out, expected, rtol=1e-2, atol=1e-6)


def test_normalised_channels(random_features: FeatureMaps):
    maps = {name: 7 * tensor + 30 for name, tensor in random_features.items()}
    maps["c"][:, 1] = 0.1  # a constant channel
    features = FeatureMaps(maps)
    every = torch.arange(2 * 16 * 24)
    ours = reader(features)
    vectors = ours.gather(every, normalisation=ours.normalisation(every))
    constant = 3 + 1  # channel order: a (3), c (2), b, d
    assert vectors.mean(0).abs().max() < 1e-4
    assert vectors[:, constant].abs().max() < 1e-4
    std = torch.cat([vectors[:, :constant], vectors[:, constant + 1 :]], 1).std(0, correction=0)
    torch.testing.assert_close(std, torch.ones(13), rtol=1e-4, atol=0)


def test_normalisation_precedes_rounding(random_features: FeatureMaps):
    """300.5 and 301.5 are equal in bfloat16, but not if they are normalised first."""
    features = FeatureMaps({"a": torch.tensor([300.5, 301.5]).view(1, 1, 1, 2)})
    out = torch.empty(2, 1, dtype=torch.bfloat16)
    normalisation = Normalisation(torch.ones(1), torch.full((1,), -301.0))
    reader(features, (1, 2)).gather(torch.arange(2), out, normalisation)
    assert out.flatten().tolist() == [-0.5, 0.5]
