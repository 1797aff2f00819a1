"""`factory choose-features`: blocks and timesteps for the user's data."""

from __future__ import annotations

from rich.console import Console

from factory.analysis.choosing import RECIPE_NAME
from factory.analysis.choosing import choose_features as run
from factory.analysis.study import Given
from factory.terminal.progress import quiet_libraries


def choose_features(given: Given, console: Console) -> None:
    """Choose, print the gain over the default, and write a recipe; raises as `choosing`'s."""
    quiet_libraries()
    choice = run(given, console)
    console.print(choice.sentence)
    recipe = given.out / RECIPE_NAME
    console.print(
        f"{recipe}: factory train-labeler --recipe {recipe} --labeled {given.labeled} --out labeler"
    )
