"""Splits of a comparison, with all contenders, as Ray tasks, here or on a cluster.

Inputs and OUT must have the same paths on every node. A worker that is lost is replaced by Ray, and
its successor finds the finished cells in OUT.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from factory.verdict.crew import LOOK_SEC, run_split
from factory.verdict.folds import Split
from factory.verdict.inputs import Given
from factory.verdict.settings import CompareConfig

MAX_CPUS = 4  # per task: small networks gain nothing from more


@dataclass(frozen=True)
class RayCrew:
    """Tasks on the cluster that this process has joined."""

    given: Given
    config: CompareConfig

    @property
    def at_once(self) -> int:
        """How many splits run at the same time."""
        import ray

        found = ray.cluster_resources()
        gpus = 0 if self.given.device == "cpu" else int(found.get("GPU", 0))
        return max(1, gpus or int(found.get("CPU", 1)) // self._cpus)

    @property
    def _cpus(self) -> int:
        """Cores per split: they are divided among all of them."""
        import ray

        splits = self.config.folds * self.config.seeds
        return min(MAX_CPUS, max(1, int(ray.cluster_resources().get("CPU", 1)) // splits))

    def run(
        self,
        names: Sequence[str],
        splits: Sequence[Split],
        left_sec: float,
        look: Callable[[], None],
    ) -> None:
        """See `factory.verdict.crew.Crew`."""
        import ray

        uses_gpu = self.given.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1
        task = ray.remote(run_split).options(num_cpus=self._cpus, num_gpus=1 if uses_gpu else 0)
        # Workers have their own working directory.
        given, deadline = self.given.absolute(), time.time() + left_sec
        waiting = [
            task.remote(given, self.config, list(names), split, self._cpus, deadline)
            for split in splits
        ]
        try:
            while waiting:
                done, waiting = ray.wait(waiting, timeout=LOOK_SEC)
                look()
                ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ValueError(
                f"a process of the comparison was lost ({type(error).__name__}): rerun the command "
                "to resume"
            ) from None
