"""Successive halving: contenders that lose on few splits are not trained on all of them.

Splits are taken in rungs of 1, 2, 4 ... of them, times as many as run at once (Jamieson & Talwalkar
2016; Li et al. 2018). After each rung, if the rest does not fit into the time, the worse half is
cut. The functions here are pure: times and scores come in, names come out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

UNITS_SEC = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Cut:
    """The contenders to continue with, best first, and those to drop, best first."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]


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


def rest_sec(cell_sec: Mapping[str, float], contenders: Collection[str], splits: int) -> float:
    """Seconds that `splits` more splits take for each of `contenders`."""
    return splits * sum(cell_sec[name] for name in contenders)


def halve(
    scores: Mapping[str, float],
    cell_sec: Mapping[str, float],
    protected: Collection[str],
    splits: int,
    left_sec: float,
) -> Cut:
    """Cut the worse half of the contenders in `scores` if the rest takes longer than `left_sec`.

    `scores` are means over the splits done, `cell_sec` seconds per split, `splits` how many remain.
    A contender in `protected` stays: without the best labels-only contender there is nothing to
    compare with.
    """
    order = tuple(sorted(scores, key=lambda name: (-scores[name], name)))
    if rest_sec(cell_sec, order, splits) <= left_sec:
        return Cut(order, ())
    better = set(order[: math.ceil(len(order) / 2)]) | set(protected)
    return Cut(
        tuple(name for name in order if name in better),
        tuple(name for name in order if name not in better),
    )


def best(scores: Mapping[str, float], among: Sequence[str]) -> str | None:
    """The name in `among` with the highest score, None if none was scored."""
    known = [name for name in among if name in scores]
    return max(known, key=lambda name: scores[name], default=None)
