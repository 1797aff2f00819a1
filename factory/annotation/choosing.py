"""Which images to annotate next: those unlike the others, and those a labeler is unsure about.

`diverse` is farthest-point sampling (the greedy k-centre of Sener & Savarese 2018): always the
image farthest from all that are chosen or annotated already. `uncertain` takes the highest
uncertainty first. `both` samples farthest points among the most uncertain quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

Selection = Literal["random", "diverse", "uncertain", "both"]
CANDIDATES_FACTOR, CANDIDATES_SHARE = 4, 4  # of `both`: at least 4 a choice, and a quarter
THUMBNAIL = 8  # pixels


class Choice(NamedTuple):
    """A chosen candidate: its row, and how far it was from all chosen before and all known.

    `distance` is None where it did not decide.
    """

    row: int
    distance: float | None


@dataclass(frozen=True)
class Candidates:
    """What is known about N images: `descriptors` `[N, D]`, and `uncertainty` `[N]` in nats.

    `known` `[M, D]` describes images that are annotated already.
    """

    descriptors: np.ndarray
    uncertainty: np.ndarray | None = None
    known: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.descriptors)


def choose_images(
    how: Selection, candidates: Candidates, count: int, seed: int = 0
) -> list[Choice]:
    """At most `count` of the candidates, the most useful first.

    Raises ValueError if `how` needs the uncertainty and there is none.
    """
    count = min(count, len(candidates))
    if how == "random":
        order = np.random.default_rng(seed).permutation(len(candidates))
        return [Choice(int(row), None) for row in order[:count]]
    if how == "diverse":
        return _farthest(candidates, np.arange(len(candidates)), count)
    if candidates.uncertainty is None:
        raise ValueError(f"--select {how} needs a labeler: give --labeler, or --select diverse")
    order = np.argsort(-candidates.uncertainty, kind="stable")
    if how == "uncertain":
        return [Choice(int(row), None) for row in order[:count]]
    pool = max(CANDIDATES_FACTOR * count, len(candidates) // CANDIDATES_SHARE)
    return _farthest(candidates, order[:pool], count, is_first_given=True)


def pixel_descriptors(images: torch.Tensor) -> np.ndarray:
    """Without a generator: a thumbnail of each image, and the spread of its colours.

    Images uint8 `[N, 3, H, W]` to float64 `[N, 195]`.
    """
    scaled = images.double() / 255
    small = torch.nn.functional.adaptive_avg_pool2d(scaled, THUMBNAIL).flatten(1)
    return torch.cat([small, scaled.std((2, 3))], 1).numpy()


def _farthest(
    candidates: Candidates, pool: np.ndarray, count: int, is_first_given: bool = False
) -> list[Choice]:
    """Farthest points among the rows `pool`, in standard deviations of their descriptors.

    The first one is the first of `pool` if `is_first_given`, else the farthest from the known ones,
    or without any the nearest to the mean.
    """
    if not len(pool):
        return []
    points = candidates.descriptors[pool].astype(np.float64)
    mean, std = points.mean(0), points.std(0) + 1e-9
    points = (points - mean) / std
    distance = np.full(len(pool), np.inf)
    for other in [] if candidates.known is None else (candidates.known - mean) / std:
        distance = np.minimum(distance, np.linalg.norm(points - other, axis=1))
    if is_first_given:
        first = 0
    elif np.isfinite(distance).all():
        first = int(distance.argmax())
    else:
        first = int(np.linalg.norm(points, axis=1).argmin())
    chosen: list[Choice] = []
    while len(chosen) < min(count, len(pool)):
        place = int(distance.argmax()) if chosen else first
        found = float(distance[place])
        chosen.append(Choice(int(pool[place]), found if np.isfinite(found) else None))
        distance = np.minimum(distance, np.linalg.norm(points - points[place], axis=1))
        distance[place] = -1  # below that of an equal image
    return chosen


def reasons(
    how: Selection, candidates: Candidates, chosen: Sequence[Choice]
) -> list[tuple[str, ...]]:
    """Why each was chosen, in lines that fit under a tile.

    The uncertainty and its rank; the distance from all that were chosen before or known.
    """
    found = []
    for row, distance in chosen:
        lines = []
        if candidates.uncertainty is not None and how in ("uncertain", "both"):
            value = float(candidates.uncertainty[row])
            rank = int((candidates.uncertainty > value).sum()) + 1
            lines.append(f"{value:.3f} nats, {rank}/{len(candidates)}")
        if how in ("diverse", "both"):
            lines.append("typical" if distance is None else f"distance {distance:.3g}")
        if how == "both" and distance is None:
            lines.pop()
        found.append(tuple(lines) or ("random",))
    return found
