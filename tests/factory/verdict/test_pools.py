"""Pools of images: features computed once, samples made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from factory.annotation.samples import load_generator
from factory.recipe.choosing import generator_recipe
from factory.verdict.pools import Encoder, Pool, equal_to_none, sample_pool, spaced


@pytest.mark.parametrize(
    ("count", "most", "wanted"), [(3, 5, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (5, 5, [0, 1, 2, 3, 4])]
)
def test_spaced(count: int, most: int, wanted: list[int]) -> None:
    assert spaced(count, most) == wanted


def test_equal_to_none() -> None:
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 2, 2).contiguous()
    assert equal_to_none(images, images[[1, 3]]).tolist() == [True, False, True, False]
    assert equal_to_none(images, images[:0]).all()


@pytest.fixture(scope="module")
def encoder(generator: Path) -> Encoder:
    recipe = generator_recipe(None, str(generator), ["generator.steps=2"])
    return Encoder(load_generator("--generator", recipe.generator, "cpu")[0], "float32")


def test_features_are_encoded_once(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    found = Pool(images, tmp_path, encoder).features([2, 0])
    wanted = encoder.generator.encode(images[[2, 0]], [2, 0])
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-4, rtol=1e-4)

    def refuse(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(encoder.generator, "encode", refuse)
    again = Pool(images, tmp_path, encoder).features([2, 0])
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_samples_are_made_once_with_their_features(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = sample_pool(tmp_path / "synthetic", encoder, 3)
    images, features = encoder.generator.sample(range(3))
    assert torch.equal(pool.images, images)
    name = next(iter(features))
    torch.testing.assert_close(pool.features([1])[name], features[name][1:2])
    monkeypatch.setattr(encoder.generator, "sample", None)  # a second sampling would fail
    assert torch.equal(sample_pool(tmp_path / "synthetic", encoder, 3).images, images)
