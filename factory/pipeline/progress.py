"""Where a running job stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from factory.pipeline.shard import ShardStats

Stage = Literal["generate", "commit", "done"]


@dataclass(frozen=True)
class Progress:
    """A snapshot; `samples_resumed` samples existed when the run started; uncertainty in nats."""

    stage: Stage
    samples_done: int
    samples_total: int
    samples_resumed: int
    shards_done: int
    shards_total: int
    shards_failed: int
    mean_uncertainty: float | None
    elapsed_sec: float
    devices: tuple[str, ...] = ()
    """kinds of device that made the shards"""

    @property
    def samples_per_sec(self) -> float:
        """Rate since this run started, including its start-up."""
        return (self.samples_done - self.samples_resumed) / max(self.elapsed_sec, 1e-9)

    @property
    def eta_sec(self) -> float | None:
        """Time left at that rate; None before the first shard."""
        rate = self.samples_per_sec
        return (self.samples_total - self.samples_done) / rate if rate else None


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Show nothing."""


@dataclass
class Tally:
    """Sums over finished shards, updated one by one: adding all up each time would be O(n²)."""

    samples_total: int
    shards_total: int
    samples: int = 0
    samples_resumed: int = 0
    shards: int = 0
    failed: int = 0
    uncertainty_sum: float = 0.0
    precision: str | None = None
    devices: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.perf_counter)

    def add(self, stats: ShardStats, resumed: bool = False) -> None:
        """Count a finished shard; `resumed` if an earlier run made it.

        Raises ValueError if it was computed in a different precision from earlier ones, as when
        workers on different machines start at the same time.
        """
        if self.precision not in (None, stats.precision):
            found = " and ".join(sorted((str(self.precision), stats.precision)))
            raise ValueError(
                f"auto means different precisions on these machines, {found}: set one of them and"
                " give another --out"
            )
        self.precision = stats.precision
        self.devices |= {stats.device} - {""}
        self.samples += stats.samples
        self.samples_resumed += stats.samples * resumed
        self.shards += 1
        self.uncertainty_sum += stats.uncertainty_sum

    def progress(self, stage: Stage) -> Progress:
        """A snapshot of the run."""
        return Progress(
            stage,
            self.samples,
            self.samples_total,
            self.samples_resumed,
            self.shards,
            self.shards_total,
            self.failed,
            self.uncertainty_sum / self.samples if self.samples else None,
            time.perf_counter() - self.started,
            tuple(sorted(self.devices)),
        )
