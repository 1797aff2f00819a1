"""The recipe that a command's options select: a preset, a file, a labeler's or a generator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factory.recipe.loading import build_recipe, load_recipe, recipe_of_labeler
from factory.recipe.networks import name_networks
from factory.recipe.schema import Recipe
from factory.recipe.settings import as_overrides


def choose_recipe(
    source: str | None,
    generator: str | None,
    labeler: str | None,
    overrides: Sequence[str],
    encoders: Sequence[str] = (),
) -> Recipe:
    """The recipe `source`; without it, the recipe of `labeler`; without both, the demo.

    Raises as `load_recipe` and `recipe_of_labeler`.
    """
    if labeler is not None and source is None:
        return recipe_of_labeler(labeler, generator, overrides, encoders=encoders)
    explicit = [] if labeler is None else as_overrides({"labeler.weights": labeler})
    return load_recipe(source or "demo", [*explicit, *overrides], generator, encoders)


def generator_recipe(
    source: str | None,
    generator: str | None,
    overrides: Sequence[str],
    recorded: Mapping[str, Any] | None = None,
    encoders: Sequence[str] = (),
) -> Recipe:
    """A recipe for commands that need only a generator; its labeler section has the defaults.

    It is the recipe `source`; without it, the settings `recorded` with a generator's samples, or
    the defaults. Encoders take the place of the recipe's generator unless one is given. Raises as
    `load_recipe`, and ValueError if none of them names a generator.
    """
    if source is not None:
        if not encoders or generator is not None:
            return load_recipe(source, overrides, generator, encoders)
        alone = as_overrides({"generator": name_networks({}, None, encoders)})
        return load_recipe(source, [*alone, *overrides])
    if generator is None and not recorded and not encoders:
        raise ValueError(
            "found no generator: give --generator DIR, or a --recipe that names one; or --encoder "
            "FILE for photographs"
        )
    section = name_networks(recorded or {}, generator, encoders)
    content: dict[str, Any] = {"name": "labeler", "generator": section}
    return build_recipe(content, overrides, "of the command line")
