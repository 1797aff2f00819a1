"""The learning rate of a training, and when a member stops."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labelers.config import FastTraining, NetworkTraining, ReferenceTraining

WARMUP = 0.05  # share of the steps, except in reference training, in which the learning rate rises


def learning_rate(training: ReferenceTraining | FastTraining | NetworkTraining, step: int) -> float:
    """Adam's learning rate at a step, counted from 0.

    In reference training it is constant; otherwise it rises linearly, then falls to zero as half a
    cosine.
    """
    if isinstance(training, ReferenceTraining):
        return training.lr
    rise = max(1, round(WARMUP * training.steps))
    if step < rise:
        return training.lr * (step + 1) / rise
    return training.lr * (1 + math.cos(math.pi * (step - rise) / (training.steps - rise))) / 2


class StoppingRule:
    """Which members have seen `patience` batches in a row that did not beat their best loss."""

    def __init__(self, members: int, patience: int):
        self.patience = patience
        self.best = [float("inf")] * members
        self.since = [0] * members
        self.stopped = [False] * members

    def update(self, losses: Sequence[float]) -> list[int]:
        """Take one batch's loss of every member; return the members that stop now."""
        newly = []
        for member, loss in enumerate(losses):
            better = loss < self.best[member]
            self.best[member] = min(loss, self.best[member])
            self.since[member] = 0 if better else self.since[member] + 1
            if not self.stopped[member] and self.since[member] >= self.patience:
                self.stopped[member] = True
                newly.append(member)
        return newly
