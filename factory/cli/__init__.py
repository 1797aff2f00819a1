"""The `factory` command: every verb parses its options, then makes one function call.

Nothing heavy is imported until a command runs, so `factory --help` is immediate. Nothing at all is
imported before the signal handlers are set, because a command may be stopped while it starts.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from factory.cli.stopping import Stopping

__all__ = ["command_line", "main"]

INTERRUPTED = 130  # 128 + SIGINT, which is also typer's exit code for a KeyboardInterrupt
SPINS = "3000"  # of a thread of GNU OpenMP that waits for the others, before it sleeps


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 1, never a traceback.

    Ctrl-C ends it with exit code 130, `kill` with 143, and a line that says how to resume.
    FACTORY_TRACEBACK=1 in the environment shows the traceback of a mistake.
    """
    stopping = Stopping()
    try:
        with stopping:
            _run()
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code != INTERRUPTED:
            raise
        # Interrupted code may raise something else, such as an ImportError. A BlockingIOError is
        # still reported: a job whose folder another job took over is interrupted too
        # (`factory.locking.lease`).
        is_stopped = stopping.code is not None and not isinstance(error, BlockingIOError)
        if is_stopped or isinstance(error, KeyboardInterrupt | SystemExit):
            print("\ninterrupted: rerun the command to resume", file=sys.stderr)
            sys.exit(stopping.code or INTERRUPTED)
        line = _line_for(error)
        if line is None or os.environ.get("FACTORY_TRACEBACK"):
            raise
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
        sys.exit(1)


def command_line() -> Any:
    """The typer application, its commands registered in the order of `factory --help`."""
    # Importing them registers their commands, in this order.
    from factory.cli import (  # noqa: F401
        analyse,
        annotate,
        exchange,
        make,
        publish,
        report,
        sample,
        train,
        use,
        verdict,
    )
    from factory.cli.application import app

    return app


def _run() -> None:
    _set_threads()
    command_line()()


def _set_threads() -> None:
    """Settings of OpenMP, which reads them when PyTorch is imported; the user's own stay."""
    from factory_core.machine import available_cpus, cpu_quota

    # By default a waiting thread keeps its core from other processes, and from the thread it waits
    # for: `benchmarks.contention` has the cost.
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # OpenMP counts the cores of the machine, of which a container may have few.
    if cpu_quota() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cpus()))


def _line_for(error: BaseException) -> str | None:
    """The line for the user; None for an error that is a bug rather than the user's mistake."""
    if (line := _line_of_device(error)) is not None:
        return line
    if not isinstance(error, OSError | ValueError | ImportError):
        return None
    if isinstance(error, OSError) and error.errno:
        from factory_core.storage import DISK_FULL

        if error.errno in DISK_FULL and error.strerror == os.strerror(error.errno):
            where = f" while writing {error.filename}" if error.filename else ""
            return f"disk full{where}: free some space and rerun the command"
    return str(error)


def _line_of_device(error: BaseException) -> str | None:
    """What to say about a device that failed or is full; None for any other error."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
        return None
    from factory_core.device import DeviceFailed, is_out_of_memory, one_line

    if not is_out_of_memory(error):
        return str(DeviceFailed.of(error))
    return (
        f"out of memory ({one_line(error)}): set a smaller batch (--batch-size N, --set "
        "batch_size=N or --set generator.batch_size=N, whichever the command has), or --device cpu"
    )
