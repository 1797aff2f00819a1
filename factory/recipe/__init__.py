"""The recipe: everything that determines the bytes of a dataset, in one validated object.

Nothing in this package imports torch.
"""

from factory.recipe.choosing import choose_recipe, generator_recipe
from factory.recipe.comparing import canonical, diff
from factory.recipe.loading import build_recipe, load_recipe, preset_names, recipe_of_labeler
from factory.recipe.resolving import ResolvedRecipe, resolve
from factory.recipe.schema import Recipe
from factory.recipe.settings import build_settings
from factory.recipe.weights import find_weights

__all__ = [
    "Recipe",
    "ResolvedRecipe",
    "build_recipe",
    "build_settings",
    "canonical",
    "choose_recipe",
    "diff",
    "find_weights",
    "generator_recipe",
    "load_recipe",
    "preset_names",
    "recipe_of_labeler",
    "resolve",
]
