"""The recipe: everything that decides the bytes of a dataset, in one checked object."""

from factory.recipe.recipe import (
    Recipe,
    ResolvedRecipe,
    build_recipe,
    canonical,
    diff,
    load_recipe,
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
    "recipe_of_labeler",
    "resolve",
]
