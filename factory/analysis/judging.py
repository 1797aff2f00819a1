"""Whether a finding of the paper holds on this data: rules on means and standard deviations.

Variants are trained and scored on the same splits, so they are compared split by split. `a` is
above `b` if the mean of the differences over the splits exceeds their standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from train_seg.evaluation.evaluate import Spread

Outcome = Literal["holds", "does not hold", "undecided"]

WORDS: dict[Outcome, str] = {
    "holds": "holds on this data",
    "does not hold": "does not hold on this data",
    "undecided": "is neither confirmed nor refuted by this data",
}


def above(measure: str) -> str:
    """The rule of `is_above`, in words."""
    return (
        f"A variant counts as better than another if the mean of the differences in {measure}, "
        "split by split, exceeds their standard deviation."
    )


ABOVE = above("mIoU")


class Gain(Spread):
    """Mean and standard deviation of differences; printed with a sign."""


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Gain:
    """a - b on the splits that both have, by split."""
    return Gain.of([a[i] - b[i] for i in sorted(a.keys() & b.keys())])


def is_above(gain: Gain) -> Outcome:
    """Whether a is better than b, from `difference`: undecided within one standard deviation."""
    if gain.mean is None or gain.std is None:
        return "undecided"
    if abs(gain.mean) <= gain.std:
        return "undecided"
    return "holds" if gain.mean > 0 else "does not hold"


def is_equal(gain: Gain) -> Outcome:
    """Whether a and b are equally good, from `difference`: within one standard deviation."""
    if gain.mean is None or gain.std is None:
        return "undecided"
    return "holds" if abs(gain.mean) <= gain.std else "does not hold"


def does_not_help(gain: Gain) -> Outcome:
    """Whether a is no better than b, from `difference`: equally good, or worse."""
    if gain.mean is None or gain.std is None:
        return "undecided"
    return "does not hold" if gain.mean > gain.std else "holds"


def all_of(outcomes: Iterable[Outcome]) -> Outcome:
    """Holds if all hold, does not hold if one does not, else undecided."""
    found = set(outcomes)
    if "does not hold" in found:
        return "does not hold"
    return "undecided" if "undecided" in found else "holds"


def sentence(finding: str, outcome: Outcome, evidence: str) -> str:
    """The sentence of an analysis: a finding such as `fewer labels lower the mIoU`, and why."""
    return f"The paper's finding that {finding} {WORDS[outcome]}: {evidence}."


def points(value: Spread) -> str:
    """A score 0-1 in points, `49.4 ± 1.9`, or a difference, `+1.3 ± 0.4`."""
    if value.mean is None:
        return "-"
    sign = "+" if isinstance(value, Gain) else ""
    std = "" if value.std is None else f" ± {100 * value.std:.1f}"
    return f"{100 * value.mean:{sign}.1f}{std}"
