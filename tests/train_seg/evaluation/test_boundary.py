"""Boundary F1: by hand, against the distances of all pairs, and with ignored pixels."""

from __future__ import annotations

import pytest
import torch

from train_seg.evaluation.boundary import BoundaryF1, contours, tolerance_px


def boundary(truth: torch.Tensor, guess: torch.Tensor, classes: int = 2):
    result = BoundaryF1(classes)
    result.update(guess[None], truth[None])
    return result.scores()


def square(left: int, size: int = 24, side: int = 10) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.uint8)
    mask[7 : 7 + side, left : left + side] = 1
    return mask


def test_contours_are_on_both_sides_of_a_border_but_not_at_the_edge_of_the_image():
    ids = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.uint8)[None]
    found = contours(ids, torch.ones_like(ids, dtype=torch.bool))
    assert found[0].tolist() == [[255, 0, 1, 255], [255, 0, 1, 255]]


def test_only_a_shift_beyond_the_tolerance_lowers_the_score():
    assert tolerance_px((24, 24)) == 1
    assert boundary(square(6), square(6)).classes == [1, 1]
    assert boundary(square(6), square(7)).mean == 1
    shifted = boundary(square(6), square(8))
    assert 0 < shifted.mean < 0.8
    assert boundary(square(1), square(13)).mean < 0.2


def test_tolerance_grows_with_the_image():
    assert tolerance_px((256, 256)) == pytest.approx(0.0075 * 2**0.5 * 256)
    assert tolerance_px((8, 8)) == 1


def pairwise(truth: torch.Tensor, guess: torch.Tensor, label: int, theta: float) -> float:
    """F1 from the distances between all contour pixels of one class."""
    every = torch.ones_like(truth, dtype=torch.bool)[None]
    points = [torch.nonzero(contours(m[None], every)[0] == label).double() for m in (guess, truth)]
    if not all(len(p) for p in points):
        return 0.0
    distance = torch.cdist(*points)
    precision, recall = ((distance.min(axis).values <= theta).double().mean() for axis in (1, 0))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def test_equals_the_distances_of_all_pairs():
    rng = torch.Generator().manual_seed(0)
    size = (180, 240)  # θ = 2.25 pixels
    truth, guess = (
        torch.nn.functional.interpolate(
            torch.rand(1, 3, 6, 8, generator=rng), size, mode="bicubic"
        ).argmax(1)[0].to(torch.uint8)
        for _ in range(2)
    )  # fmt: skip
    theta = tolerance_px(size)
    assert theta == pytest.approx(2.25)
    found = boundary(truth, guess, 3).classes
    assert found == pytest.approx([pairwise(truth, guess, k, theta) for k in range(3)])


def test_images_are_averaged_and_batches_add_up():
    truth = torch.stack([square(6), square(6)])
    guess = torch.stack([square(6), square(13)])
    at_once, in_two, other = BoundaryF1(3), BoundaryF1(3), BoundaryF1(3)
    at_once.update(guess, truth)
    in_two.update(guess[:1], truth[:1])
    other.update(guess[1:], truth[1:])
    in_two.add(other)
    assert at_once.scores() == in_two.scores()
    single = boundary(square(6), square(13)).classes
    assert at_once.scores().classes == [*((1 + v) / 2 for v in single), None]


def test_a_class_without_contour_in_the_truth_is_left_out_of_the_mean():
    guess = square(6)
    guess[0:3, 0:3] = 2
    result = boundary(square(6), guess, 3)
    assert result.classes[2] == 0  # predicted, but not in the truth
    assert result.mean == pytest.approx((result.classes[0] + result.classes[1]) / 2)
    assert result.classes[1] == 1


def test_no_contour_at_all():
    plain = torch.zeros(8, 8, dtype=torch.uint8)
    assert boundary(plain, plain).classes == [None, None]
    assert boundary(plain, plain).mean is None


def test_ignored_pixels_have_no_contour():
    truth = square(6)
    truth[7:17, 6:16] = 255
    assert boundary(truth, torch.zeros_like(truth)).classes == [None, None]
    assert boundary(truth, square(7, side=6)).classes == [None, None]
