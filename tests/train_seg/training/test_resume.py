"""A training that is killed twice ends with the same bytes as an uninterrupted one."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from train_seg.config import AugmentConfig, SegmenterConfig, ThenConfig
from train_seg.data.training_data import LabeledImages
from train_seg.training.train import train

STEPS = 5
# Children are forked from a process that has imported everything but trained nothing.
CHILDREN = multiprocessing.get_context("forkserver")


class KillAt(Callback):
    """Kills the process after a step, which no handler can prevent, or as stage 2 begins."""

    def __init__(self, step: int | str):
        self.step = step

    def on_train_start(self, trainer, pl_module):
        if self.step == "boundary" and pl_module.place.stage == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer, pl_module, *_):
        if pl_module.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run(data, out: Path, config: SegmenterConfig, val, mix, kill_at, then=()) -> int:
    """Train in a new process and return its exit code."""
    process = CHILDREN.Process(target=_run, args=(data, out, config, val, mix, kill_at, then))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(data, out: Path, config: SegmenterConfig, val, mix, kill_at, then) -> None:
    callbacks = [] if kill_at is None else [KillAt(kill_at)]
    train(data, out, config, val, then=then, mix=mix, device="cpu", callbacks=callbacks)


@pytest.mark.slow
def test_killed_twice_equals_uninterrupted(dataset, config, tmp_path, make_labeled):
    config = config.model_copy(
        update={
            "max_steps": STEPS,
            "validate_every": 2,
            "optimizer": "adamw",
            "schedule": "cosine",
            "warmup_steps": 1,
            "dice": 1.0,
            "ema": 0.9,
            "patience": 3,
            "augment": AugmentConfig(horizontal_flip=True, scale=(0.5, 1), brightness=0.2),
        }
    )
    data: list[Path | LabeledImages] = [dataset, make_labeled(3)]
    given = (make_labeled(4), [0.7, 0.3])
    assert run(data, tmp_path / "whole", config, *given, None) == 0
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    out = tmp_path / "killed"
    # In the middle of a round, then right before its checkpoint; with and without a loader process.
    for step, workers in ((3, 0), (4, 1)):
        loading = config.model_copy(update={"num_workers": workers})
        assert run(data, out, loading, *given, step) == -signal.SIGKILL
        assert not (out / "model.safetensors").exists()
    assert run(data, out, config, *given, None) == 0
    assert (out / "model.safetensors").read_bytes() == expected
    assert steps(out) == steps(tmp_path / "whole")


@pytest.mark.slow
def test_killed_in_both_stages_and_between_them(dataset, config, tmp_path, make_labeled):
    config = config.model_copy(
        update={
            "max_steps": 4,
            "validate_every": 2,
            "optimizer": "adamw",
            "schedule": "cosine",
            "ema": 0.9,
            "augment": AugmentConfig(horizontal_flip=True),
            "then": ThenConfig(max_steps=4, validate_every=2, mix=(0.5, 0.5)),
        }
    )
    given = ([dataset], make_labeled(4), None)
    then = [make_labeled(3), dataset]

    def attempt(out: Path, kill_at: int | str | None) -> int:
        data, val, mix = given
        return run(data, out, config, val, mix, kill_at, then)

    assert attempt(tmp_path / "whole", None) == 0
    out = tmp_path / "killed"
    for kill_at in (3, "boundary", 7):
        assert attempt(out, kill_at) == -signal.SIGKILL
        assert not (out / "model.safetensors").exists()
    assert attempt(out, None) == 0
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == expected
    assert steps(out) == steps(tmp_path / "whole") == ["2", "4", "6", "8"]


def steps(out: Path) -> list[str]:
    with (out / "curves.csv").open() as file:
        return [row["step"] for row in csv.DictReader(file)]
