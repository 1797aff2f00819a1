"""Disturbances of a job: its processes die, its files are damaged, its disk is full.

Processes are found by a mark in their inherited environment, so that other jobs and Ray clusters on
this machine are never touched.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from factory_core.dataset import CANDIDATES_DIR, JOB_NAME, MANIFEST_NAME, SAMPLES_NAME, SHARDS_DIR
from factory_core.dataset.recovery import recover_manifest

MARK = "DATASET_FACTORY_CHAOS"
LONGEST_SEC = 300  # a command that takes longer counts as hung and is killed
DISK_MIB = 64
NEARLY_FULL_BYTES = 30_000  # free bytes of a full disk, at most: less than a shard

# Patterns of the command lines in a Ray cluster.
WORKER, RAYLET, HEAD = r"^ray::(?!\w*Agent)", "/raylet ", "/gcs_server "


@dataclass
class Job:
    """A `factory generate` command, run as often as necessary on the folder `out`.

    `mark` is unique among the jobs of this machine; `ray` is the folder for files of Ray clusters.
    """

    arguments: Sequence[str]
    out: Path
    mark: str
    ray: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, executor: str, workers: int = 1, file_limit: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the command; `file_limit` is the largest file (bytes) that it may write."""
        how = ["--executor", executor, *(["--workers", str(workers)] if executor == "ray" else [])]
        command = [sys.executable, "-m", "factory", "generate", *self.arguments, *how]

        def prepare() -> None:
            # A background job of a shell ignores Ctrl-C, and its children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        process = subprocess.Popen(
            [*command, "--out", str(self.out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Without SPT_NOENV, Ray overwrites the environment of workers when it renames them.
            env={**os.environ, MARK: self.mark, "SPT_NOENV": "1", "RAY_TMPDIR": str(self.ray)},
            preexec_fn=prepare,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> tuple[int | str, str]:
        """The exit code (`hung` if it had to be killed) and the last line on stderr."""
        code: int | str
        try:
            _, said = process.communicate(timeout=LONGEST_SEC)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
            code = "hung"
        lines = said.decode(errors="replace").strip().splitlines()
        return code, lines[-1] if lines else ""

    def await_shards(self, process: subprocess.Popen[bytes], count: int) -> bool:
        """Wait until `count` candidate shards are finished; False if the command ends earlier."""
        while process.poll() is None:
            with suppress(FileNotFoundError):
                names = os.listdir(self.out / CANDIDATES_DIR)
                if sum(name.endswith("_stats.json") for name in names) >= count:
                    return True
            time.sleep(0.01)
        return False

    def await_processes(self, process: subprocess.Popen[bytes], kind: str) -> list[int]:
        """Wait for `processes` of this kind; none if the command ends earlier."""
        while process.poll() is None:
            if found := self.processes(kind):
                return found
            time.sleep(0.1)
        return []

    def processes(self, kind: str = "") -> list[int]:
        """Ids of this job's processes whose command line matches the pattern `kind`."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # ended meanwhile, or of another user
                if not entry.name.isdigit():
                    continue
                environment = (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if f"{MARK}={self.mark}".encode() in environment and re.search(kind, line):
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Kill all remaining processes of the job."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.communicate()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# --- files -----------------------------------------------------------------------------------


def damage(rng: random.Random, out: Path, most: int) -> list[str]:
    """Truncate or zero up to `most` files of a job or dataset; returns which and how.

    One of the files that identify the dataset stays intact: without any, the job has to refuse.
    """
    files = sorted(
        path
        for pattern in ("*", f"{SHARDS_DIR}/*", f"{CANDIDATES_DIR}/*")
        for path in out.glob(pattern)
        if path.is_file() and not path.name.startswith(".")
    )
    if identifying := [path for path in files if identifies(path)]:
        files.remove(rng.choice(identifying))
    done = []
    for path in rng.sample(files, min(len(files), rng.randint(1, most))):
        with suppress(FileNotFoundError):  # the job has just moved or removed it
            done.append(f"{_damage(rng, path)} {path.relative_to(out)}")
    return done


def _damage(rng: random.Random, path: Path) -> str:
    size = path.stat().st_size
    how = rng.choice(["truncated", "emptied", "zeroed", "zeroed a part of"])
    with path.open("r+b") as file:
        if how == "truncated":
            file.truncate(rng.randrange(max(size, 1)))
        elif how == "emptied":
            file.truncate(0)
        else:
            begin = rng.randrange(max(size, 1)) if how.endswith("of") else 0
            file.seek(begin)
            file.write(bytes(min(size - begin, 4096 if begin else size)))
    return how


def identifies(path: Path) -> bool:
    """Whether this file still says which dataset the folder holds."""
    if path.name == SAMPLES_NAME:
        return recover_manifest(path.parent) is not None
    if path.name not in (MANIFEST_NAME, JOB_NAME) and not path.name.endswith("_stats.json"):
        return False
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError):
        return False


# --- disks -----------------------------------------------------------------------------------


def can_mount(folder: Path) -> bool:
    """Whether a small disk can be mounted on `folder`, which needs root."""
    with small_disk(folder) as is_mounted:
        return is_mounted


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of DISK_MIB on `folder` temporarily; yields whether that worked."""
    size = f"size={DISK_MIB}m"
    try:
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
        is_mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:  # lazily: processes of a killed job may need a moment to end
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path, left: int) -> Iterator[None]:
    """Leave only `left` bytes free on the disk of `folder`, temporarily."""
    ballast = folder / "ballast"
    status = os.statvfs(folder)
    pages = max(0, status.f_bavail - left // status.f_frsize)
    try:
        # The job also takes blocks, so that the disk may be full earlier.
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            for _ in range(pages):
                file.write(bytes(status.f_frsize))
        yield
    finally:
        ballast.unlink()
