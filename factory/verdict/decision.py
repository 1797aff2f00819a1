"""From scores to a verdict: what is recommended, and why.

The rule: nothing is recommended over the best labels-only contender unless it is better with
significance, on at least MIN_PAIRS splits. And nothing at all can be learned from annotations if
the best contender is not significantly better than every blind one.

The best labels-only contender is chosen by the same splits that score it, so its mean is a little
too high, which makes the comparison harder for the others. The recommended contender is the best of
several, so its lead is a little too high as well: check it on images that were kept aside.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from factory.verdict.statistics import Interval, paired

Scores = Mapping[int, float]  # mIoU by split

MIN_PAIRS = 3  # two pairs give intervals that are 13 times their standard deviation wide


@dataclass(frozen=True)
class Decision:
    """The outcome.

    `baseline` is the best labels-only contender, `winner` the recommended one (the baseline, if
    nothing is significantly better), `differences` those of all others from the baseline.
    `over_blind` is the least certain lead of the winner over a blind one; `is_learned` whether
    all these leads are significant.
    """

    baseline: str
    winner: str
    best: str
    differences: dict[str, Interval]
    blind: str | None
    over_blind: Interval | None
    is_learned: bool

    @property
    def is_hopeless(self) -> bool:
        """Whether enough splits were scored to say that nothing can be learned."""
        enough = self.over_blind is not None and is_enough(self.over_blind)
        return enough and not self.is_learned


def decide(
    labels: Mapping[str, Scores],
    factory: Mapping[str, Scores],
    blind: Mapping[str, Scores],
    test_share: float,
) -> Decision:
    """The verdict on scores by contender and split.

    `labels` are the labels-only contenders, at least one; every contender has at least one score.
    """
    baseline = _best(labels)
    others = {**labels, **factory}
    differences = {}
    for name, scores in others.items():
        found = None if name == baseline else paired(scores, labels[baseline], test_share)
        if found is not None:
            differences[name] = found
    winner = surest({n: d for n, d in differences.items() if n in factory}) or baseline
    leads = {name: paired(others[winner], scores, test_share) for name, scores in blind.items()}
    known = {name: lead for name, lead in leads.items() if lead is not None}
    closest = min(known, key=lambda name: known[name].low, default=None)
    return Decision(
        baseline=baseline,
        winner=winner,
        best=_best(others),
        differences=differences,
        blind=closest,
        over_blind=None if closest is None else known[closest],
        is_learned=bool(known) and all(is_proven(lead) for lead in known.values()),
    )


def surest(leads: Mapping[str, Interval]) -> str | None:
    """Of the contenders with significant leads, the one whose interval begins highest.

    They may have run on different splits, so that the means alone could not be compared.
    """
    proven = [name for name, lead in leads.items() if is_proven(lead)]
    return max(proven, key=lambda name: leads[name].low, default=None)


def is_proven(lead: Interval) -> bool:
    """Whether a lead is significant, on enough splits."""
    return is_enough(lead) and lead.is_positive


def is_enough(found: Interval) -> bool:
    """Whether a difference was measured on enough splits to say anything."""
    return found.cells >= MIN_PAIRS


def mean(scores: Scores) -> float:
    """Mean mIoU over the splits."""
    return statistics.fmean(scores.values())


def _best(scores: Mapping[str, Scores]) -> str:
    """The contender that does best against its strongest rival on the splits that both ran on.

    Means over different splits could not be compared. Those on fewer than MIN_PAIRS splits count
    only if there are no others.
    """
    known = {name: row for name, row in scores.items() if len(row) >= MIN_PAIRS} or scores

    def least_lead(name: str) -> float:
        leads = [paired(known[name], row, 1.0) for other, row in known.items() if other != name]
        return min((lead.mean for lead in leads if lead is not None), default=0.0)

    return max(known, key=least_lead)
