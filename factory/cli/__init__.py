"""The `factory` command: every verb parses its options, then makes one function call.

Nothing heavy is imported until a command runs, so `factory --help` is immediate.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

from rich.console import Console

# Importing them registers their commands, in this order.
from factory.cli import make, sampling, train, use  # noqa: F401
from factory.cli.application import app

__all__ = ["app", "main"]

INTERRUPTED, TERMINATED = 130, 143  # 128 + signal number


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 1, never a traceback.

    FACTORY_TRACEBACK=1 in the environment shows where the line came from.
    """
    stopped_with = INTERRUPTED

    def terminate(*_: Any) -> None:
        nonlocal stopped_with
        stopped_with = TERMINATED
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        app()
    except SystemExit as stop:
        if stop.code != INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise
        Console(stderr=True).print("\ninterrupted: run the same command again to go on")
        sys.exit(stopped_with)
    except OSError as error:
        if error.errno == errno.ENOSPC and error.strerror == os.strerror(errno.ENOSPC):
            where = f" while writing {error.filename}" if error.filename else ""
            _fail(f"disk full{where}: free some space and run the same command again")
        _fail(str(error))
    except (ValueError, ImportError) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    if os.environ.get("FACTORY_TRACEBACK"):
        raise  # what is being handled
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True).print(f"error: {line}", markup=False, highlight=False)
    sys.exit(1)
