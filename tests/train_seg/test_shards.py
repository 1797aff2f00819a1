"""Learning around uncertain pixels: which become 255, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from train_seg.augment import Augment
from train_seg.config import AugmentConfig, SegmenterConfig
from train_seg.data import TrainingData, open_training_data
from train_seg.train import train

RED, BLUE = 1, 2
LEVELS = np.array([0, 7, 9], np.uint8)  # of the uncertainty maps, by class


def level_of_class(mask: np.ndarray) -> np.ndarray:
    """An uncertainty map that tells the classes apart: whatever moves the mask moves it too."""
    return LEVELS[mask]


def counts(pixels: dict[int, int]) -> list[int]:
    """The histogram with so many pixels at some levels."""
    return [pixels.get(level, 0) for level in range(256)]


@pytest.fixture
def maps(tmp_path: Path, write_dataset: Callable[..., Path]) -> Path:
    """Twelve samples whose blue squares alone lie above the 0.9 quantile, at level 7."""
    histogram = counts({0: 80, 7: 10, 9: 10})
    return write_dataset(tmp_path / "maps", levels=level_of_class, histogram=histogram)


def open_data(*data: object, augment: AugmentConfig | None = None, **settings) -> TrainingData:
    augment = augment or AugmentConfig()
    return open_training_data(data, lambda size: Augment(augment, size), **settings)


def without(mask: torch.Tensor, classes: tuple[int, ...]) -> torch.Tensor:
    """The mask with some classes ignored."""
    return torch.where(torch.isin(mask, torch.tensor(classes)), 255, mask).to(torch.uint8)


@pytest.mark.parametrize(
    ("quantile", "classes"), [(0.95, ()), (0.9, (BLUE,)), (0.81, (BLUE,)), (0.8, (RED, BLUE))]
)
def test_pixels_above_the_quantile_are_ignored(
    maps: Path, quantile: float, classes: tuple[int, ...]
) -> None:
    plain, thinned = open_data(maps), open_data(maps, ignore_above=quantile)
    for before, after in zip(plain.source.epoch(0), thinned.source.epoch(0), strict=True):
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1], without(before[1], classes))


@pytest.mark.parametrize("workers", [0, 1])
def test_augmentation_sees_the_mask_without_them(maps: Path, workers: int) -> None:
    augment = AugmentConfig(
        horizontal_flip=True, vertical_flip=True, quarter_turns=True, scale=(0.3, 0.9)
    )
    settings = {"augment": augment, "size": (24, 24), "num_workers": workers}
    plain, thinned = open_data(maps, **settings), open_data(maps, ignore_above=0.9, **settings)
    pairs = list(zip(plain.source.epoch(1), thinned.source.epoch(1), strict=True))
    for before, after in pairs:
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1], without(before[1], (BLUE,)))
    assert any((after[1] == 255).any() for _, after in pairs)


def test_each_dataset_has_its_own_threshold(
    maps: Path, write_dataset: Callable[..., Path], make_labeled: Callable, tmp_path: Path
) -> None:
    surer = counts({0: 89, 7: 1, 9: 10})
    unsure = counts({0: 50, 7: 30, 9: 20})  # level 9 is nothing unusual there
    other = write_dataset(tmp_path / "other", shards=(4,), levels=level_of_class, histogram=unsure)
    third = write_dataset(tmp_path / "third", shards=(3,), levels=level_of_class, histogram=surer)
    everything = (maps, other, third, make_labeled(2))
    plain, thinned = open_data(*everything), open_data(*everything, ignore_above=0.9)
    outcomes = {(): 0, (BLUE,): 0}
    for before, after in zip(plain.source.epoch(0), thinned.source.epoch(0), strict=True):
        (outcome,) = [c for c in outcomes if torch.equal(after[1], without(before[1], c))]
        outcomes[outcome] += 1
    # Annotated images are certain.
    assert outcomes == {(): 4 + 2, (BLUE,): 12 + 3}


def test_a_dataset_without_maps_is_named(maps: Path, dataset: Path) -> None:
    message = r"data has no uncertainty maps, .* anew with --set dataset\.uncertainty_maps=true"
    with pytest.raises(ValueError, match=message) as caught:
        open_data(maps, dataset, ignore_above=0.9)
    assert "\n" not in str(caught.value)


def test_annotated_images_have_no_maps(make_labeled: Callable) -> None:
    with pytest.raises(ValueError, match="found annotated images only: leave that setting out"):
        open_data(make_labeled(2), ignore_above=0.9)


def test_a_map_that_is_missing(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    folder = write_dataset(tmp_path / "bad", histogram=counts({0: 1}))
    message = r"sample \d{9}: found members json, png, seg\.png, expected unc\.png too"
    with pytest.raises(ValueError, match=message) as caught:
        list(open_data(folder, ignore_above=0.9).source.epoch(0))
    assert "\n" not in str(caught.value)


def test_what_is_ignored_changes_the_training(
    maps: Path, config: SegmenterConfig, tmp_path: Path
) -> None:
    short = config.model_copy(update={"max_steps": 1})
    train([maps], tmp_path / "all", short, device="cpu")
    ignoring = short.model_copy(update={"ignore_above_quantile": 0.8})
    train([maps], tmp_path / "sure", ignoring, device="cpu")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("all", "sure")]
    assert weights[0] != weights[1]
    with pytest.raises(ValueError, match=r"ignore_above_quantile \(None, now 0\.8\)"):
        train([maps], tmp_path / "all", ignoring, device="cpu")
