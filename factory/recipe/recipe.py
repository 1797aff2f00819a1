"""The former single module of this package; import from `factory.recipe` instead."""

from factory.recipe import (
    Recipe,
    ResolvedRecipe,
    build_recipe,
    canonical,
    diff,
    load_recipe,
    preset_names,
    recipe_of_labeler,
    resolve,
)

__all__ = [
    "Recipe",
    "ResolvedRecipe",
    "build_recipe",
    "canonical",
    "diff",
    "load_recipe",
    "preset_names",
    "recipe_of_labeler",
    "resolve",
]
