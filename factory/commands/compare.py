"""`factory compare`: is it worth it, on the user's own data?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from factory.terminal.progress import quiet_libraries
from factory.verdict.comparison import Wanted
from factory.verdict.comparison import compare as run
from factory.verdict.inputs import Given
from factory.verdict.racing import parse_budget
from factory.verdict.settings import compare_config


def compare(
    given: Given,
    budget: str,
    overrides: Sequence[str],
    names: Sequence[str],
    deliver: Path | None,
    console: Console,
) -> None:
    """Compare; `budget` is a duration or `none`, `overrides` are settings as `KEY=VALUE`.

    Raises as `factory.verdict.comparison.compare`, `parse_budget` and `compare_config`.
    """
    quiet_libraries()
    seconds = None if budget == "none" else parse_budget(budget)
    run(given, Wanted(seconds, deliver, names), compare_config(overrides), console)
