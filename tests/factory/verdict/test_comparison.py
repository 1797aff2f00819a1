"""`compare` as a user runs it: the verdict, resuming, what a kill leaves, the planted faults."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from factory.verdict.bench import Bench, Materials
from factory.verdict.contenders import Contender, contenders
from factory.verdict.folds import draw_splits
from factory.verdict.models import Model, SegmenterModel
from factory.verdict.pools import Pool
from factory.verdict.results import Results
from factory.verdict.running import Runner
from factory.verdict.settings import CompareConfig
from factory.verdict.students import unet_settings
from factory.verdict.verdict import decide_on
from tests.factory.verdict.conftest import draw, write_annotated

QUICK = {
    "folds": 2,
    "seeds": 1,
    "label_steps": 2,
    "pretrain_steps": 2,
    "finish_steps": 1,
    "synthetic": 4,
    "batch_size": 4,
    "labeler.members": 2,
    "labeler.training.steps": 5,
    "labeler.network.steps": 2,
}
UNET = ("--contender", "unet", "--contender", "blind-place", "--contender", "blind-shuffled")


def settings(**changes: Any) -> list[str]:
    """`--set` options of a quick comparison."""
    return [part for k, v in (QUICK | changes).items() for part in ("--set", f"{k}={v}")]


def cell_times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


@pytest.mark.slow
def test_everything(
    factory: Callable, annotated: Path, photographs: Path, generator: Path, tmp_path: Path
) -> None:
    """All contenders on two splits; the verdict and its files."""
    second = write_annotated(tmp_path / "second", 2, first=200)
    out, model = tmp_path / "out", tmp_path / "model"
    command = (
        *("compare", "--labeled", annotated, "--images", photographs, "--generator", generator),
        *("--also-test", second, "--out", out, "--budget", "none", *settings()),
    )
    result = factory(*command)
    assert result.code == 0, result.err
    verdict = json.loads((out / "verdict.json").read_text())
    rows = {row["name"]: row for row in verdict["contenders"]}
    every = {c.name for c in contenders(CompareConfig()) if not c.is_extra and c.instead_of is None}
    assert set(rows) == every
    assert rows["deeplab-imagenet"]["splits"] in (0, 2)
    for name, row in rows.items():
        if name != "deeplab-imagenet":
            assert row["splits"] == 2
            assert 0 <= row["mean"] <= 1
            assert 0 <= row["also"] <= 1
    assert rows["round-2"]["cost_sec"] > rows["round-1"]["cost_sec"]
    assert verdict["sentence"] in result.out
    assert verdict["sentence"] in (out / "verdict.md").read_text()
    assert (out / "verdict.png").read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in photographs.iterdir()} - {"000.png", "001.png"}
    assert set(verdict["annotate_next"]) == names
    assert not (out / "parts").exists()

    before = cell_times(out)
    again = factory(*command)
    assert again.code == 0, again.err
    assert cell_times(out) == before
    assert "features" not in again.out  # nothing was made again
    assert "sampling" not in again.out
    assert not (out / "parts").exists()
    assert json.loads((out / "verdict.json").read_text()) == verdict
    assert not model.exists()


@pytest.mark.slow
def test_killed_it_repeats_nothing(annotated: Path, tmp_path: Path) -> None:
    """SIGKILL after two cells; the rest is made, the same as without the kill."""

    def start(out: Path) -> subprocess.Popen:
        command = ["compare", "--labeled", annotated, "--out", out, "--budget", "none", *UNET]
        arguments = [*map(str, command), *settings(curve=False)]
        return subprocess.Popen([sys.executable, "-m", "factory", *arguments])

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    while process.poll() is None and len(list(killed.glob("cells/*.json"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its own processes end, too
    before = cell_times(killed)
    assert 2 <= len(before) < 8
    assert not (killed / "verdict.json").exists()
    for out in (killed, whole):
        assert start(out).wait() == 0
    after = cell_times(killed)
    assert len(after) == 8  # two controls are always there
    assert {name: after[name] for name in before} == before
    scores = [
        [row["mean"] for row in json.loads((out / "verdict.json").read_text())["contenders"]]
        for out in (killed, whole)
    ]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 1])
def test_shuffled_masks_teach_nothing(factory: Callable, tmp_path: Path, shift: int) -> None:
    """Right masks are learned and a model is delivered; masks of other images are not."""
    labeled = write_annotated(tmp_path / "labeled", 8, shift)
    out, model = tmp_path / "out", tmp_path / "model"
    more = settings(folds=4, label_steps=40, curve=False, batch_size=6)
    result = factory(
        *("compare", "--labeled", labeled, "--out", out, "--deliver", model, *UNET, *more)
    )
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["is_learned"] is (shift == 0)
    if shift:
        assert verdict["recommended"] is None
        assert verdict["sentence"].startswith("Nothing can be learned from your 8 images")
        assert result.code == 1
        assert "nothing to deliver" in result.err
        assert not model.exists()
    else:
        assert result.code == 0, result.err
        assert verdict["recommended"] == "unet"
        delivered = (model / "model.json").stat().st_mtime_ns
        taken = ("--deliver", labeled)
        refused = factory("compare", "--labeled", labeled, "--out", out, *taken, *UNET, *more)
        assert "--deliver" in refused.err
        assert "give a new or empty folder" in refused.err
        again = factory(
            *("compare", "--labeled", labeled, "--out", out, "--deliver", model, *UNET, *more)
        )
        assert again.code == 0, again.err
        assert f"unet is in {model} already" in " ".join(again.out.split())
        assert (model / "model.json").stat().st_mtime_ns == delivered


@pytest.mark.slow
def test_shifted_synthetic_masks_are_not_recommended(tmp_path: Path) -> None:
    """Against a poor model on labels alone, right masks win; the same shifted by 8 px do not."""
    pairs = [draw(i) for i in range(24 + 8)]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))
    config = CompareConfig(folds=4, seeds=1, label_steps=1, pretrain_steps=10, batch_size=6)
    materials = Materials(
        config,
        tmp_path / "parts",
        Pool(images[24:].contiguous(), tmp_path / "annotated", None),
        masks[24:],
        ["ground", "square"],
    )

    def synthetic(shift_px: int) -> Callable[[Bench], Model]:
        def make(bench: Bench) -> Model:
            data = bench.labelled(images[:24], masks[:24].roll(shift_px, 1), "synthetic")
            how = unet_settings(config, bench.size, bench.seed, config.pretrain_steps)
            return SegmenterModel(bench.student(f"synthetic-{shift_px}", [data], how))

        return make

    unet = next(c for c in contenders(config) if c.name == "unet")
    right = Contender("synthetic-0", "right", "factory", synthetic(0))
    wrong = Contender("synthetic-8", "shifted", "factory", synthetic(8))
    splits = draw_splits(materials.masks.numpy(), config.folds, config.seeds)
    runner = Runner(materials, Results.begin(tmp_path / "out", {}), splits, Console(quiet=True))
    runner.race([unet, right, wrong])

    def winner(*every: Contender) -> str:
        cells = {c.name: runner.cells(c) for c in every}
        return decide_on(cells, every, splits[0].test_share).winner

    assert winner(unet, right, wrong) == "synthetic-0"
    assert winner(unet, wrong) == "unet"


@pytest.mark.slow
def test_time_is_kept(factory: Callable, annotated: Path, tmp_path: Path) -> None:
    """With no time at all, one split and the labels-only contenders remain."""
    out = tmp_path / "out"
    command = ("compare", "--labeled", annotated, "--out", out, "--budget", "0.001s")
    result = factory(*command, "--processes", 1, *settings(curve=False))
    assert result.code == 0, result.err
    assert "cut after 1 split, to stay in time: " in result.out
    verdict = json.loads((out / "verdict.json").read_text())
    splits = {row["name"]: row["splits"] for row in verdict["contenders"]}
    assert splits[verdict["best_labels_only"]] == 2
    assert 1 in splits.values()


@pytest.mark.slow
def test_both_splits_at_once(factory: Callable, annotated: Path, tmp_path: Path) -> None:
    """In two processes, and on a running cluster: the same scores as one after the other."""
    from factory.pipeline.executors.cluster import cluster

    scores = []
    for where in (["--processes", 1], ["--processes", 2], ["--address", "auto"]):
        out = tmp_path / f"out{len(scores)}"
        command = ("compare", "--labeled", annotated, "--out", out, "--budget", "none", *UNET)
        with cluster(None, 2) if "auto" in where else nullcontext():
            result = factory(*command, *settings(curve=False), *where)
        assert result.code == 0, result.err
        assert result.out.count("unet mIoU") == 2
        verdict = json.loads((out / "verdict.json").read_text())
        scores.append({row["name"]: row["mean"] for row in verdict["contenders"]})
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert scores[0] == pytest.approx(scores[2], abs=1e-4)


@pytest.mark.slow
def test_a_failure_in_a_process_is_one_line(
    factory: Callable, annotated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    more = ("--set", "lr=1e30", "--processes", 2)
    result = factory("compare", "--labeled", annotated, "--out", out, *UNET, *settings(), *more)
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1
    assert "lr" in result.err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--budget", "soon"], "--budget soon: expected a duration such as 30m, 1.5h or 90s"),
        (["--images", "{photographs}"], "found --images without --generator"),
        (["--contender", "magic"], "--contender magic: expected one of blind-class"),
        (["--contender", "blind-shuffled"], "found no contender that uses the labels alone"),
        (
            ["--address", "auto", "--device", "cuda:1", "--contender", "unet"],
            "--device cuda:1 --address auto: Ray assigns the GPUs: give --device cuda",
        ),
        (["--set", "fold=2"], "fold"),
    ],
)
def test_mistakes_are_one_line(
    factory: Callable, annotated: Path, photographs: Path, tmp_path: Path, options: list[str], line
) -> None:
    out = tmp_path / "out"
    given = [option.format(photographs=photographs) for option in options]
    result = factory("compare", "--labeled", annotated, "--out", out, *given)
    assert result.code == 1
    assert line in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not out.exists()
