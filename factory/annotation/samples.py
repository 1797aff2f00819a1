"""Samples to annotate: what `factory sample` writes, and what is noted about them.

    DIR/images/000000017.png   sample 17, as `generate` would make it
        samples.json           the generator and its settings, and the sha256 of every image
        preview.png            the images with their indices
        masks/, classes.json   from the annotator, who need not do all images

The samples of one folder are of one generator and one set of settings; more of them may be added.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from factory.locking.lock import exclusive
from factory.recipe.recipe import diff
from factory.recipe.weights import find_weights
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory_core.annotated.layouts import SAMPLES_FILE, split_selections
from factory_core.dataset import (
    MAX_SAMPLES,
    PREVIEW_NAME,
    encode_rgb,
    sample_key,
    sweep_temporaries,
    write_json,
)
from factory_core.output_folder import contents
from factory_core.storage import write_bytes
from generators.config import GeneratorConfig

if TYPE_CHECKING:
    import torch

    from generators.base import Generator

IMAGES_DIR = "images"
# What a generator's images do not depend on, beyond rounding.
NOT_OF_IMAGES = ("weights", "batch_size", "precision", "compile", "features", "projection")
SHOWN, TILE, GAP, CAPTION = 96, 128, 8, 20  # images in the preview; pixels
INK = (28, 30, 34)


class Samples(BaseModel):
    """Content of samples.json: whose samples lie in a folder, and which.

    `digest` is that of the generator, `images` the `pixels_sha256` by key (nine-digit index).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    digest: str
    generator: GeneratorConfig
    images: dict[Annotated[str, Field(pattern=r"^\d{9}$")], str] = {}

    def check(self, folder: Path, digest: str, config: GeneratorConfig) -> None:
        """Raise ValueError unless the generator `digest` set up as `config` makes these images."""
        where = folder / SAMPLES_FILE
        if digest != self.digest:
            raise ValueError(
                f"{where}: its images are of generator {self.digest[:12]} (weights "
                f"{self.generator.weights}), found generator {digest[:12]}: use that one, or "
                "sample this one into another folder"
            )
        ours, theirs = image_settings(self.generator), image_settings(config)
        if different := diff(ours, theirs):
            key = different[0]
            noted, given = json.dumps(ours[key]), json.dumps(theirs[key])
            raise ValueError(
                f"{where}: its images were sampled with generator.{key}={noted}, found {given}: "
                f"give --set generator.{key}={noted}, or sample into another folder"
            )


@dataclass(frozen=True)
class SampleJob:
    """What `factory sample` was given: samples `start` to `start + n` of a generator."""

    generator: GeneratorConfig
    start: int
    n: int
    out: Path
    device: str
    console: Console


def sample(job: SampleJob) -> None:
    """Write the samples; images that are there already stay as they are.

    Raises:
        ValueError: a bad number of samples, or the folder holds samples of another generator or
            other settings, or something else.
        OSError: no such weights, the folder is in use, or the disk is full.
    """
    if job.start + job.n > MAX_SAMPLES:
        raise ValueError(f"--start {job.start} --n {job.n}: expected indices below {MAX_SAMPLES}")
    quiet_libraries()
    generator, noted = load_generator("generator.weights", job.generator, job.device)
    with exclusive(job.out):
        samples = _begin(job.out, Samples(digest=generator.digest, generator=noted))
        samples = _make_missing(job, generator, samples)
        _write_preview(job.out, sorted(samples.images))
    job.console.print(
        f"{len(samples.images)} samples in {job.out / IMAGES_DIR}; see {job.out / PREVIEW_NAME}\n"
        f"Put masks of the same names into {job.out / 'masks'} and class names into "
        f"{job.out / 'classes.json'}; not all images need one. Then: "
        f"factory train-labeler --labeled {job.out} --out labeler"
    )


def load_generator(
    key: str, config: GeneratorConfig, device: str
) -> tuple[Generator, GeneratorConfig]:
    """The generator, and its settings as they are noted down: a path holds from any folder.

    `key` names the setting in the errors of `find_weights`.
    """
    import generators

    found = config.model_copy(update={"weights": str(find_weights(key, config.weights))})
    is_path = Path(config.weights).expanduser().exists()
    return generators.load(found, device), found if is_path else config


def image_settings(config: GeneratorConfig) -> dict[str, Any]:
    """The settings that decide which images a generator makes, by key."""
    return config.model_dump(mode="json", exclude=set(NOT_OF_IMAGES))


def pixels_sha256(image: torch.Tensor) -> str:
    """sha256 of an image uint8 `[3, H, W]`: of its RGB bytes, row by row."""
    return hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()


def find_samples(labeled: Path) -> tuple[Path, Samples | None]:
    """The folder that `labeled`, which may select some of its images, means; its samples.json.

    Raises ValueError if that is damaged; None if there is none: the images are just images.
    """
    folder, _ = split_selections(labeled)
    file = folder / SAMPLES_FILE
    if not file.is_file():
        return folder, None
    try:
        return folder, Samples.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise ValueError(
            f"{file} is damaged ('{where}': {first['msg']}): run `factory sample` into a new "
            "folder and copy it from there"
        ) from None


def _begin(out: Path, new: Samples) -> Samples:
    """What is in the folder, if that is of the same generator; else a new beginning."""
    _, found = find_samples(out)
    if found is not None:
        found.check(out, new.digest, new.generator)
        return found
    if foreign := contents(out):
        raise ValueError(
            f"--out {out} holds no samples but {foreign[0]}: give a new or empty folder"
        )
    (out / IMAGES_DIR).mkdir(parents=True)
    _note(out, new)
    return new


def _note(out: Path, samples: Samples) -> None:
    images = dict(sorted(samples.images.items()))
    write_json(out / SAMPLES_FILE, samples.model_dump(mode="json") | {"images": images})


def _make_missing(job: SampleJob, generator: Generator, samples: Samples) -> Samples:
    """Write the images that are not there, and samples.json after each batch."""
    folder, indices = job.out / IMAGES_DIR, range(job.start, job.start + job.n)
    folder.mkdir(exist_ok=True)
    for place in (job.out, folder):
        sweep_temporaries(place)
    keys = {index: sample_key(index) for index in indices}
    there = {i for i in indices if keys[i] in samples.images and _path(folder, keys[i]).is_file()}
    missing = [index for index in indices if index not in there]
    with ProgressLine("sampling", "images", job.n, job.console) as line:
        line.update(len(there))
        for start in range(0, len(missing), job.generator.batch_size):
            batch = missing[start : start + job.generator.batch_size]
            images = generator.sample(batch)[0].cpu()
            made = {}
            for index, image in zip(batch, images, strict=True):
                write_bytes(_path(folder, keys[index]), encode_rgb(image.permute(1, 2, 0).numpy()))
                made[keys[index]] = pixels_sha256(image)
            samples = samples.model_copy(update={"images": samples.images | made})
            _note(job.out, samples)
            line.update(len(there) + start + len(batch))
    return samples


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.png"


# --- preview ---------------------------------------------------------------------------------


def _write_preview(out: Path, keys: Sequence[str]) -> None:
    """Draw the first images of the folder, each with its index, to preview.png."""
    shown = [key for key in keys if _path(out / IMAGES_DIR, key).is_file()][:SHOWN]
    tiles = [_tile(_path(out / IMAGES_DIR, key)) for key in shown]
    width, height = (max(t.size[side] for t in tiles) for side in (0, 1))
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    page = Image.new(
        "RGB", (columns * (width + GAP) + GAP, rows * (height + CAPTION + GAP) + GAP), "white"
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for place, (key, tile) in enumerate(zip(shown, tiles, strict=True)):
        left = GAP + place % columns * (width + GAP)
        top = GAP + place // columns * (height + CAPTION + GAP)
        page.paste(tile, (left, top))
        draw.text((left + width / 2, top + height + 3), str(int(key)), INK, font, anchor="ma")
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    write_bytes(out / PREVIEW_NAME, buffer.getvalue())


def _tile(path: Path) -> Image.Image:
    """An image as it is shown: small ones enlarged by a whole factor, large ones shrunk."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    factor = TILE // max(image.size)
    if factor > 1:
        return Image.fromarray(np.asarray(image).repeat(factor, 0).repeat(factor, 1))
    image.thumbnail((2 * TILE, 2 * TILE))
    return image
