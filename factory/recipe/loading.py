"""Recipes from presets, YAML files and labelers' folders.

Precedence: defaults < recipe file < explicit overrides (`--set a.b=c`).
"""

from __future__ import annotations

import importlib.resources
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from factory.recipe.comparing import LABELING_KEYS
from factory.recipe.labeler_notes import read_labeler_notes
from factory.recipe.networks import name_networks
from factory.recipe.schema import Recipe
from factory.recipe.settings import apply_overrides, build_settings
from factory.recipe.weights import find_weights, local_path
from factory.recipe.yaml_text import RepeatedKeyError, parse_yaml
from generators.kind import Kind, kind_of


def preset_names() -> list[str]:
    """Names of the recipes in the package."""
    files = importlib.resources.files("configs").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_recipe(
    source: str = "demo",
    overrides: Sequence[str] = (),
    generator: str | None = None,
    encoders: Sequence[str] = (),
) -> Recipe:
    """The recipe in a preset or a YAML file, with overrides such as `dataset.shard_size=1`.

    The values of overrides are read as YAML (`[1, 2]`, `0.5`, `null`); later ones win. `generator`
    and `encoders` replace addresses of weights, see `name_networks`.

    Raises:
        FileNotFoundError: no such preset or file; lists the presets.
        ValueError: an unknown key (suggests the nearest known one) or a value out of range.
    """
    content = _read_yaml(source)
    if generator is not None or encoders:
        section = content.get("generator") or {}
        if isinstance(section, dict):
            content["generator"] = name_networks(section, generator, encoders)
    return build_recipe(content, overrides, source)


def recipe_of_labeler(
    folder: str,
    generator: str | None = None,
    overrides: Sequence[str] = (),
    name: str = "dataset",
    encoders: Sequence[str] = (),
) -> Recipe:
    """The recipe that labeler.json in `folder` implies: its own settings and its generator's.

    `generator` and `encoders` replace the addresses recorded in training, for folders that moved; a
    generator is paired with the encoders of a labeler that was trained with these alone.
    """
    path = find_weights("--labeler", folder)
    notes = read_labeler_notes(path)
    if not notes.generator.config:
        raise ValueError(f"{path} lacks the settings of its generator: give a --recipe")
    section = name_networks(notes.generator.config, generator, encoders)
    labeler = {key: notes.config[key] for key in LABELING_KEYS if key in notes.config}
    content = {"name": name, "generator": section, "labeler": labeler | {"weights": folder}}
    return build_recipe(content, overrides, f"of {folder}")


def build_recipe(content: dict[str, Any], overrides: Sequence[str], source: str) -> Recipe:
    """Apply the overrides, refuse unknown keys, validate; `source` names the recipe in errors.

    A generator section without `kind` gets the kind of its weights.
    """
    apply_overrides(content, overrides)
    if isinstance(section := content.get("generator"), dict):
        _set_kind(section, f"recipe {source}")
    return build_settings(Recipe, content, (), f"recipe {source}")


def _set_kind(section: dict[str, Any], source: str) -> None:
    """Set `section["kind"]` to the kind of its weights, if they are on this machine.

    Raises ValueError if the section names a different kind.
    """
    weights = section.get("weights")
    found = kind_of(local_path("generator.weights", weights)) if isinstance(weights, str) else None
    if found is None:
        return
    kind = section.setdefault("kind", found)
    if kind == "encoder":
        return  # its reader says what else a file holds
    if kind != found and kind in typing.get_args(Kind):
        raise ValueError(
            f"{source}: 'generator.kind' is {kind!r}, but {weights} holds a network of kind "
            f"{found!r}: give a different recipe, or weights of that kind"
        )


def _read_yaml(source: str) -> dict[str, Any]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise FileNotFoundError(f"recipe {source}: no such file")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"recipe {source} is not a text file: expected YAML") from None
    elif (preset := source.replace("-", "_")) in preset_names():
        text = (importlib.resources.files("configs") / f"{preset}.yaml").read_text("utf-8")
    else:
        presets = ", ".join(preset_names())
        raise FileNotFoundError(
            f"unknown recipe '{source}': expected a .yaml file or one of {presets}"
        )
    try:
        content = parse_yaml(text)
    except RepeatedKeyError as error:
        raise ValueError(f"recipe {source}: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"recipe {source}: expected keys and values, found {content!r}")
    return content
