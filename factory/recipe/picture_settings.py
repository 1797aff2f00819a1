"""The settings `pictures.*` of commands that have no recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from factory.recipe.settings import build_settings
from factory_core.pictures import Pictures

SECTION = "pictures."


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pictures: Pictures = Pictures()


def picture_settings(overrides: Sequence[str] | None) -> tuple[Pictures, list[str]]:
    """The settings among `overrides` (`pictures.page=0`), and the other overrides.

    Raises ValueError as `build_settings`.
    """
    ours = [text for text in overrides or [] if text.lstrip().startswith(SECTION)]
    others = [text for text in overrides or [] if text not in ours]
    return build_settings(_Settings, {}, ours, "settings of pictures").pictures, others


def as_overrides(pictures: Pictures) -> tuple[str, ...]:
    """The settings that were given, as `picture_settings` reads them."""
    content = pictures.model_dump(mode="json")
    given = sorted(pictures.model_fields_set)
    return tuple(f"{SECTION}{k}={json.dumps(content[k], separators=(',', ':'))}" for k in given)


def only_pictures(overrides: Sequence[str] | None) -> Pictures:
    """As `picture_settings`, of a command without other settings."""
    pictures, others = picture_settings(overrides)
    if others:
        raise ValueError(f"--set {others[0]}: expected pictures.range, .percentiles or .page")
    return pictures
