"""Splits of a comparison, with all contenders, in other processes of this machine.

Small networks gain little from a second core, so each core takes a split of its own. A process that
dies ends the comparison; a rerun finds the finished cells in OUT.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from rich.console import Console

from factory.verdict.contenders import contenders
from factory.verdict.folds import Split
from factory.verdict.inputs import Given, read
from factory.verdict.results import PARTS_DIR, Results
from factory.verdict.running import Runner, is_needed
from factory.verdict.settings import CompareConfig

LOOK_SEC = 2  # between looks at what other processes have finished


class Crew(Protocol):
    """Processes that work on several splits at once."""

    @property
    def at_once(self) -> int:
        """How many splits run at the same time."""
        ...

    def run(
        self,
        names: Sequence[str],
        splits: Sequence[Split],
        left_sec: float,
        look: Callable[[], None],
    ) -> None:
        """Score the contenders `names` on `splits`; the cells are in OUT afterwards.

        After `left_sec`, only contenders that need no generator still start. `look` is called
        every few seconds. Raises what a process raised.
        """
        ...


@dataclass(frozen=True)
class LocalCrew:
    """`processes` processes, which share the `cpus` cores."""

    given: Given
    config: CompareConfig
    processes: int
    cpus: int

    @property
    def at_once(self) -> int:
        return self.processes

    def run(
        self,
        names: Sequence[str],
        splits: Sequence[Split],
        left_sec: float,
        look: Callable[[], None],
    ) -> None:
        given, deadline = self.given.absolute(), time.time() + left_sec
        threads = max(1, self.cpus // self.processes)
        # A forked process would share locks with the threads of torch.
        context = multiprocessing.get_context("spawn")
        watched, alive = context.Pipe(duplex=False)
        with ProcessPoolExecutor(self.processes, context, _obey, (watched,)) as pool:
            waiting = {
                pool.submit(run_split, given, self.config, names, split, threads, deadline)
                for split in splits
            }
            try:
                while waiting:
                    done, waiting = wait(waiting, LOOK_SEC, FIRST_EXCEPTION)
                    look()
                    for split in done:
                        split.result()
            except BrokenProcessPool:
                raise ValueError(
                    "a process of the comparison was killed, perhaps for lack of memory: rerun the "
                    "command to resume, with fewer --processes"
                ) from None
            finally:
                alive.close()


def _obey(watched: Connection) -> None:
    """Make this process end when the other end of `watched` is closed: its owner has stopped."""

    def wait_for_end() -> None:
        with contextlib.suppress(EOFError):
            watched.recv()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner's to handle
    threading.Thread(target=wait_for_end, daemon=True).start()


def run_split(
    given: Given,
    config: CompareConfig,
    names: Sequence[str],
    split: Split,
    threads: int,
    deadline: float,
) -> None:
    """One split, in a process of its own; `deadline` is a time as of `time.time`."""
    import torch

    from factory.terminal.progress import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(threads)
    materials = read(given, config, given.out / PARTS_DIR).materials
    runner = Runner(materials, Results(given.out), [split], Console(quiet=True))
    by_name = {c.name: c for c in contenders(config)}
    for contender in (by_name[name] for name in names):
        if is_needed(contender, split) or time.time() < deadline:
            runner.cell(contender, split, split.train)
