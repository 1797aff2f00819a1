"""The keys of a recipe, their types, ranges and defaults.

Each section is declared by the package that uses it; this module combines them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from factory.recipe.comparing import LATER_KEYS
from factory.recipe.settings import as_overrides
from factory_core.pictures import Pictures
from generators.config import GeneratorConfig
from labelers.config import LabelerConfig
from train_seg.config import SegmenterConfig

Channel = Annotated[int, Field(ge=0, le=255)]
Palette = tuple[tuple[Channel, Channel, Channel], ...]
SelectionPolicy = Literal["uncertain", "per_class", "none"]


class DatasetConfig(BaseModel):
    """How candidates are divided among workers, dropped and packed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drop_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="share of the candidates to drop, most uncertain first"
    )
    shard_size: int = Field(
        default=96, ge=1, description="candidates in one unit of work (batches never cross it)"
    )
    samples_per_shard: int = Field(default=1000, ge=1, description="kept samples in a final shard")
    image_format: Literal["png", "jpg"] = Field(
        default="png", description="png is exact; jpg (quality 95, full chroma) is smaller"
    )
    uncertainty_maps: bool = Field(
        default=False, description="also write the uncertainty of each pixel, as KEY.unc.png"
    )
    probabilities: bool = Field(
        default=False,
        description="also write the class probabilities of each pixel, as KEY.prob.png",
    )


class SelectionConfig(BaseModel):
    """How the dropped candidates are chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: SelectionPolicy = Field(
        default="uncertain",
        description="uncertain: drop the most uncertain of all; per_class: of each group of "
        "candidates that are rich in the same class; none: drop none, whatever the drop_fraction",
    )


class Recipe(BaseModel):
    """A recipe as written: `weights` may be relative, `classes` may come from the labeler.

    >>> recipe = Recipe.load("demo", {"dataset.drop_fraction": 0.2})
    >>> recipe.name, recipe.dataset.drop_fraction
    ('demo', 0.2)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="names the shards")
    classes: tuple[str, ...] | None = Field(
        default=None,
        description="names in id order, or a map `name: [r, g, b]`; by default the labeler's",
    )
    palette: Palette | None = Field(
        default=None, description="one RGB colour (0-255) per class; by default the labeler's"
    )
    generator: GeneratorConfig
    labeler: LabelerConfig = LabelerConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    dataset: DatasetConfig = DatasetConfig()
    selection: SelectionConfig = SelectionConfig()
    pictures: Pictures = Pictures()

    @classmethod
    def load(cls, source: str | Path = "demo", settings: Mapping[str, Any] | None = None) -> Recipe:
        """A preset or YAML file, with `settings` by dotted key; raises as `load_recipe`."""
        from factory.recipe.loading import load_recipe

        return load_recipe(str(source), as_overrides(settings or {}))

    def to_json(self) -> dict[str, Any]:
        """What dataset.json and digests hold: `LATER_KEYS` only if they differ from the default.

        So the recipes of earlier versions keep their digests, and their jobs can be resumed.
        """
        content = self.model_dump(mode="json")
        for key in LATER_KEYS:
            section, *path, name = key.split(".")
            values: dict[str, Any] = content[section]
            # Settings of another kind of generator are absent; those of ours default to None.
            field = type(self).model_fields[section]
            defaults = {} if field.is_required() else field.default.model_dump(mode="json")
            for part in path:
                values, defaults = values[part], defaults[part]
            if name in values and values[name] == defaults.get(name):
                del values[name]
        return {key: value for key, value in content.items() if value != {}}

    @model_validator(mode="before")
    @classmethod
    def _names_with_colours(cls, content: Any) -> Any:
        """`classes: {name: [r, g, b], ...}` gives both the names and the palette."""
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
