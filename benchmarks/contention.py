"""How much other work on the machine slows the factory down, by how long idle threads spin.

    python -m benchmarks.contention [--busy 2] [--n 16] [--repeats 3] [--json FILE]

Samples the embedded generator on all cores, alone and beside `--busy` processes that keep a core
busy each. PyTorch's threads wait for one another at the end of every operator. GNU OpenMP lets them
spin for long first, which is fastest on an idle machine, but takes the core from whoever could go
on. The `factory` command limits it to `factory.cli.SPINS` turns; GOMP_SPINCOUNT in the environment
overrides that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from factory.cli import SPINS
from factory_core.storage import write_json

SAMPLE = """
import sys, time
from factory import Generator
generator = Generator.load("package:factory.demo/generator", device="cpu")
generator.sample(range(2))
began = time.perf_counter()
generator.sample(range(int(sys.argv[1])))
print(time.perf_counter() - began)
"""
SPINNING = {"default of OpenMP": None, f"{SPINS} turns, ours": SPINS, "none": "0"}


@dataclass(frozen=True)
class Row:
    """Median seconds to sample, alone and beside other work."""

    spinning: str
    alone_sec: float
    beside_sec: float


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep that many cores busy."""
    with ExitStack() as stack:
        for _ in range(processes):
            child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(child.wait)
            stack.callback(child.kill)
        yield


def seconds(n: int, spins: str | None) -> float:
    """Time to sample `n` images in a fresh process: OpenMP reads its settings once."""
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    environment |= {} if spins is None else {"GOMP_SPINCOUNT": spins}
    command = [sys.executable, "-c", SAMPLE, str(n)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout)


def run(n: int, others: int, repeats: int) -> list[Row]:
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):
        for processes in (0, others):
            with busy(processes):
                for name, spins in SPINNING.items():
                    times.setdefault((name, processes), []).append(seconds(n, spins))
    medians = {key: statistics.median(found) for key, found in times.items()}
    return [Row(name, medians[name, 0], medians[name, others]) for name in SPINNING]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--busy", type=int, default=2, help="other processes")
    parser.add_argument("--n", type=int, default=16, help="samples")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = run(given.n, given.busy, given.repeats)
    table = Table(title=f"{given.n} samples of the demo, median of {given.repeats}")
    for column in ("idle threads spin", "alone, s", f"beside {given.busy} processes, s"):
        table.add_column(column, justify="left" if column.startswith("idle") else "right")
    for row in rows:
        table.add_row(row.spinning, f"{row.alone_sec:.2f}", f"{row.beside_sec:.2f}")
    Console().print(table)
    if given.json:
        settings = {"n": given.n, "busy": given.busy, "repeats": given.repeats}
        write_json(given.json, {"settings": settings, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
