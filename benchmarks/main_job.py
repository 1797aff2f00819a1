"""The first commands of a new user: `factory --help`, and the embedded default job.

    python -m benchmarks.main_job [--n 64] [--repeats 3] [--json FILE]

The job is compared with `benchmarks.plain_job`, the same in plain code. Each command is a process
of its own, timed from its start to its end; they run in turn.
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

PLAIN = "plain code, autocast"


def commands(n: int, folder: Path) -> dict[str, list[str]]:
    """Arguments of Python by name; whatever a command writes is in `folder`."""
    generate = ["-m", "factory", "generate", "--n", str(n), "--out", str(folder / "out")]
    plain = ["-m", "benchmarks.plain_job", "--n", str(n), "--out", str(folder / "out.tar")]
    return {
        "factory --help": ["-m", "factory", "--help"],
        f"factory generate --n {n}": generate,
        f"factory generate --n {n} --executor local": [*generate, "--executor", "local"],
        PLAIN: plain,
    }


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        for name in commands(options.n, Path()):
            with tempfile.TemporaryDirectory() as folder:
                arguments = commands(options.n, Path(folder))[name]
                results.setdefault(name, []).append(seconds(arguments))
    plain = statistics.median(results[PLAIN])
    table = Table(title=f"seconds on {os.cpu_count()} cores")
    for column in ("", "median", "least", "most", "times plain"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in results.items():
        median = statistics.median(values)
        times = "" if name.endswith("--help") else f"{plain / median:.2f}"
        figures = (f"{value:.2f}" for value in (median, min(values), max(values)))
        table.add_row(name, *figures, times)
    Console().print(table)
    if options.json:
        write_json(options.json, {"n": options.n, "seconds": results})


if __name__ == "__main__":
    main()
