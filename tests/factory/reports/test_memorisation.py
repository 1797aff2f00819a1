"""factory.reports.memorisation: planted copies, what is calibrated, what is near by nature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from factory.demo.render import render
from factory.reports import memorisation as copies
from factory.reports.memorisation import Thumbnails, duplicates, memorisation, turned

SIZE = 32


def smear(index: int) -> np.ndarray:
    """uint8 [3, 32, 32]."""
    return render(index, SIZE)[0].transpose(2, 0, 1)


def cropped(image: np.ndarray, left: int, top: int) -> np.ndarray:
    """Without three of the rows and columns, and enlarged again."""
    side = SIZE - 3
    part = Image.fromarray(image[:, top : top + side, left : left + side].transpose(1, 2, 0))
    return np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def noisy(image: np.ndarray, rng: np.random.Generator, levels: float = 6) -> np.ndarray:
    return (image + rng.normal(0, levels, image.shape)).clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def training() -> list[np.ndarray]:
    return [smear(5000 + i) for i in range(160)]


def test_planted_copies_are_found_and_hardly_anything_else_is_accused(training: list[np.ndarray]):
    rng = np.random.default_rng(0)
    planted = []
    for i in range(20):
        image = training[7 * i]
        planted.append(
            (
                image,
                image[:, :, ::-1].copy(),
                noisy(image, rng),
                noisy(np.rot90(image, 1, (1, 2)), rng),
                cropped(image, 2, 1),
            )[i % 5]
        )
    samples = [*planted, *(smear(20_000 + i) for i in range(480))]
    progress: list[int] = []
    found = memorisation(
        Thumbnails.of(samples), Thumbnails.of(training), range(len(training)), progress.append
    )
    accused = set(found.copies)
    assert len(accused & set(range(20))) >= 19
    assert len(accused - set(range(20))) <= 0.01 * 480
    assert [found.matches[i].nearest for i in range(20)] == [7 * i for i in range(20)]
    assert set(found.worst[: len(accused)]) == accused
    assert 0.02 < found.share_near < 0.1
    assert not found.has_alike
    assert progress[-1] == len(samples) + len(training)
    assert progress == sorted(progress)


def test_a_match_says_how_to_turn_the_training_image(training: list[np.ndarray]):
    for symmetry in range(8):
        sample = turned(torch.from_numpy(training[3]), symmetry).contiguous()
        found = memorisation(Thumbnails.of([sample]), Thumbnails.of(training[:20]), [0, 1])
        (match,) = found.matches
        assert (match.nearest, match.symmetry) == (3, symmetry)
        assert match.distance < 1e-4


def test_the_distance_is_the_best_correlation_of_aligned_windows():
    """By the plain loops over shifts that the Fourier transform replaces."""
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.normal(size=(3, 32, 32))).float() for _ in range(2))
    shift, side = copies.SHIFT_PX, 32 - 2 * copies.SHIFT_PX
    middle = a[:, shift : shift + side, shift : shift + side].flatten()
    best = max(
        float(
            torch.corrcoef(torch.stack([middle, b[:, y : y + side, x : x + side].flatten()]))[0, 1]
        )
        for y in range(2 * shift + 1)
        for x in range(2 * shift + 1)
    )
    assert float(copies._best_shift(a[None], b[None, None])) == pytest.approx(best, abs=1e-5)


def test_a_real_image_is_not_its_own_control(training: list[np.ndarray]):
    pictures = Thumbnails.of(training[:30])
    found = memorisation(Thumbnails.of([smear(9)]), pictures, range(30))
    assert found.control.min() > 0.01


def test_duplicates_among_the_real_images_are_said(training: list[np.ndarray]):
    """Each image is there twice: nothing can be called a copy."""
    rng = np.random.default_rng(2)
    twice = [*training[:20], *(noisy(image, rng, 2) for image in training[:20])]
    found = memorisation(Thumbnails.of([training[0]]), Thumbnails.of(twice), range(40))
    assert found.has_alike


def test_samples_that_repeat_each_other_are_found_once(training: list[np.ndarray]):
    samples = [*training[:6], training[2][:, :, ::-1].copy()]
    (twin,) = duplicates(Thumbnails.of(samples), 0.05)
    assert (twin.number, twin.match.nearest) == (6, 2)
    assert duplicates(Thumbnails.of(samples[:1]), 0.05) == []


def test_flat_images_are_no_copies_of_others(training: list[np.ndarray]):
    flat = np.full((3, SIZE, SIZE), 90, np.uint8)
    found = memorisation(Thumbnails.of([flat]), Thumbnails.of(training[:10]), range(10))
    assert found.matches[0].distance > found.percentile


def test_one_training_image_is_too_few(training: list[np.ndarray]):
    with pytest.raises(ValueError, match="found 1 training image"):
        memorisation(Thumbnails.of(training[:1]), Thumbnails.of(training[:1]), [0])
