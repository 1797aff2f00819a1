"""`factory analyse`: a table or figure of the paper, on the user's own data."""

from __future__ import annotations

from rich.console import Console

from factory.analysis.names import find_analysis
from factory.analysis.running import analyse as run
from factory.analysis.study import Given
from factory.terminal.progress import quiet_libraries


def analyse(name: str, given: Given, console: Console, is_dry_run: bool = False) -> None:
    """Run one analysis, or print its cost; raises as `find_analysis` and `running.analyse`."""
    quiet_libraries()
    run(find_analysis(name), given, console, is_dry_run)
