"""Shared parts are counted once, and for everyone who needs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.verdict.bench import Bench
from factory.verdict.contenders import contenders
from factory.verdict.costs import Ledger
from factory.verdict.inputs import Given, read
from factory.verdict.settings import compare_config


def write(path: Path, own: dict[str, float], inside: dict[str, list[str]]) -> Ledger:
    path.write_text(json.dumps({"own": own, "inside": inside}))
    return Ledger(path)


def test_a_part_needed_twice_counts_once(tmp_path: Path) -> None:
    own = {"labeler": 10.0, "labels": 2.0, "student": 5.0, "contender": 0.5}
    inside = {"contender": ["labels", "student", "labeler"], "labels": ["labeler"]}
    assert write(tmp_path / "c.json", own, inside).needed("contender") == own


def test_existing_parts_keep_their_time(tmp_path: Path) -> None:
    ledger = write(tmp_path / "c.json", {"labeler": 10.0}, {})
    with ledger.part("contender"), ledger.part("labeler"):
        pass
    assert ledger.own["labeler"] == 10
    again = Ledger(tmp_path / "c.json")
    assert sum(again.needed("contender").values()) == pytest.approx(10, abs=1)


def test_what_failed_is_not_recorded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "c.json")
    with pytest.raises(KeyError), ledger.part("labeler"):
        raise KeyError
    assert "labeler" not in ledger.own


def test_a_labeler_is_a_part_of_the_contender_that_is_named_after_it(
    annotated: Path, generator: Path, tmp_path: Path
) -> None:
    """Otherwise it would look as if nothing were made for it."""
    config = compare_config(["labeler.members=1", "labeler.training.steps=2"])
    m = read(Given(annotated, tmp_path, generator=str(generator)), config, tmp_path).materials
    bench = Bench(m, "split", range(3), 0)
    ensemble = next(c for c in contenders(config) if c.name == "labeler-ensemble")
    with bench.costs.part(ensemble.name):
        ensemble.make(bench)
    assert bench.costs.needed(ensemble.name).keys() == {"labeler-ensemble", "teacher-ensemble"}
    assert bench.costs.own["labeler-ensemble"] < bench.costs.own["teacher-ensemble"]
