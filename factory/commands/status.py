"""How far a job is, told from the files it leaves: from another terminal, or another machine.

Only names and times of the completion markers are read, and the contents of the latest few: the
job is never touched, and a folder on a network disk answers at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.locking.lock import Holder, read_holder
from factory.pipeline.failures import ShardFailure, read_failures
from factory.terminal.text import duration, listing
from factory_core.dataset import CANDIDATES_DIR, JOB_NAME, MANIFEST_NAME, markers, open_dataset
from factory_core.storage import Entry, check_reachable, read_many

LATEST = 100  # shards that the rate is taken from


@dataclass(frozen=True)
class Status:
    """Where an unfinished job stands.

    `samples_per_sec` is None before the first shard is finished, `last_sec` (seconds since the
    latest one) too; `holder` is whoever works in the folder, or None.
    """

    samples_done: int
    samples_total: int
    shards_done: int
    shards_total: int
    samples_per_sec: float | None
    last_sec: float | None
    failures: list[ShardFailure]
    holder: Holder | None

    @property
    def eta_sec(self) -> float | None:
        """Time left at that rate."""
        left = self.samples_total - self.samples_done
        return left / self.samples_per_sec if self.samples_per_sec else None


def read_status(folder: Path) -> Status:
    """Where the unfinished job in `folder` stands.

    Raises FileNotFoundError if no job was begun there, ValueError if its job.json is damaged.
    """
    candidates = folder / CANDIDATES_DIR
    job_file = candidates / JOB_NAME
    check_reachable(folder)
    if not job_file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {MANIFEST_NAME} and no {CANDIDATES_DIR}/{JOB_NAME}: expected the"
            " --out of `factory generate` or `factory label`"
        )
    try:
        job = json.loads(job_file.read_bytes())
        n, size = int(job["n"]), int(job["recipe"]["dataset"]["shard_size"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{job_file} is damaged: run the command that began it again, which mends it"
        ) from None
    now = time.time()
    finished = sorted(markers(candidates), key=lambda entry: entry.mtime)
    numbers = [int(entry.name.split("_")[0]) for entry in finished]
    return Status(
        samples_done=sum(min(size, n - number * size) for number in numbers),
        samples_total=n,
        shards_done=len(numbers),
        shards_total=-(-n // size),
        samples_per_sec=_rate(candidates, finished[-LATEST:]),
        last_sec=now - finished[-1].mtime if finished else None,
        failures=read_failures(candidates),
        holder=_worker(folder),
    )


def _rate(candidates: Path, finished: Sequence[Entry]) -> float | None:
    """Samples/s while at least one of the shards with these markers was being made.

    So neither the nights between two runs nor the number of workers need be known.
    """
    samples, spans = 0, []
    ends = {entry.name: entry.mtime for entry in finished}
    for name, content in read_many(candidates, finished).items():
        try:
            stats = json.loads(content)
            spans.append((ends[name] - float(stats["elapsed_sec"]), ends[name]))
            samples += int(stats["stop"]) - int(stats["start"])
        except (ValueError, KeyError, TypeError):
            continue  # damaged: the job will make it again
    busy_sec, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        busy_sec += max(0.0, end - max(begin, until))
        until = max(until, end)
    return samples / busy_sec if busy_sec > 0 else None


def _worker(folder: Path) -> Holder | None:
    """Who works in `folder`, as far as can be told: a job that was killed leaves its name."""
    holder = read_holder(folder)
    return None if holder is None or holder.is_gone else holder


def render(folder: Path) -> list[str]:
    """What `factory status` prints; raises as `read_status`."""
    if (folder / MANIFEST_NAME).is_file():
        manifest = open_dataset(folder).manifest
        totals = manifest.totals
        return [
            f"finished: {totals.candidates} candidates, {totals.kept} kept in"
            f" {len(manifest.shards)} shard{'s' * (len(manifest.shards) != 1)}"
        ]
    status = read_status(folder)
    share = status.samples_done / status.samples_total
    lines = [
        f"{status.shards_done} of {status.shards_total} shards, {status.samples_done} of"
        f" {status.samples_total} samples ({share:.0%})"
    ]
    if status.samples_per_sec and status.eta_sec is not None and status.last_sec is not None:
        lines.append(
            f"{status.samples_per_sec:.3g} samples/s, about {duration(status.eta_sec)} left at"
            f" that rate; last shard {duration(status.last_sec)} ago"
        )
    lines.append(
        f"running on {status.holder}"
        if status.holder
        else "not running: run the same command again to go on"
    )
    if status.failures:
        lines.append(f"{len(status.failures)} failed, to be tried again by the next run:")
        lines += listing(status.failures)
    return lines
