"""`factory rounds`: label, learn, label again."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from factory.terminal.progress import quiet_libraries
from factory.verdict.inputs import Given
from factory.verdict.round_job import Rules, play_rounds
from factory.verdict.settings import compare_config


def rounds(
    given: Given, most: int, rules: Rules, overrides: Sequence[str], console: Console
) -> None:
    """Play at most `most` rounds; `overrides` are settings as `KEY=VALUE`.

    Raises as `play_rounds` and `compare_config`.
    """
    quiet_libraries()
    play_rounds(given, compare_config([f"rounds={most}", *overrides]), console, rules)
