"""The first commands of a new user: `factory --help`, and the embedded default job.

python -m benchmarks.main_job [--n 64] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from factory_core.storage import write_json


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of one `factory` command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "factory", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    commands = {
        "--help": ["--help"],
        f"generate --n {options.n}": ["generate", "--n", str(options.n)],
        f"generate --n {options.n} --executor local": [
            *("generate", "--n", str(options.n), "--executor", "local")
        ],
    }
    results: dict[str, list[float]] = {}
    for name, arguments in commands.items():
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder:
                out = ["--out", f"{folder}/out"] if arguments[0] == "generate" else []
                results.setdefault(name, []).append(seconds([*arguments, *out]))
    table = Table(title=f"seconds on {os.cpu_count()} cores")
    for column in ("factory ...", "median", "least", "most"):
        table.add_column(column)
    for name, values in results.items():
        figures = (statistics.median(values), min(values), max(values))
        table.add_row(name, *(f"{value:.2f}" for value in figures))
    Console().print(table)
    if options.json:
        write_json(options.json, {"seconds": results})


if __name__ == "__main__":
    main()
