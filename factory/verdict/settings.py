"""Settings of a comparison; each default is declared here and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from factory.recipe import build_settings
from factory.recipe.yaml_text import parse_yaml
from labelers.config import FastTraining, LabelerConfig, NetworkTraining


class CompareConfig(BaseModel):
    """How contenders are trained and scored.

    Steps are those for which one training takes about a minute on two cores, at 64x64 pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(default=4, ge=2, description="parts of the annotated images; one is scored")
    seeds: int = Field(default=2, ge=1, description="partitions into folds, each with its own seed")
    group_by: str | None = Field(
        default=None,
        description="regular expression for file names: images with the same match, such as those "
        "of one patient, are trained on or scored together",
    )
    image_size: tuple[int, int] | None = Field(
        default=None,
        description="(height, width) without a generator; none: that of the annotated images",
    )
    upright: bool = Field(
        default=False, description="images have a top: mirror them, but never turn them"
    )
    photographs: int = Field(
        default=512, ge=1, description="unlabelled images used, at most, evenly spaced by name"
    )
    synthetic: int = Field(default=200, ge=2, description="images sampled from the generator")
    drop_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="of labelled photographs and samples: most uncertain"
    )
    rounds: int = Field(default=2, ge=1, description="rounds of labelling and learning, at most")
    label_share: float = Field(
        default=0.25, gt=0, lt=1, description="of annotated images in what rounds learn from"
    )
    align_shares: bool = Field(
        default=True,
        description="rounds scale their labels of the photographs to the class shares of the "
        "masks; not for images that were chosen for rare classes",
    )
    soft_labels: bool = Field(
        default=True, description="rounds learn from class probabilities, weighted by certainty"
    )
    labeler: LabelerConfig = Field(
        default=LabelerConfig(
            training=FastTraining(), network=NetworkTraining(members=2, steps=150)
        ),
        description="its training; the kind is chosen by each contender",
    )
    batch_size: int = Field(default=8, ge=2, description="images per step of a segmenter")
    label_steps: int = Field(default=200, ge=1, description="steps on annotated images alone")
    pretrain_steps: int = Field(
        default=300,
        ge=1,
        description="steps on labelled photographs or synthetic images, of rounds too",
    )
    finish_steps: int = Field(
        default=100, ge=1, description="steps on the annotated images after those"
    )
    lr: float = Field(default=1e-3, gt=0, description="learning rate, also from a generator")
    finish_lr: float = Field(default=3e-4, gt=0, description="learning rate of the last steps")
    curve: bool = Field(default=True, description="train on a quarter and half of the labels too")

    @field_validator("group_by")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value


def differing(found: BaseModel, default: BaseModel, without: Collection[str] = ()) -> list[str]:
    """Settings of `found` that are not those of `default`, as `KEY=VALUE` for `--set`.

    Sections are compared key by key, or given whole if they are of another kind. The keys `without`
    are left out.
    """

    def walk(now: dict[str, Any], before: dict[str, Any], place: str) -> Iterator[str]:
        for key, value in now.items():
            was = before[key]
            is_section = isinstance(value, dict) and isinstance(was, dict)
            if is_section and value.keys() == was.keys() and value.get("kind") == was.get("kind"):
                yield from walk(value, was, f"{place}{key}.")
            elif value != was:
                text = json.dumps(value, separators=(",", ":"))
                yield f"{place}{key}={value if _is_word(value) else text}"

    excluded = set(without)
    return list(
        walk(found.model_dump(mode="json", exclude=excluded), default.model_dump(mode="json"), "")
    )


def _is_word(value: Any) -> bool:
    """Whether YAML reads `value`, a text, as it is written."""
    return isinstance(value, str) and value.isalnum() and parse_yaml(value) == value


def changed_settings(config: CompareConfig) -> list[str]:
    """Those that differ from the defaults, for `--set`; without `rounds`, which is an option."""
    return differing(config, CompareConfig(), without={"rounds"})


def compare_config(overrides: Sequence[str]) -> CompareConfig:
    """The defaults with `overrides` (`KEY=VALUE`); raises ValueError as `build_settings`."""
    # A section that is changed keeps our other defaults, which are not those of a recipe.
    content = CompareConfig().model_dump(mode="json")
    return build_settings(CompareConfig, content, overrides, "settings of the comparison")
