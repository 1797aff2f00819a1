"""The `factory` command: every verb parses its options, then makes one function call.

Nothing heavy is imported until a command runs, so `factory --help` is immediate; and nothing at all
before signals are taken care of, because a command may be stopped while it starts.
"""

from __future__ import annotations

import os
import sys

from factory.cli.stopping import Stopping

__all__ = ["main"]

INTERRUPTED = 130  # 128 + SIGINT: also what typer makes of a KeyboardInterrupt


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 1, never a traceback.

    Ctrl-C ends it with exit code 130, `kill` with 143, and a line that says how to go on.
    FACTORY_TRACEBACK=1 in the environment shows where the line of a mistake came from.
    """
    stopping = Stopping()
    try:
        with stopping:
            _run()
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code != INTERRUPTED:
            raise
        # What is interrupted may raise something else: an import, say, an ImportError. But that
        # another job holds the folder is news: an interruption tells it (`factory.locking.lease`).
        is_stopped = stopping.code is not None and not isinstance(error, BlockingIOError)
        if is_stopped or isinstance(error, KeyboardInterrupt | SystemExit):
            print("\ninterrupted: run the same command again to go on", file=sys.stderr)
            sys.exit(stopping.code or INTERRUPTED)
        line = _line_for(error)
        if line is None or os.environ.get("FACTORY_TRACEBACK"):
            raise
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
        sys.exit(1)


def _run() -> None:
    # Importing them registers their commands, in this order.
    from factory.cli import make, sample, train, use  # noqa: F401
    from factory.cli.application import app

    app()


def _line_for(error: BaseException) -> str | None:
    """What to tell the user; None if it is not the user's mistake but a bug."""
    if not isinstance(error, OSError | ValueError | ImportError):
        return None
    if isinstance(error, OSError) and error.errno:
        from factory_core.storage import DISK_FULL

        if error.errno in DISK_FULL and error.strerror == os.strerror(error.errno):
            where = f" while writing {error.filename}" if error.filename else ""
            return f"disk full{where}: free some space and run the same command again"
    return str(error)
