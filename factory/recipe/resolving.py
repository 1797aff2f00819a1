"""Recipes with weights found and hashed, and classes and palette filled in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from factory.recipe.comparing import canonical
from factory.recipe.labeler_notes import LABELER_NAME, read_labeler_notes
from factory.recipe.networks import GENERATOR_KEY, find_networks
from factory.recipe.schema import Palette, Recipe
from factory.recipe.weights import find_weights, weights_sha256
from factory_core.dataset import default_palette
from factory_core.pictures import Pictures, remembered
from generators.config import GeneratorConfig
from labelers.config import LabelerConfig

LABELER_KEY = "labeler.weights"


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe whose weights have been found and whose classes and palette are known.

    `generator` and `labeler` are the recipe's sections with absolute paths on this machine as
    `weights`; `weights_sha256` gives the sha256 of their contents, by recipe key.
    """

    recipe: Recipe
    generator: GeneratorConfig
    labeler: LabelerConfig
    weights_sha256: dict[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order."""
        assert self.recipe.classes is not None
        return self.recipe.classes

    @property
    def palette(self) -> Palette:
        """One RGB colour (0-255) per class."""
        assert self.recipe.palette is not None
        return self.recipe.palette

    @property
    def pictures(self) -> Pictures:
        """How photographs are read; the labeler or its generator may have set it."""
        return self.recipe.pictures

    def reading(self, paths: Sequence[Path]) -> ResolvedRecipe:
        """This recipe with the range of values of the photographs, if their type needs one."""
        from factory_core.images import measured

        return self._with({"pictures": measured(self.pictures, paths)})

    def _with(self, found: dict[str, Any]) -> ResolvedRecipe:
        return replace(self, recipe=self.recipe.model_copy(update=found))

    @property
    def canonical(self) -> dict[str, Any]:
        """What decides the bytes of the dataset: see `comparing.canonical`."""
        return canonical(self.recipe.to_json(), self.weights_sha256)

    @property
    def digest(self) -> str:
        """sha256 of the canonical recipe, in hexadecimal."""
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """Find and hash the weights; take kind, classes and palette from the labeler if not given.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: no labeler, or classes or a kind that differ from the labeler's.
    """
    if recipe.labeler.weights is None:
        raise ValueError(
            "labeler.weights is not set: train a labeler with `factory train-labeler` and give"
            " its folder (--labeler DIR or --set labeler.weights=DIR)"
        )
    generator, paths = find_networks(GENERATOR_KEY, recipe.generator)
    labeler_path = find_weights(LABELER_KEY, recipe.labeler.weights)
    notes = read_labeler_notes(labeler_path)
    classes = notes.classes
    if recipe.classes is not None and list(recipe.classes) != classes:
        raise ValueError(
            f"the recipe's classes are {list(recipe.classes)} but {labeler_path} was trained on"
            f" {classes}: leave `classes` out of the recipe or train a labeler for them"
        )
    labeler = _of_kind(recipe.labeler, str(notes.config.get("kind", "ensemble")), labeler_path)
    palette, where = recipe.palette, "the recipe's"
    if palette is None:
        palette = notes.palette or _default_colours(len(classes))
        where = f"{labeler_path / LABELER_NAME}:"
    if len(palette) != len(classes):
        raise ValueError(
            f"{where} palette has {len(palette)} colours for {len(classes)} classes: give one per"
            " class"
        )
    if recipe.dataset.probabilities and len(classes) < 2:
        raise ValueError(
            f"dataset.probabilities needs two or more classes, {labeler_path} has {len(classes)}:"
            " leave that setting out"
        )
    pictures = recipe.pictures.over(remembered(labeler_path) or remembered(paths[GENERATOR_KEY]))
    found = {"classes": tuple(classes), "palette": palette, "labeler": labeler}
    found |= {"pictures": pictures}
    full = recipe.model_copy(update=found)
    paths = {**paths, LABELER_KEY: labeler_path}
    return ResolvedRecipe(
        full,
        generator,
        labeler.model_copy(update={"weights": str(labeler_path)}),
        {key: weights_sha256(path) for key, path in paths.items()},
    )


def _of_kind(config: LabelerConfig, kind: str, path: Path) -> LabelerConfig:
    """The settings with the kind of the labeler in `path`; ValueError if they name another."""
    if "kind" in config.model_fields_set and config.kind != kind:
        raise ValueError(
            f"labeler.kind is {config.kind!r}, but {path} holds a labeler of kind {kind!r}: leave "
            f"labeler.kind out, or train one with `factory train-labeler --kind {config.kind}`"
        )
    return config.model_copy(update={"kind": kind})


def _default_colours(n: int) -> Palette:
    return tuple((r, g, b) for r, g, b in default_palette(n))
