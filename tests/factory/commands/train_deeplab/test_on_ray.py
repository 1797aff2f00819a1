"""Training by several processes: the same steps as by one, and nothing is lost with a worker."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console

from factory.commands.train_deeplab import on_ray
from factory.commands.train_deeplab.job import Crew, SegmenterJob
from factory.commands.train_deeplab.on_ray import train_on_ray
from factory.commands.train_deeplab.training import train_here
from factory.demo.render import render_folder
from factory.pipeline.executors.cluster import cluster
from train_seg.config import AugmentConfig, SegmenterConfig, ThenConfig

CONFIG = SegmenterConfig(
    encoder="resnet18",
    encoder_depth=3,
    dropout=0.0,  # each process draws its own
    optimizer="sgd",
    lr=1e-4,  # rounding grows a hundredfold per step at 1e-2: batch norm over four pooled values
    dice=1.0,
    ema=0.9,
    batch_size=4,
    max_steps=6,
    validate_every=1,
    augment=AugmentConfig(horizontal_flip=True),
    precision="float32",
)


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine annotated images of 32x32."""
    folder = tmp_path_factory.mktemp("labeled")
    render_folder(folder, range(9), size=32)
    return folder


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    """A cluster that all trainings of this file join."""
    with cluster(None, 2):
        yield


def job(labeled: Path, out: Path, config: SegmenterConfig = CONFIG, **more: object) -> SegmenterJob:
    return SegmenterJob([labeled], out, labeled, config, "cpu", **more)  # type: ignore[arg-type]


def losses(out: Path) -> list[float]:
    with (out / "curves.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def alone(labeled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in this process."""
    out = tmp_path_factory.mktemp("alone")
    train_here(job(labeled, out), Console(quiet=True))
    return out


@pytest.mark.slow
def test_a_crew_of_one_gives_the_same_bytes(two_cores, labeled, alone, tmp_path):
    train_on_ray(job(labeled, tmp_path), Crew(1, cpus_per_worker=1), Console(quiet=True))
    for name in ("model.safetensors", "model.json", "panels/step-000006.png"):
        assert (tmp_path / name).read_bytes() == (alone / name).read_bytes()
    assert losses(tmp_path) == losses(alone)
    assert not (tmp_path / ".ray").exists()


@pytest.mark.slow
def test_relative_paths_reach_the_workers(two_cores, labeled, alone, tmp_path, monkeypatch):
    """Ray Train gives its workers another working directory."""
    monkeypatch.chdir(tmp_path)
    for name, folder in (("labeled", labeled), ("alone", alone)):
        Path(name).symlink_to(folder)
    relative = job(Path("labeled"), Path("out"), then=[Path("labeled")], init="alone")
    config = CONFIG.model_copy(update={"max_steps": 1, "then": ThenConfig(max_steps=1)})
    train_on_ray(replace(relative, config=config), Crew(1, 1), Console(quiet=True))
    assert (tmp_path / "out/model.safetensors").is_file()


def mortal(job: SegmenterJob, fuse: Path) -> SegmenterJob:
    """A job whose second worker is killed after three steps, as long as `fuse` exists."""

    # Defined in this function, so that Ray's workers get it by value.
    class Mortal(SegmenterJob):
        def read(self, *report: Any) -> Any:
            after_step = on_ray._Reports.on_train_batch_end

            def die(self: Any, trainer: Any, *rest: Any) -> None:
                if (trainer.global_rank, trainer.global_step) == (1, 3) and fuse.exists():
                    fuse.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                after_step(self, trainer, *rest)

            on_ray._Reports.on_train_batch_end = die  # type: ignore[method-assign]
            return super().read(*report)

    return Mortal(**{field.name: getattr(job, field.name) for field in fields(job)})


@pytest.mark.slow
def test_two_workers_take_the_steps_of_one_and_survive_a_crash(two_cores, labeled, alone, tmp_path):
    fuse = tmp_path / "fuse"
    fuse.touch()
    out = tmp_path / "out"
    trained = train_on_ray(mortal(job(labeled, out), fuse), Crew(2, 1), Console(quiet=True))
    assert not fuse.exists()
    found, expected = losses(out), losses(alone)
    assert found[:5] == pytest.approx(expected[:5], abs=1e-5)
    assert len(found) == len(expected) == CONFIG.max_steps
    weights = safetensors.torch.load_file(out / "model.safetensors")
    for name, tensor in safetensors.torch.load_file(alone / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    assert trained.scores["images"] == 9  # each counted once


@pytest.mark.slow
def test_two_workers_take_the_steps_of_both_stages(two_cores, labeled, tmp_path):
    then = ThenConfig(max_steps=2, validate_every=1, lr=1e-4)
    config = CONFIG.model_copy(update={"max_steps": 2, "then": then})
    train_here(job(labeled, tmp_path / "alone", config, then=[labeled]), Console(quiet=True))
    crew = job(labeled, tmp_path / "crew", config, then=[labeled])
    train_on_ray(crew, Crew(2, 1), Console(quiet=True))
    assert losses(tmp_path / "crew") == pytest.approx(losses(tmp_path / "alone"), abs=1e-5)
    assert len(losses(tmp_path / "crew")) == 4


@pytest.mark.slow
def test_a_users_mistake_in_a_worker_is_one_line(two_cores, labeled, tmp_path):
    wild = CONFIG.model_copy(update={"lr": 1e38, "max_steps": 3})
    with pytest.raises(ValueError, match=r"the training diverged, .* lower lr"):
        train_on_ray(job(labeled, tmp_path, wild), Crew(1, 1), Console(quiet=True))
    assert not (tmp_path / "model.json").exists()
    assert not (tmp_path / ".ray").exists()


def test_uneven_batches_are_refused_before_ray_starts(labeled, tmp_path):
    for settings, workers, expected in (
        (
            {},
            3,
            "--workers 3: batch_size 4 is not divisible by 3 workers: set batch_size to a mult",
        ),
        (
            {"batch_size": 12},
            12,
            "found 9 validation images in .*, expected at least one per",
        ),
    ):
        config = CONFIG.model_copy(update=settings)
        with pytest.raises(ValueError, match=expected):
            train_on_ray(job(labeled, tmp_path / "out", config), Crew(workers), Console(quiet=True))
    odd = SegmenterJob([labeled], tmp_path / "out", None, CONFIG, "cuda:1")
    with pytest.raises(ValueError, match="--device cuda:1: with --workers, expected auto, cpu or"):
        train_on_ray(odd, Crew(2), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_threads_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory_core.machine.available_cpus", lambda: 8)
    assert [Crew(n).cpus for n in (1, 3, 20)] == [8, 2, 1]
    assert Crew(2, address="auto").cpus == 1
    assert Crew(2, cpus_per_worker=5).cpus == 5


@pytest.mark.slow
def test_training_alone_imports_no_ray(labeled: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from factory.cli import main; sys.argv[0] = 'factory'\n"
        "try: main()\n"
        "finally: print([m for m in sys.modules if m.split('.')[0] == 'ray'])"
    )
    options = ["--set", "encoder_depth=3", "--set", "batch_size=2", "--device", "cpu"]
    command = ["train-deeplab", "--data", labeled, "--out", tmp_path / "out", "--steps", "1"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, command), "--encoder", "resnet18", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
