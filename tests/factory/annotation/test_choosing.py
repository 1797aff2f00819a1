"""Which images to annotate next, on points whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from factory.annotation.choosing import (
    Candidates,
    Choice,
    choose_images,
    pixel_descriptors,
    reasons,
)

LINE = np.array([[0.0], [1], [2], [3], [4], [5], [6], [7], [8], [40]])


def rows(chosen: list[Choice]) -> list[int]:
    return [choice.row for choice in chosen]


def test_diverse_starts_in_the_middle_and_takes_the_farthest() -> None:
    chosen = choose_images("diverse", Candidates(LINE), 3)
    assert rows(chosen) == [8, 9, 0]  # the mean is 7.6
    assert chosen[0].distance is None
    scale = LINE.std()
    assert [c.distance for c in chosen[1:]] == pytest.approx([32 / scale, 8 / scale])


def test_diverse_avoids_what_is_known() -> None:
    known = np.array([[40.0], [0]])
    assert rows(choose_images("diverse", Candidates(LINE, known=known), 2)) == [8, 4]


def test_uncertain_and_both() -> None:
    uncertainty = np.array([0.9, 0.89, 0.88, 0.87, 0.86, 0.85, 0.84, 0.83, *[0.1] * 12])
    descriptors = np.zeros((20, 2))
    descriptors[3] = descriptors[4] = 5  # two equal images, far from the first
    descriptors[10] = 100  # far, but certain
    candidates = Candidates(descriptors, uncertainty)
    assert rows(choose_images("uncertain", candidates, 3)) == [0, 1, 2]
    assert rows(choose_images("both", candidates, 2)) == [0, 3]
    assert reasons("both", candidates, choose_images("both", candidates, 2)) == [
        ("0.900 nats, 1/20",),
        ("0.870 nats, 4/20", "distance 3.27"),
    ]


@pytest.mark.parametrize("how", ["random", "diverse", "uncertain", "both"])
def test_no_image_twice_and_no_more_than_there_are(how) -> None:
    equal = Candidates(np.zeros((3, 2)), np.ones(3))
    assert sorted(rows(choose_images(how, equal, 8))) == [0, 1, 2]
    assert choose_images(how, Candidates(np.ones((0, 2)), np.ones(0)), 8) == []


def test_random_depends_on_the_seed() -> None:
    first, again, other = (
        rows(choose_images("random", Candidates(LINE), 6, seed)) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len(set(first)) == 6


@pytest.mark.parametrize("how", ["uncertain", "both"])
def test_uncertainty_needs_a_labeler(how) -> None:
    with pytest.raises(ValueError, match=f"--select {how} needs a labeler: give --labeler"):
        choose_images(how, Candidates(LINE), 2)


def test_pixels_tell_colours_and_places_apart() -> None:
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images[1, 0] = 200  # red
    images[2, :, :8] = 200  # bright above
    images[3, :, 1::2] = 200  # striped
    found = pixel_descriptors(images)
    assert found.shape == (4, 195)
    assert len(np.unique(found.round(6), axis=0)) == 4
