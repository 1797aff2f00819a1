"""What the chaos benchmark does to a folder; the rest of it is running commands."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.chaos import KINDS, RAY_ONLY, plan
from benchmarks.disturbances import damage, tells


def test_consecutive_seeds_do_everything() -> None:
    steps = [step for seed in range(len(KINDS)) for step in plan(seed)]
    assert {step.kind for step in steps} == set(KINDS)
    assert all(step.executor == "ray" for step in steps if step.kind in RAY_ONLY)
    assert plan(3) == plan(3) != plan(4)


def test_what_tells_whose_the_folder_is_survives(tmp_path: Path) -> None:
    tellers = [tmp_path / "dataset.json", tmp_path / "candidates/job.json"]
    names = ("shards/a.tar", "candidates/000000.tar", "samples.parquet")
    others = [tmp_path / name for name in names]
    for path in (*tellers, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'{"n": 25}')
    assert [tells(path) for path in (*tellers, *others)] == [True, True, False, False, False]
    rng, damaged = random.Random(0), set[str]()
    for _ in range(40):
        damaged |= {line.split()[-1] for line in damage(rng, tmp_path, 3)}
    assert sum(map(tells, tellers)) == 1
    assert damaged > set(names)
