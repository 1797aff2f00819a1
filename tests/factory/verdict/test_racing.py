"""Successive halving as a function of scores and times."""

from __future__ import annotations

import pytest

from factory.verdict.racing import best, halve, parse_budget, rungs

SCORES = {"a": 0.5, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.1}
SECONDS = dict.fromkeys(SCORES, 10.0)


@pytest.mark.parametrize(
    ("splits", "wanted"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])]
)
def test_rungs(splits: int, wanted: list[int]) -> None:
    assert rungs(splits) == wanted


def test_several_splits_run_at_once() -> None:
    assert rungs(8, at_once=3) == [3, 6, 8]
    assert rungs(8, at_once=16) == [8]


def test_nothing_is_cut_while_the_rest_fits() -> None:
    cut = halve(SCORES, SECONDS, (), splits=2, left_sec=100)
    assert cut.kept == ("b", "c", "d", "a", "e")
    assert cut.dropped == ()


def test_the_worse_half_is_cut() -> None:
    cut = halve(SCORES, SECONDS, (), splits=2, left_sec=99)
    assert cut.kept == ("b", "c", "d")
    assert cut.dropped == ("a", "e")


def test_the_protected_stay() -> None:
    assert halve(SCORES, SECONDS, ("e",), 2, 0).kept == ("b", "c", "d", "e")


def test_ties_do_not_depend_on_the_order() -> None:
    equal = {"y": 0.5, "x": 0.5}
    assert halve(equal, dict.fromkeys(equal, 1.0), (), 9, 1).kept == ("x",)


@pytest.mark.parametrize(("text", "wanted"), [("30m", 1800), ("1.5h", 5400), ("90s", 90)])
def test_budgets(text: str, wanted: float) -> None:
    assert parse_budget(text) == wanted


@pytest.mark.parametrize("text", ["30", "m", "0m", "-3h", "1d"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 30m"):
        parse_budget(text)


def test_best_of_some() -> None:
    assert best(SCORES, ["a", "d", "unknown"]) == "d"
    assert best(SCORES, ["unknown"]) is None
