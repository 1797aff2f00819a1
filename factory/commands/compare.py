"""`factory compare`: is it worth it, on the user's own data?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from factory.recipe import build_settings
from factory.terminal.progress import quiet_libraries
from factory.verdict.comparison import Wanted
from factory.verdict.comparison import compare as run
from factory.verdict.inputs import Given
from factory.verdict.racing import parse_budget
from factory.verdict.settings import CompareConfig


def compare(
    given: Given,
    budget: str,
    overrides: Sequence[str],
    names: Sequence[str],
    deliver: Path | None,
    console: Console,
) -> None:
    """Compare; `budget` is a duration or `none`, `overrides` are settings as `KEY=VALUE`.

    Raises as `factory.verdict.comparison.compare`, `parse_budget` and `build_settings`.
    """
    quiet_libraries()
    seconds = None if budget == "none" else parse_budget(budget)
    # A section that is changed keeps our other defaults, which are not those of a recipe.
    content = CompareConfig().model_dump(mode="json")
    config = build_settings(CompareConfig, content, overrides, "settings of the comparison")
    run(given, Wanted(seconds, deliver, names), config, console)
