"""Successive halving as a function of scores and needs."""

from __future__ import annotations

import pytest

from factory.verdict.racing import in_order, parse_budget, rungs, worse_half

SCORES = {"a": 0.5, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.1}
NEEDS = {name: {f"student-{name}"} for name in SCORES}


@pytest.mark.parametrize(
    ("splits", "wanted"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])]
)
def test_rungs(splits: int, wanted: list[int]) -> None:
    assert rungs(splits) == wanted


def test_several_splits_run_at_once() -> None:
    assert rungs(8, at_once=3) == [3, 6, 8]
    assert rungs(8, at_once=16) == [8]


def test_the_worse_half_is_cut() -> None:
    assert worse_half(SCORES, [list(SCORES)], NEEDS) == ("a", "e")


def test_groups_are_halved_apart() -> None:
    assert worse_half(SCORES, [["a", "e"], ["b", "c", "d"], []], NEEDS) == ("e", "d")
    assert worse_half(SCORES, [["e"], ["b"]], NEEDS) == ()


def test_what_is_made_for_others_stays() -> None:
    needs = NEEDS | {"c": {"student-c", "student-e"}}
    assert worse_half(SCORES, [list(SCORES)], needs) == ("a",)


def test_ties_do_not_depend_on_the_order() -> None:
    equal = {"y": 0.5, "x": 0.5}
    assert worse_half(equal, [list(equal)], {"x": {"p"}, "y": {"q"}}) == ("y",)


def test_the_best_run_first_after_what_is_made_for_them() -> None:
    assert in_order(SCORES, NEEDS) == ["b", "c", "d", "a", "e"]
    needs = NEEDS | {"b": {"student-b", "student-a", "student-e"}, "a": {"student-a", "student-e"}}
    assert in_order(SCORES, needs) == ["e", "a", "b", "c", "d"]


@pytest.mark.parametrize(("text", "wanted"), [("30m", 1800), ("1.5h", 5400), ("90s", 90)])
def test_budgets(text: str, wanted: float) -> None:
    assert parse_budget(text) == wanted


@pytest.mark.parametrize("text", ["30", "m", "0m", "-3h", "1d"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 30m"):
        parse_budget(text)
