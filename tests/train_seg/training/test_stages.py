"""A second stage: it continues the result of the first, and both are one training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from train_seg.config import SegmenterConfig, ThenConfig
from train_seg.data.training_data import LabeledImages
from train_seg.training.plan import then_config
from train_seg.training.train import train

THEN = ThenConfig(max_steps=2, validate_every=1)


@pytest.fixture
def staged(config: SegmenterConfig) -> SegmenterConfig:
    update = {"max_steps": 2, "validate_every": 1, "ema": 0.9, "dice": 1.0, "then": THEN}
    return config.model_copy(update={**update, "optimizer": "adamw", "precision": "float32"})


class Stop(Exception):
    pass


class StopAt(Callback):
    """Interrupts the training after a step of all stages, or as the second stage begins."""

    def __init__(self, step: int | str):
        self.step = step

    def on_train_start(self, trainer, pl_module):
        if self.step == "boundary" and pl_module.place.stage == 2:
            raise Stop

    def on_train_batch_end(self, trainer, pl_module, *_):
        if pl_module.step == self.step:
            raise Stop


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "curves.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("validate", [False, True])
def test_equals_a_second_training_that_starts_from_the_first(
    dataset, staged, tmp_path, make_labeled, validate
):
    val = make_labeled(4) if validate else None
    labels = [make_labeled(3, first=2000)]
    both = train([dataset], tmp_path / "both", staged, val, then=labels, device="cpu")
    first = train([dataset], tmp_path / "first", staged, val, device="cpu")
    second_config = then_config(staged, has_datasets=False)
    second = train(labels, tmp_path / "second", second_config, val, init=first, device="cpu")
    assert weights(tmp_path / "both") == weights(tmp_path / "second")
    assert [int(row["step"]) for row in rows(tmp_path / "both")] == [1, 2, 3, 4]
    if validate:
        assert both.scores["miou"] == second.scores["miou"]
        assert both.scores["step"] == second.scores["step"] + 2


@pytest.mark.parametrize("stop_at", [1, "boundary", 3])
def test_resumes_in_both_stages_and_between_them(staged, tmp_path, make_labeled, stop_at):
    data, then = [make_labeled(6)], [make_labeled(3, first=2000)]

    def run(out: Path, *callbacks: Callback) -> None:
        train(data, out, staged, make_labeled(2), then=then, device="cpu", callbacks=callbacks)

    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "cut", StopAt(stop_at))
    assert not (tmp_path / "cut" / "model.json").exists()
    run(tmp_path / "cut")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    steps = [row["step"] for row in rows(tmp_path / "whole")]
    assert [row["step"] for row in rows(tmp_path / "cut")] == steps


def test_another_second_stage_in_the_same_folder_is_refused(staged, tmp_path, make_labeled):
    data, then = [make_labeled(4)], [make_labeled(3)]
    train(data, tmp_path, staged, then=then, device="cpu")
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["then.max_steps"] == 2
    slower = staged.model_copy(update={"then": ThenConfig(max_steps=2, validate_every=1, lr=1e-5)})
    with pytest.raises(ValueError, match=r"then\.lr \(None, now 1e-05\); use another --out"):
        train(data, tmp_path, slower, then=then, device="cpu")
    for other in ([make_labeled(2)], ()):
        with pytest.raises(ValueError, match="other data in --then; use another --out"):
            train(data, tmp_path, staged, then=other, device="cpu")


def test_data_that_do_not_fit_are_refused(staged, tmp_path, make_labeled):
    data, labels = [make_labeled(4)], make_labeled(2)
    other = LabeledImages(labels.images, labels.masks, ["ground", "red", "green"])
    with pytest.raises(ValueError, match="--then has the classes ground, red, green, --data grou"):
        train(data, tmp_path / "out", staged, then=[other], device="cpu")
    mixed = staged.model_copy(update={"then": ThenConfig(mix=(0.5, 0.5))})
    with pytest.raises(ValueError, match=r"then\.mix has 2 weights, expected 1, one per --then"):
        train(data, tmp_path / "out", mixed, then=[labels], device="cpu")
    assert not (tmp_path / "out").exists()


def test_divergence_names_the_stage_and_its_setting(staged, tmp_path, make_labeled):
    wild = staged.model_copy(update={"then": ThenConfig(max_steps=2, lr=1e38), "ema": 0.0})
    with pytest.raises(ValueError, match=r"of 2 in stage 2 of 2: lower then\.lr \(now 1e\+38"):
        train([make_labeled(4)], tmp_path, wild, then=[make_labeled(2)], device="cpu")


def test_the_second_stage_is_slower_unless_set():
    config = SegmenterConfig(lr=1e-3, ignore_above_quantile=0.9)
    second = then_config(config, has_datasets=False)
    assert second.lr == pytest.approx(3e-4)
    assert (second.max_steps, second.ignore_above_quantile) == (100, None)
    given = config.model_copy(update={"then": ThenConfig(lr=0.5)})
    assert then_config(given, has_datasets=True).lr == 0.5
    assert then_config(given, has_datasets=True).ignore_above_quantile == 0.9
