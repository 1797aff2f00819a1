"""Shared parts are counted once, and for everyone who needs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.verdict.costs import Ledger


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
