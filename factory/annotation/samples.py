"""The record of samples to annotate, which `factory sample` writes and `train-labeler` checks.

    DIR/images/000000017.png   sample 17, as `generate` would make it
        samples.json           the generator and its settings, and the sha256 of every image
        preview.png            the images with their indices
        masks/, classes.json   from the annotator; images without a mask are left out

The samples in one folder come from one generator and one set of settings; more can be added.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from factory.recipe import diff
from factory.recipe.networks import find_networks, with_local_paths
from factory_core.annotated.layouts import SAMPLES_FILE, split_selections
from factory_core.models import read_model
from factory_core.storage import write_json
from generators.config import GeneratorConfig

if TYPE_CHECKING:
    import torch

    from generators.base import Encoder, Generator

IMAGES_DIR = "images"
# Settings that images do not depend on, beyond rounding.
NOT_OF_IMAGES = {
    *("weights", "batch_size", "precision", "compile"),
    *("features", "projection", "encoders"),
}
DAMAGED_HINT = "run `factory sample` into a new folder and copy samples.json from there"


class Samples(BaseModel):
    """Content of samples.json: the generator whose samples a folder holds, and which samples.

    `digest` is the generator's; `images` maps keys (nine-digit indices) to `pixels_sha256`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    digest: str
    generator: GeneratorConfig
    images: dict[Annotated[str, Field(pattern=r"^\d{9}$")], str] = {}

    def check(self, folder: Path, digest: str, config: GeneratorConfig) -> None:
        """Raise ValueError unless the generator `digest` with settings `config` gives these images.

        `folder` is where the samples are.
        """
        where = folder / SAMPLES_FILE
        if digest != self.digest:
            raise ValueError(
                f"{where}: its images are from generator {self.digest[:12]} (weights "
                f"{self.generator.weights}), found generator {digest[:12]}: use the former, or "
                "sample the latter into another folder"
            )
        ours, theirs = image_settings(self.generator), image_settings(config)
        if different := diff(ours, theirs):
            key = different[0]
            recorded, given = json.dumps(ours[key]), json.dumps(theirs[key])
            raise ValueError(
                f"{where}: its images were sampled with generator.{key}={recorded}, found {given}: "
                f"give --set generator.{key}={recorded}, or sample into another folder"
            )

    def write(self, folder: Path) -> None:
        """Write `folder`/samples.json atomically, images in order of their keys."""
        images = dict(sorted(self.images.items()))
        write_json(folder / SAMPLES_FILE, self.model_dump(mode="json") | {"images": images})


def load_generator(
    key: str, config: GeneratorConfig, device: str
) -> tuple[Generator, GeneratorConfig]:
    """The generator, and its settings for the record: with absolute paths to local weights.

    `key` names the setting in the errors of `find_weights`.
    """
    import generators

    found, _ = find_networks(key, config)
    return generators.load(found, device), with_local_paths(config, found)


def load_encoder(key: str, config: GeneratorConfig, device: str) -> tuple[Encoder, GeneratorConfig]:
    """As `load_generator`, for images that exist: also an encoder alone."""
    import generators

    found, _ = find_networks(key, config)
    return generators.load_encoder(found, device), with_local_paths(config, found)


def image_settings(config: GeneratorConfig) -> dict[str, Any]:
    """The settings that decide which images a generator makes, by key."""
    return config.model_dump(mode="json", exclude=NOT_OF_IMAGES)


def pixels_sha256(image: torch.Tensor) -> str:
    """sha256 of the RGB bytes, row by row, of an image uint8 `[3, H, W]`."""
    return hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()


def find_samples(labeled: Path) -> tuple[Path, Samples | None]:
    """The folder in `labeled`, without selections such as `[:20]`, and its samples.json.

    Without samples.json the second is None: the images may come from anywhere. Raises ValueError if
    the file is damaged.
    """
    folder, _ = split_selections(labeled)
    file = folder / SAMPLES_FILE
    if not file.is_file():
        return folder, None
    return folder, read_model(file, Samples, DAMAGED_HINT)


def recorded_settings(labeled: Path) -> dict[str, Any] | None:
    """The generator settings that the samples in `labeled` were made with; None for other images.

    Raises ValueError as `find_samples`.
    """
    _, samples = find_samples(labeled)
    return None if samples is None else samples.generator.model_dump(mode="json")
