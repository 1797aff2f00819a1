"""Successive halving: contenders that lose on few splits are not trained on all of them.

Splits are taken in rungs of 1, 2, 4 ... of them, times as many as run at once (Jamieson & Talwalkar
2016; Li et al. 2018). After each rung, if the rest does not fit into the time, the worse half is
cut. The functions here are pure: scores and needs come in, names come out. What a contender needs
are the labelers, labels and segmenters that are made for it, which it may share with others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

UNITS_SEC = {"s": 1, "m": 60, "h": 3600}

Needs = Mapping[str, AbstractSet[str]]  # by contender


def parse_budget(text: str) -> float:
    """Seconds of a duration such as `30m`, `1.5h` or `90s`; raises ValueError for others."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"--budget {text}: expected a duration such as 30m, 1.5h or 90s")
    return float(match[1]) * UNITS_SEC[match[2]]


def rungs(splits: int, at_once: int = 1) -> list[int]:
    """The number of splits done after each rung: 1, 2, 4 ... times `at_once`, finally all."""
    doubling = [at_once * 2**i for i in range(splits.bit_length())]
    return [*(done for done in doubling if done < splits), splits]


def worse_half(
    scores: Mapping[str, float], groups: Sequence[Sequence[str]], needs: Needs
) -> tuple[str, ...]:
    """The names to cut, by means over the splits done: the worse half of each group.

    The groups are halved apart, because the best of the labels alone is the measure of all others,
    and chance must not leave a weak one in its place. One that needs only what is made for others
    stays: it costs next to nothing.
    """
    halves = [best_first({name: scores[name] for name in names}) for names in groups]
    kept = [name for half in halves for name in half[: math.ceil(len(half) / 2)]]
    made = frozenset[str]().union(*(needs[name] for name in kept))
    worse = [name for half in halves for name in half[math.ceil(len(half) / 2) :]]
    return tuple(name for name in worse if not needs[name] <= made)


def best_first(scores: Mapping[str, float]) -> list[str]:
    """The names by falling score, equal ones in the order of the alphabet."""
    return sorted(scores, key=lambda name: (-scores[name], name))


def in_order(scores: Mapping[str, float], needs: Needs) -> list[str]:
    """The names as they are to run if time may end: the best first.

    But one that needs only what is made for a better one comes right before it.
    """
    order, made = list[str](), set[str]()
    for name in best_first(scores):
        made |= needs[name]
        ready = [n for n in best_first(scores) if n not in order and needs[n] <= made]
        order += sorted(ready, key=lambda n: len(needs[n]))
    return order
