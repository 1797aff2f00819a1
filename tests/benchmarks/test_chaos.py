"""The plan of the chaos benchmark and the damage it does; the rest is running commands."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.chaos import KINDS, RAY_ONLY, plan
from benchmarks.disturbances import damage, identifies


def test_consecutive_seeds_include_every_kind() -> None:
    steps = [step for seed in range(len(KINDS)) for step in plan(seed)]
    assert {step.kind for step in steps} == set(KINDS)
    assert all(step.executor == "ray" for step in steps if step.kind in RAY_ONLY)
    assert plan(3) == plan(3) != plan(4)


def test_one_file_that_identifies_the_dataset_stays_intact(tmp_path: Path) -> None:
    identifying = [tmp_path / "dataset.json", tmp_path / "candidates/job.json"]
    names = ("shards/a.tar", "candidates/000000.tar", "samples.parquet")
    others = [tmp_path / name for name in names]
    for path in (*identifying, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'{"n": 25}')
    assert [identifies(path) for path in (*identifying, *others)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    rng, damaged = random.Random(0), set[str]()
    for _ in range(40):
        damaged |= {line.split()[-1] for line in damage(rng, tmp_path, 3)}
    assert sum(map(identifies, identifying)) == 1
    assert damaged > set(names)
