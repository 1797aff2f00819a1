"""Whether a disturbed job, once resumed, ends in the same bytes as an undisturbed one.

    python -m benchmarks.chaos --rounds 20 [--seed 0] [--n 24] [--json FILE]

Every round disturbs one job of the embedded demo several times: `kill -9` of workers, raylets,
Ray's head and the driver, Ctrl-C and `kill`, a full disk, a second job in the folder, truncated and
zeroed files, before and after the dataset is finished, with the local executor and with Ray. Then
the same command is rerun until it succeeds, and the sha256 of dataset.json, samples.parquet and
every shard are compared with those of an undisturbed job. Equal seeds give equal disturbances,
up to the scheduler: `--rounds 1 --seed S` repeats a round.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.disturbances import (
    HEAD,
    NEARLY_FULL_BYTES,
    RAYLET,
    WORKER,
    Job,
    can_mount,
    damage,
    filled,
    identifies,
    small_disk,
)
from factory.pipeline.verify import verify
from factory_core.dataset import MANIFEST_NAME, SAMPLES_NAME, SHARDS_DIR
from factory_core.storage import file_sha256, write_json

SHARD_SIZE = 2
ATTEMPTS = 6  # to finish a job that is no longer disturbed
RAY_ONLY = ("kill -9 a worker", "kill -9 the raylet", "kill -9 Ray's head")
KINDS = (
    *RAY_ONLY,
    "kill -9 the driver",
    "SIGTERM",
    "SIGINT",
    "full disk",
    "two jobs",
    "damage while it runs",
    "damage",
)


@dataclass(frozen=True)
class Step:
    """A disturbance of a job with `workers`, once a `share` (0-1) of its shards is finished."""

    kind: str
    executor: str
    workers: int
    share: float


def plan(seed: int) -> list[Step]:
    """The disturbances of a round; consecutive seeds include each kind in turn."""
    rng = random.Random(seed)
    kinds = [KINDS[seed % len(KINDS)], *rng.sample(KINDS, rng.randint(1, 2))]
    rng.shuffle(kinds)
    if kinds[0] == "damage":  # there are no files yet
        kinds.append(kinds.pop(0))
    steps = []
    for kind in kinds:
        executor = "ray" if kind in RAY_ONLY else rng.choice(["local", "local", "ray"])
        steps.append(Step(kind, executor, rng.randint(1, 2), rng.random()))
    return steps


@dataclass
class Round:
    """The disturbances of a round, and how it ended."""

    seed: int
    done: list[str] = field(default_factory=list)
    attempts: int = 0
    verdict: str = ""
    elapsed_sec: float = 0.0

    @property
    def is_same(self) -> bool:
        """Whether it ended in the same dataset as the undisturbed job."""
        return self.verdict == "same"

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {'; '.join(self.done)}: {self.attempts} attempts,"
            f" {self.elapsed_sec:.0f} s: {self.verdict}"
        )


def hashes(out: Path) -> dict[str, str]:
    """sha256 of the files of a dataset, without the preview and hidden files."""
    files = [out / MANIFEST_NAME, out / SAMPLES_NAME, *sorted((out / SHARDS_DIR).glob("*"))]
    return {str(path.relative_to(out)): file_sha256(path) for path in files if path.is_file()}


class Chaos:
    """Runs rounds in `folder`; `shards` is the number of candidate shards of the job."""

    def __init__(self, folder: Path, n: int):
        self.folder = folder
        self.shards = -(-n // SHARD_SIZE)
        settings = {
            "generator.steps": 6,
            "generator.batch_size": SHARD_SIZE,
            "dataset.shard_size": SHARD_SIZE,
            "dataset.samples_per_shard": 5,
        }
        given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        self.arguments = ["--n", str(n), *given]
        self.has_disks = can_mount(folder)
        self.expected: dict[str, str] = {}

    def reference(self) -> None:
        """Run the undisturbed job."""
        job = self._job("reference")
        code, said = job.wait(job.start("local"))
        if code != 0:
            raise SystemExit(f"the undisturbed job failed: {said}")
        self.expected = hashes(job.out)

    def _job(self, name: str) -> Job:
        (self.folder / name).mkdir(exist_ok=True)
        # Ray's sockets go below this folder; the system allows only short paths for them.
        ray = self.folder / "ray"
        ray.mkdir(exist_ok=True)
        mark = f"{os.getpid()}-{name}"
        return Job(self.arguments, self.folder / name / "out", mark, ray)

    def round(self, seed: int) -> Round:
        """Disturb a job, resume it, compare."""
        result, rng, began = Round(seed), random.Random(f"round {seed}"), time.perf_counter()
        job = self._job(f"round-{seed}")
        disk = small_disk(job.out.parent) if self.has_disks else nullcontext()
        with disk:
            try:
                for step in plan(seed):
                    self._disturb(job, step, rng, result)
                result.verdict = self._resume(job, rng, result)
                for _ in range(rng.randint(0, 2)):
                    if result.is_same:
                        result.done.append(" + ".join(damage(rng, job.out, 3)))
                        result.verdict = self._resume(job, rng, result)
            finally:
                job.end()
        result.elapsed_sec = time.perf_counter() - began
        return result

    def _resume(self, job: Job, rng: random.Random, result: Round) -> str:
        """Rerun the command until it succeeds; returns the verdict."""
        said = ""
        for _ in range(ATTEMPTS):
            result.attempts += 1
            executor = rng.choice(["local", "local", "ray"])
            code, said = job.wait(job.start(executor, rng.randint(1, 2)))
            if code == 0:
                break
            result.done.append(f"resumed without success ({code}: {said})")
        else:
            return f"not finished after {ATTEMPTS} attempts: {said}"
        found = hashes(job.out)
        different = sorted(k for k in found | self.expected if found.get(k) != self.expected.get(k))
        if different:
            return f"different bytes in {', '.join(different)}"
        problems = verify(job.out)
        return "; ".join(map(str, problems)) or "same"

    # --- disturbances ------------------------------------------------------------------------

    def _disturb(self, job: Job, step: Step, rng: random.Random, result: Round) -> None:
        if step.kind == "damage":
            result.done.append(" + ".join(damage(rng, job.out, 4)) or "damage (no files yet)")
            return
        if identifies(job.out / MANIFEST_NAME):  # finished: give the job something to do
            (job.out / SAMPLES_NAME).write_bytes(b"")
            result.done.append(f"emptied {SAMPLES_NAME}")
        result.attempts += 1
        shards = round(step.share * self.shards)
        act = {
            "full disk": self._fill_disk,
            "two jobs": self._start_two,
            "damage while it runs": self._damage_running,
        }.get(step.kind, self._send)
        code, said = act(job, step, shards, rng)
        on = step.executor + (f" {step.workers}" if step.executor == "ray" else "")
        ended = f"{code}: {said}".replace(f"{job.out}", "OUT") if code == 1 else str(code)
        result.done.append(f"{step.kind} ({on}, after {shards} shards, ended with {ended})")

    def _send(self, job: Job, step: Step, shards: int, rng: random.Random) -> tuple[int | str, str]:
        """Send a signal to one of the job's processes."""
        process = job.start(step.executor, step.workers)
        job.await_shards(process, shards)
        signals = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
        kinds = dict(zip(RAY_ONLY, (WORKER, RAYLET, HEAD), strict=True))
        pids = [process.pid]
        if step.kind in kinds:
            pids = job.await_processes(process, kinds[step.kind])
        try:
            os.kill(rng.choice(pids), signals.get(step.kind, signal.SIGKILL))
        except (ProcessLookupError, IndexError):
            code, said = job.wait(process)
            return f"{code} before the signal arrived", said
        return job.wait(process)

    def _fill_disk(
        self, job: Job, step: Step, shards: int, rng: random.Random
    ) -> tuple[int | str, str]:
        left = rng.randrange(NEARLY_FULL_BYTES)
        if not self.has_disks:  # Ray itself needs larger files
            return job.wait(job.start("local", file_limit=left))
        process = job.start(step.executor, step.workers)
        job.await_shards(process, shards)
        with filled(job.out.parent, left):
            return job.wait(process)

    def _start_two(
        self, job: Job, step: Step, shards: int, rng: random.Random
    ) -> tuple[int | str, str]:
        first, second = job.start(step.executor, step.workers), job.start("local")
        job.await_shards(first, shards)
        if rng.random() < 0.5:
            first.kill()
        said = [job.wait(process) for process in (first, second)]
        return " and ".join(str(code) for code, _ in said), ""

    def _damage_running(
        self, job: Job, step: Step, shards: int, rng: random.Random
    ) -> tuple[int | str, str]:
        process = job.start(step.executor, step.workers)
        job.await_shards(process, shards)
        done = damage(rng, job.out, 4)
        code, said = job.wait(process)
        why = f" ({said})" if code == 1 else ""
        return f"{code}{why} with {' + '.join(done) or 'no files'}", ""


def main() -> None:
    """Run the rounds; the exit code is non-zero unless all end in the same dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first round; increases by one per round"
    )
    parser.add_argument("--n", type=int, default=24, help="candidates")
    parser.add_argument("--folder", type=Path, help="working folder with a short path")
    parser.add_argument("--json", type=Path, help="file to write the rounds to")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends its jobs, unmounts its disk
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as name:
        chaos = Chaos(Path(name), options.n)
        if not chaos.has_disks:
            print(
                "cannot mount a disk here (this needs root): a limit on the size of files replaces"
                " the full disk, with the local executor only"
            )
        chaos.reference()
        rounds = []
        for seed in range(options.seed, options.seed + options.rounds):
            rounds.append(chaos.round(seed))
            print(f"{len(rounds)}/{options.rounds} {rounds[-1]}", flush=True)
    if options.json:
        write_json(options.json, [asdict(r) for r in rounds])
    kinds = collections.Counter(step.kind for r in rounds for step in plan(r.seed))
    print("; ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())))
    same = sum(r.is_same for r in rounds)
    print(f"{same} of {options.rounds} rounds ended in the same dataset")
    sys.exit(same != options.rounds)


if __name__ == "__main__":
    main()
