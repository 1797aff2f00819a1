"""Shards that could not be made: each is tried twice, then recorded; the job continues.

OUT/candidates/NNNNNN_failed.json      until the job is rerun
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from factory_core.storage import Entry, Store

SUFFIX = "_failed.json"
HOPELESS = 5  # failures before any success: the shards are not to blame


class ShardError(ValueError):
    """A shard cannot be made, for a reason that may not apply to others; one line."""


# What reading, sampling and labelling may raise: an unreadable photograph, no memory for a batch, a
# numerical failure. Anything else is a bug. Errors in writing stop the job.
SHARD_ERRORS = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class ShardFailure:
    """A shard (candidates `start` to `stop`, exclusive), and why and where it failed."""

    number: int
    start: int
    stop: int
    reason: str
    traceback: str

    def __str__(self) -> str:
        return f"shard {self.number} (samples {self.start} to {self.stop - 1}): {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ShardFailure:
        """The inverse of `to_json`; raises TypeError for anything else."""
        return cls(**content)


class ShardsFailed(ValueError):
    """A job could not make some of its shards: `failures`, by number; `hint` says what to do."""

    def __init__(self, failures: Sequence[ShardFailure], done: int, total: int, hint: str):
        self.failures = sorted(failures, key=lambda failure: failure.number)
        others = len(failures) - 1
        more = f" (and {others} other{'s' * (others > 1)})" if others else ""
        super().__init__(
            f"failed twice: {self.failures[0]}{more}; {done} of {total} shards are finished and"
            f" kept: {hint}"
        )


def record(candidates: Store, failure: ShardFailure) -> None:
    """Record a failure for `read_failures`, which may run on any machine."""
    candidates.write_json(f"{failure.number:06d}{SUFFIX}", failure.to_json())


def read_failures(candidates: Store) -> list[ShardFailure]:
    """Failures of the current run, or of the last one, by number."""
    found = []
    for content in candidates.read_many(_files(candidates)).values():
        try:
            found.append(ShardFailure.from_json(json.loads(content)))
        except (ValueError, TypeError):
            continue  # damaged: the shard will be retried anyway
    return found


def sweep_failures(candidates: Store) -> None:
    """Forget failures: their shards are about to be tried again."""
    for entry in _files(candidates):
        candidates.delete(entry.name)


def _files(candidates: Store) -> list[Entry]:
    return [entry for entry in candidates.entries() if entry.name.endswith(SUFFIX)]
