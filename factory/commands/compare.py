"""`factory compare`: is it worth it, on the user's own data?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from factory.terminal.progress import quiet_libraries
from factory.verdict.comparison import Wanted
from factory.verdict.comparison import compare as run
from factory.verdict.inputs import Given
from factory.verdict.racing import parse_budget
from factory.verdict.settings import compare_config


@dataclass(frozen=True)
class Options:
    """How to compare: see `factory.verdict.comparison.Wanted`.

    `budget` is a duration or `none`, `overrides` are settings as `KEY=VALUE`.
    """

    budget: str
    overrides: Sequence[str] = ()
    names: Sequence[str] = ()
    deliver: Path | None = None
    address: str | None = None
    processes: int | None = None


def compare(given: Given, options: Options, console: Console) -> None:
    """Compare and print the verdict.

    Raises as `factory.verdict.comparison.compare`, `parse_budget` and `compare_config`.
    """
    quiet_libraries()
    budget_sec = None if options.budget == "none" else parse_budget(options.budget)
    wanted = Wanted(budget_sec, options.deliver, options.names, options.address, options.processes)
    run(given, wanted, compare_config(options.overrides), console)
