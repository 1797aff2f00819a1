"""Pools of images: features computed once, samples made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.annotation.samples import load_generator
from factory.recipe.choosing import generator_recipe
from factory.verdict import pools
from factory.verdict.pools import Encoder, Pool, equal_to_none, sample_pool
from factory_core.images import image_tensor, load_image, read_image


def test_equal_to_none() -> None:
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 2, 2).contiguous()
    assert equal_to_none(images * 20, images[[1, 3]] * 20).tolist() == [True, False, True, False]
    assert equal_to_none(images, images[:0]).all()


def test_the_same_jpeg_is_known_although_photographs_are_decoded_smaller(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        blobs = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        blobs.resize((640, 512), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.jpg")
    size = (64, 64)
    photographs = torch.stack([read_image(tmp_path / f"{n}.jpg", size) for n in "ab"])
    annotated = torch.stack([image_tensor(load_image(tmp_path / "b.jpg"), size)])
    assert not torch.equal(photographs[1], annotated[0])
    assert equal_to_none(photographs, annotated).tolist() == [True, False]


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


def test_sampling_resumes(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, sample, made = encoder.generator.batch_size, encoder.generator.sample, []
    count = 2 * size

    def stop_at_the_second(rows: Sequence[int]) -> object:
        made.append(list(rows))
        if len(made) == 2:
            raise KeyboardInterrupt
        return sample(rows)

    monkeypatch.setattr(encoder.generator, "sample", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        sample_pool(tmp_path / "synthetic", encoder, count)
    found = sample_pool(tmp_path / "synthetic", encoder, count)
    assert made == [list(range(size)), list(range(size, count)), list(range(size, count))]
    images, features = sample(range(size, count))
    assert torch.equal(found.images[size:], images)
    name = next(iter(features))
    torch.testing.assert_close(found.features([count - 1])[name], features[name][-1:])


def test_samples_are_as_many_as_fit(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pools.store_bytes(encoder.generator.feature_spec, 1, encoder.dtype)
    monkeypatch.setattr(pools, "MAX_FEATURE_BYTES", 2 * one)
    assert len(sample_pool(tmp_path / "synthetic", encoder, 3)) == 2
