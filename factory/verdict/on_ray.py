"""Splits as Ray tasks: several at once, here or on a cluster.

Inputs and OUT must have the same paths on every node. A worker that is lost is replaced by Ray, and
its successor finds the finished cells in OUT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from factory.verdict.contenders import contenders
from factory.verdict.folds import Split
from factory.verdict.inputs import Given, read
from factory.verdict.results import PARTS_DIR, Results
from factory.verdict.running import Runner
from factory.verdict.settings import CompareConfig

MAX_CPUS = 4  # per task: small networks gain nothing from more


@dataclass(frozen=True)
class RayRows:
    """Runs rows (all contenders of a split) on the cluster that this process has joined."""

    given: Given
    config: CompareConfig

    @property
    def at_once(self) -> int:
        """How many rows run at the same time."""
        import ray

        found = ray.cluster_resources()
        gpus = int(found.get("GPU", 0))
        return max(1, gpus or int(found.get("CPU", 1)) // self._cpus)

    @property
    def _cpus(self) -> int:
        """Cores per row: they are divided among all splits."""
        import ray

        splits = self.config.folds * self.config.seeds
        return min(MAX_CPUS, max(1, int(ray.cluster_resources().get("CPU", 1)) // splits))

    def run(self, names: Sequence[str], splits: Sequence[Split]) -> None:
        """Score the contenders `names` on `splits`; the cells are in OUT afterwards.

        Raises what a worker raised.
        """
        import ray

        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        task = ray.remote(_row).options(num_cpus=self._cpus, num_gpus=1 if has_gpu else 0)
        # Workers have their own working directory.
        given = self.given.absolute()
        waiting = [task.remote(given, self.config, list(names), s, self._cpus) for s in splits]
        try:
            ray.get(waiting)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None


def _row(
    given: Given, config: CompareConfig, names: Sequence[str], split: Split, threads: int
) -> None:
    """One split, in a process of Ray."""
    import torch

    from factory.terminal.progress import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(threads)
    materials = read(given, config, given.out / PARTS_DIR).materials
    runner = Runner(materials, Results(given.out), [split], Console(quiet=True))
    every: dict[str, Any] = {c.name: c for c in contenders(config)}
    for name in names:
        runner.cell(every[name], split, split.train)
    runner.bench(split).delete()
