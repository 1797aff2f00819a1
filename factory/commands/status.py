"""`factory status`: the progress of a job, read from the files it leaves.

It works from another terminal or machine. It reads only the names and times of the completion
markers, and the contents of the latest few, so it never disturbs the job and is quick on a network
disk. Of a finished dataset, it reads dataset.json and samples.parquet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from factory.locking.lock import Holder, read_holder
from factory.pipeline.failures import ShardFailure, read_failures
from factory.reports.class_shares import show_class_shares
from factory.terminal.text import duration, listing
from factory_core.dataset import CANDIDATES_DIR, JOB_NAME, MANIFEST_NAME, markers, open_dataset
from factory_core.storage import Entry, Place, Store, open_store

LATEST = 100  # shards from which the rate is computed


@dataclass(frozen=True)
class Status:
    """The progress of an unfinished job.

    `samples_per_sec` and `last_sec` (seconds since the latest shard) are None before the first
    shard is finished; `holder` is the process working in the folder, or None.
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
        """Time left at this rate."""
        left = self.samples_total - self.samples_done
        return left / self.samples_per_sec if self.samples_per_sec else None


def read_status(out: Place) -> Status:
    """The progress of the unfinished job in `out`.

    Raises FileNotFoundError if no job was started there, ValueError if its job.json is damaged.
    """
    folder = open_store(out)
    folder.check()
    candidates = folder / CANDIDATES_DIR
    try:
        job = json.loads(candidates.read(JOB_NAME))
        n, size = int(job["n"]), int(job["recipe"]["dataset"]["shard_size"])
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no {MANIFEST_NAME} and no {CANDIDATES_DIR}/{JOB_NAME}: expected the"
            " --out of `factory generate` or `factory label`"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{candidates / JOB_NAME} is damaged: rerun the command that started the job, which"
            " repairs it"
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


def _rate(candidates: Store, finished: Sequence[Entry]) -> float | None:
    """Samples/s over the time in which at least one of these shards was being made.

    Neither pauses between runs nor the number of workers matter.
    """
    samples, spans = 0, []
    ends = {entry.name: entry.mtime for entry in finished}
    for name, content in candidates.read_many(finished).items():
        try:
            stats = json.loads(content)
            spans.append((ends[name] - float(stats["elapsed_sec"]), ends[name]))
            samples += int(stats["stop"]) - int(stats["start"])
        except (ValueError, KeyError, TypeError):
            continue  # damaged: the job will redo it
    busy_sec, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        busy_sec += max(0.0, end - max(begin, until))
        until = max(until, end)
    return samples / busy_sec if busy_sec > 0 else None


def _worker(folder: Store) -> Holder | None:
    """The process working in `folder`, unless it is known to have ended."""
    holder = read_holder(folder)
    return None if holder is None or holder.is_gone else holder


def report(folder: Store, console: Console) -> None:
    """Print the progress of a job, or what a finished one made; raises as `read_status`."""
    if not folder.exists(MANIFEST_NAME):
        console.print("\n".join(_progress(read_status(folder))))
        return
    manifest = open_dataset(folder).manifest
    totals = manifest.totals
    console.print(
        f"finished: {totals.candidates} candidates, {totals.kept} kept in"
        f" {len(manifest.shards)} shard{'s' * (len(manifest.shards) != 1)}"
    )
    show_class_shares(manifest, folder, console)


def _progress(status: Status) -> list[str]:
    """The progress of an unfinished job in words."""
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
        else "not running: rerun the command to resume"
    )
    if status.failures:
        lines.append(f"{len(status.failures)} failed; the next run tries them again:")
        lines += listing(status.failures)
    return lines
