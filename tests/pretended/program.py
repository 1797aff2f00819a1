"""Runs command lines of `factory` on the pretended device, in this process.

    python -m tests.pretended.program < lines.json > results.json

A line is a list of arguments; its result is "" or the error, in one line. Later lines run even if
earlier ones fail.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback

from tests.pretended.project import pretending


def run(line: list[str]) -> str:
    """The error of a command line, "" if there was none."""
    from typer.main import get_command

    from factory.cli import command_line

    try:
        get_command(command_line()).main(line, standalone_mode=False)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]
    return ""


def main() -> None:
    """Run the lines of stdin; what the commands print goes to stderr."""
    lines = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr), pretending():
        results = [run(line) for line in lines]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
