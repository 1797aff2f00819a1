"""Settings of the segmenters that are compared."""

from __future__ import annotations

import pytest

from factory.verdict.settings import CompareConfig, compare_config
from factory.verdict.students import deeplab_settings, finishing, unet_settings


@pytest.mark.parametrize(
    ("upright", "size", "turns", "vertical"),
    [(False, (64, 64), True, True), (False, (64, 96), False, True), (True, (64, 64), False, False)],
)
def test_turns_only_where_they_make_sense(
    upright: bool, size: tuple[int, int], turns: bool, vertical: bool
) -> None:
    config = CompareConfig(upright=upright)
    for settings in (unet_settings(config, size, 1, 5), deeplab_settings(config, size, 1, 5)):
        augment = settings.augment
        assert (augment.quarter_turns, augment.vertical_flip) == (turns, vertical)
        assert augment.horizontal_flip
        assert augment.scale is None
        assert (settings.seed, settings.max_steps) == (1, 5)


def test_strong_augmentation() -> None:
    found = unet_settings(CompareConfig(), (64, 64), 0, 5, is_strong=True).augment
    assert found.scale == (0.5, 1.0)
    assert found.brightness > 0
    assert found.quarter_turns


def test_the_last_stage_is_certain_short_and_slow() -> None:
    config = CompareConfig(finish_steps=7, finish_lr=1e-4)
    first = unet_settings(config, (64, 64), 0, 50).model_copy(update={"soft_labels": True})
    found = finishing(config, first)
    assert (found.max_steps, found.lr, found.soft_labels) == (7, 1e-4, False)


def test_changing_a_section_keeps_its_other_defaults() -> None:
    config = compare_config(["labeler.members=3", "labeler.network.steps=9"])
    assert config.labeler.members == 3
    assert config.labeler.training.kind == "fast"
    assert config.labeler.network.members == CompareConfig().labeler.network.members
