"""The recipe: everything that decides the bytes of a dataset, in one checked object.

Sections belong to the packages that use them and are composed here. Precedence: defaults <
recipe file < explicit overrides (`--set a.b=c`). Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from factory.recipe.settings import apply_overrides, build_settings
from factory.recipe.weights import find_weights, local_path, weights_sha256
from factory_core.dataset import default_palette
from generators.config import GeneratorConfig
from generators.kind import Kind, kind_of
from labelers.config import LabelerConfig
from train_seg.config import SegmenterConfig

WEIGHT_KEYS = ("generator.weights", "labeler.weights")
LABELING_KEYS = ("weights", "vote", "uncertainty", "precision")  # the rest is for training it
LABELER_NAME = "labeler.json"
MAX_CLASSES = 255  # masks are uint8 and 255 means "ignore"
Channel = Annotated[int, Field(ge=0, le=255)]
Palette = tuple[tuple[Channel, Channel, Channel], ...]


class DatasetConfig(BaseModel):
    """How candidates are made, dropped and packed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drop_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="share of candidates dropped, the most uncertain"
    )
    shard_size: int = Field(
        default=96, ge=1, description="candidates in one unit of work (batches are cut inside it)"
    )
    samples_per_shard: int = Field(default=1000, ge=1, description="kept samples in a final shard")
    image_format: Literal["png", "jpg"] = Field(
        default="png", description="png is exact; jpg (quality 95, full chroma) is smaller"
    )
    uncertainty_maps: bool = Field(
        default=False, description="write the uncertainty of each pixel too, as KEY.unc.png"
    )


class Recipe(BaseModel):
    """A recipe as written: `weights` may be relative, `classes` may be left to the labeler."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="names the shards")
    classes: tuple[str, ...] | None = Field(
        default=None,
        description="class names in id order, or `name: [r, g, b]` each; by default the labeler's",
    )
    palette: Palette | None = Field(
        default=None, description="one RGB colour (0-255) a class; by default the labeler's"
    )
    generator: GeneratorConfig
    labeler: LabelerConfig = LabelerConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    dataset: DatasetConfig = DatasetConfig()

    @model_validator(mode="before")
    @classmethod
    def _names_with_colours(cls, content: Any) -> Any:
        """`classes: {name: [r, g, b], ...}` is the names and the palette."""
        if not isinstance(content, dict) or not isinstance(content.get("classes"), dict):
            return content
        if content.get("palette") is not None:
            raise ValueError("found colours in both classes and palette: give them once")
        classes = content["classes"]
        return content | {"classes": list(classes), "palette": list(classes.values())}

    @field_validator("classes")
    @classmethod
    def _distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and (len(set(names)) != len(names) or len(names) < 2):
            raise ValueError(f"expected two or more distinct names, found {list(names)}")
        return names


# --- loading ---------------------------------------------------------------------------------


def preset_names() -> list[str]:
    """Names of the recipes that come with the package."""
    files = importlib.resources.files("configs").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_recipe(source: str = "demo", overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a preset's name or of a YAML file, with overrides such as `dataset.a=1`.

    Values of overrides are read as YAML (`[1, 2]`, `0.5`, `null`); later ones win.

    Raises:
        FileNotFoundError: no such preset or file; names the presets that exist.
        ValueError: an unknown key (names the nearest known one) or a value out of range.
    """
    return build_recipe(_read_yaml(source), overrides, source)


def recipe_of_labeler(
    folder: str, generator: str | None = None, overrides: Sequence[str] = (), name: str = "dataset"
) -> Recipe:
    """A recipe from what a labeler's folder says of itself and of its generator.

    `generator` replaces the address that was noted down in training (folders move).
    """
    path = find_weights("--labeler", folder)
    about = _labeler_json(path)
    noted = dict(about.generator.config)
    if not noted:
        raise ValueError(f"{path} does not say how its generator is set up: give a --recipe")
    if generator is not None:
        noted["weights"] = generator
    labeler = {key: about.config[key] for key in LABELING_KEYS if key in about.config}
    content = {"name": name, "generator": noted, "labeler": labeler | {"weights": folder}}
    return build_recipe(content, overrides, f"of {folder}")


def build_recipe(content: dict[str, Any], overrides: Sequence[str], source: str) -> Recipe:
    """Apply the overrides, refuse unknown keys, validate; `source` names the recipe in errors.

    A generator's section that does not say its `kind` has that of its weights.
    """
    apply_overrides(content, overrides)
    if isinstance(section := content.get("generator"), dict):
        _note_kind(section, f"recipe {source}")
    return build_settings(Recipe, content, (), f"recipe {source}")


def _note_kind(section: dict[str, Any], source: str) -> None:
    """Write into `section` of which kind its weights are, if they are here.

    Raises ValueError if it says another.
    """
    weights = section.get("weights")
    found = kind_of(local_path("generator.weights", weights)) if isinstance(weights, str) else None
    if found is None:
        return
    said = section.setdefault("kind", found)
    if said != found and said in typing.get_args(Kind):
        raise ValueError(
            f"{source}: 'generator.kind' is {said!r}, but {weights} holds a {found} network: give "
            "another recipe, or weights of that kind"
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
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"recipe {source}: expected keys and values, found {content!r}")
    return content


# --- resolving -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe whose weights have been found and whose classes and palette are known.

    `generator` and `labeler` are the recipe's sections with `weights` an absolute path on this
    machine; `weights_sha256` says what those paths hold, by recipe key.
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
        """One RGB colour (0-255) a class."""
        assert self.recipe.palette is not None
        return self.recipe.palette

    @property
    def canonical(self) -> dict[str, Any]:
        """What decides the bytes: see `canonical`."""
        return canonical(self.recipe.model_dump(mode="json"), self.weights_sha256)

    @property
    def digest(self) -> str:
        """sha256 of the canonical recipe, in hexadecimal."""
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def canonical(recipe: Mapping[str, Any], weights_sha256: Mapping[str, str]) -> dict[str, Any]:
    """A dumped recipe with each `weights` replaced by the sha256 of what it holds.

    So that where things are installed does not matter. What has no part in the bytes of a dataset
    is left out: the `segmenter`, which reads it, and how the labeler was trained.
    """
    result = {k: dict(v) if isinstance(v, Mapping) else v for k, v in recipe.items()}
    result.pop("segmenter", None)
    result["labeler"] = {k: v for k, v in result["labeler"].items() if k in LABELING_KEYS}
    for key, digest in weights_sha256.items():
        section, name = key.split(".")
        result[section][name] = f"sha256:{digest}"
    return result


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """Find and hash the weights; take classes and palette from the labeler where not given.

    Raises:
        FileNotFoundError: weights that are not there.
        ValueError: no labeler, or classes that contradict the labeler's.
    """
    if recipe.labeler.weights is None:
        raise ValueError(
            "labeler.weights is not set: train a labeler with `factory train-labeler` and give"
            " its folder (--labeler DIR or --set labeler.weights=DIR)"
        )
    generator_path = find_weights("generator.weights", recipe.generator.weights)
    labeler_path = find_weights("labeler.weights", recipe.labeler.weights)
    about = _labeler_json(labeler_path)
    classes = about.classes
    if recipe.classes is not None and list(recipe.classes) != classes:
        raise ValueError(
            f"the recipe's classes are {list(recipe.classes)} but {labeler_path} was trained on"
            f" {classes}: leave `classes` out of the recipe or train a labeler for them"
        )
    palette, where = recipe.palette, "the recipe's"
    if palette is None:
        palette = about.palette or _default_colours(len(classes))
        where = f"{labeler_path / LABELER_NAME}:"
    if len(palette) != len(classes):
        raise ValueError(
            f"{where} palette has {len(palette)} colours for {len(classes)} classes: give one each"
        )
    full = recipe.model_copy(update={"classes": tuple(classes), "palette": palette})
    paths = dict(zip(WEIGHT_KEYS, (generator_path, labeler_path), strict=True))
    return ResolvedRecipe(
        full,
        recipe.generator.model_copy(update={"weights": str(generator_path)}),
        recipe.labeler.model_copy(update={"weights": str(labeler_path)}),
        {key: weights_sha256(path) for key, path in paths.items()},
    )


def _default_colours(n: int) -> Palette:
    return tuple((r, g, b) for r, g, b in default_palette(n))


class _NotedGenerator(BaseModel):
    config: dict[str, Any] = {}


class _LabelerNotes(BaseModel):
    """What a recipe takes from labeler.json (`labelers.labeler.LabelerInfo` needs torch)."""

    classes: list[str] = Field(min_length=1, max_length=MAX_CLASSES)
    palette: Palette | None = None
    generator: _NotedGenerator = _NotedGenerator()
    config: dict[str, Any] = {}


def _labeler_json(folder: Path) -> _LabelerNotes:
    """What labeler.json says, read without torch."""
    file = folder / LABELER_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {LABELER_NAME}: expected a folder written by"
            " `factory train-labeler`"
        )
    try:
        return _LabelerNotes.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise ValueError(
            f"{file} is damaged ('{where}': {first['msg']}): copy it again, or train the labeler"
            " again"
        ) from None


# --- comparing -------------------------------------------------------------------------------


def diff(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields that both canonical recipes have and differ in, in order.

    What only one has is not a user's choice: it came with another version of the program.
    """
    fields = []
    for key in (key for key in a if key in b):
        left, right = a[key], b[key]
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            fields += diff(left, right, f"{prefix}{key}.")
        elif left != right:
            fields.append(f"{prefix}{key}")
    return fields
