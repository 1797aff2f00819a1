"""The recipe that a command's options select: a preset, a file, a labeler's or a generator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factory.recipe.loading import build_recipe, load_recipe, recipe_of_labeler
from factory.recipe.schema import Recipe
from factory.recipe.settings import as_overrides


def choose_recipe(
    source: str | None, generator: str | None, labeler: str | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe `source`; without it, the recipe of `labeler`; without both, the demo.

    Raises as `load_recipe` and `recipe_of_labeler`.
    """
    if labeler is not None and source is None:
        return recipe_of_labeler(labeler, generator, overrides)
    explicit = _overrides({"generator.weights": generator, "labeler.weights": labeler})
    return load_recipe(source or "demo", [*explicit, *overrides])


def generator_recipe(
    source: str | None,
    generator: str | None,
    overrides: Sequence[str],
    recorded: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe for commands that need only a generator; its labeler section has the defaults.

    It is the recipe `source`; without it, the settings `recorded` with a generator's samples, or
    the defaults. Raises as `load_recipe`, and ValueError if none of them names a generator.
    """
    explicit = _overrides({"generator.weights": generator})
    if source is not None:
        return load_recipe(source, [*explicit, *overrides])
    if generator is None and not recorded:
        raise ValueError("found no generator: give --generator DIR, or a --recipe that names one")
    content: dict[str, Any] = {"name": "labeler", "generator": dict(recorded or {})}
    return build_recipe(content, [*explicit, *overrides], "of the command line")


def _overrides(given: Mapping[str, str | None]) -> list[str]:
    """`KEY=VALUE` for each value that is given."""
    return as_overrides({key: value for key, value in given.items() if value is not None})
