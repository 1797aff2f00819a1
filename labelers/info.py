"""The description of a labeler: `labeler.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from factory_core.models import parse_model
from generators.base import FeatureMapSpec
from labelers.config import LabelerConfig

FORMAT_VERSION = 3  # 1 had the settings of training flat in `config`, 2 knew no networks
READABLE_VERSIONS = (2, 3)
WEIGHTS_FILE = "labeler.safetensors"
INFO_FILE = "labeler.json"
MAKE_AGAIN = "copy both files again, or retrain the labeler"


class GeneratorInfo(BaseModel):
    """The generator a labeler belongs to: its digest, and the settings that load it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    config: dict[str, Any] = {}


class LabelerInfo(BaseModel):
    """Everything about a labeler except its weights: the content of `labeler.json`.

    `features` are the maps that are read, `unet` the config of the networks (see
    `SegmentationUNet`), `regions` the class id of each region of the generator; a labeler without
    one of these has none. `image_size` is (height, width) of the masks it was trained on, `scores`
    what was measured (names to numbers), `data_digest` the sha256 of the annotations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    classes: list[str]
    palette: list[list[int]] | None = None
    features: tuple[FeatureMapSpec, ...] = ()
    unet: dict[str, Any] | None = None
    regions: tuple[int, ...] | None = None
    generator: GeneratorInfo
    image_size: tuple[int, int]
    data_digest: str
    config: LabelerConfig
    scores: dict[str, float] = {}
    weights_sha256: str = ""


class _Version(BaseModel):
    """The part that all versions of `labeler.json` share."""

    format_version: int


def describe(spec: Sequence[FeatureMapSpec]) -> str:
    """Feature maps in one line: `name CxHxW, ...`."""
    return ", ".join(f"{m.name} {m.channels}x{m.height}x{m.width}" for m in spec)


def describe_members(info: LabelerInfo) -> str:
    config, classes = info.config, len(info.classes)
    parts = []
    if config.has_ensemble:
        parts.append(
            f"{config.members} members of {config.hidden_for(classes)} units for {classes} classes "
            f"on {describe(info.features)}"
        )
    if config.has_network:
        parts.append(f"{config.network.members} networks for {classes} classes")
    if info.regions is not None:
        parts.append(f"{len(info.regions)} regions for {classes} classes")
    return ", ".join(parts)


def read_info(path: Path) -> LabelerInfo:
    content = read_file(path)
    version = parse_model(content, _Version, path, MAKE_AGAIN).format_version
    if version not in READABLE_VERSIONS:
        expected = " or ".join(map(str, READABLE_VERSIONS))
        raise ValueError(
            f"{path} has format version {version}, expected {expected}: use the program "
            "version that wrote it, or retrain the labeler"
        )
    return parse_model(content, LabelerInfo, path, MAKE_AGAIN)


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no labeler in {path.parent}: {path.name} is missing; make one with "
            "`factory train-labeler`"
        ) from None
