"""What the user gives a comparison, read and checked before any training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from factory.annotation.samples import load_generator
from factory.pipeline.photographs import check_photographs
from factory.recipe import find_weights
from factory.recipe.choosing import generator_recipe
from factory.verdict.bench import Materials
from factory.verdict.folds import groups_of, joined
from factory.verdict.pools import Encoder, Pool, equal_to_none
from factory.verdict.settings import CompareConfig
from factory_core.annotated.annotations import Annotations, annotated_size, read_annotations
from factory_core.images import (
    DEFAULT_PICTURES,
    Pictures,
    list_images,
    measured,
    read_image,
    remembered,
)
from factory_core.machine import available_cpus
from factory_core.spacing import spaced
from factory_core.storage import atomic_path
from generators.base import Finetunable, Projecting
from labelers.labeler import GeneratorInfo

KEPT_NAME = "photographs.safetensors"


@dataclass(frozen=True)
class Given:
    """The options of a comparison. `labeled` and `also` may select some images of a folder.

    `pictures` is how images are read, as far as it is given.
    """

    labeled: Path
    out: Path
    images: Path | None = None
    generator: str | None = None
    also: Path | None = None
    device: str = "auto"
    pictures: Pictures = DEFAULT_PICTURES

    def absolute(self) -> Given:
        """The same, for processes in other working directories."""
        generator = self.generator
        if generator is not None and Path(generator).expanduser().exists():
            generator = str(Path(generator).expanduser().absolute())
        return replace(
            self,
            labeled=self.labeled.absolute(),
            out=self.out.absolute(),
            images=self.images and self.images.absolute(),
            generator=generator,
            also=self.also and self.also.absolute(),
        )


@dataclass(frozen=True)
class Reading:
    """How photographs are read: as the annotated images were, or the same picture differs."""

    size: tuple[int, int]
    pictures: Pictures
    crop: bool


@dataclass(frozen=True)
class Photographs:
    """The photographs in use: uint8 `[N, 3, H, W]` and names; `found` is how many there are.

    `key` stands for the files and for how they were read.
    """

    images: torch.Tensor
    names: tuple[str, ...]
    found: int
    key: str


@dataclass(frozen=True)
class Read:
    """The materials, and the photographs among them."""

    materials: Materials
    photographs: Photographs | None = None

    def keep_photographs(self) -> None:
        """Write the decoded photographs for the processes that work on splits."""
        if self.photographs is not None:
            found, path = self.photographs, self.materials.parts / KEPT_NAME
            notes = {"key": found.key, "names": json.dumps(found.names)}
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                save_file({"images": found.images}, temporary, notes)


def read(given: Given, config: CompareConfig, parts: Path) -> Read:
    """Read everything; `parts` is the folder for what is computed.

    Raises ValueError or OSError, in one line, for a user's mistake.
    """
    encoder, info, start = _generator(given, config)
    pictures = given.pictures
    if encoder is not None and given.generator is not None:
        pictures = pictures.over(remembered(find_weights("--generator", given.generator)))
    size = config.image_size or annotated_size(given.labeled, pictures)
    if encoder is not None:
        size = encoder.generator.image_size
    labeled = read_annotations(given.labeled, size, pictures=pictures)
    pictures = labeled.pictures
    photographs = None
    if given.images is not None:
        if encoder is None:
            raise ValueError(
                "found --images without --generator: photographs are labelled with its help, so "
                "give both, or neither to compare what labels alone can do"
            )
        files = list_images(given.images)
        pictures = measured(pictures, files)
        most = min(config.photographs, encoder.most_images)
        reading = Reading(size, pictures, labeled.crop)
        photographs = _photographs(given.images, files, most, reading, parts / KEPT_NAME)
    pool = None
    if photographs is not None:
        pool = Pool(photographs.images, parts / "photographs", encoder)
    materials = Materials(
        config=config,
        parts=parts,
        annotated=Pool(labeled.images, parts / "annotated", encoder),
        masks=labeled.masks,
        classes=labeled.classes,
        palette=labeled.palette,
        groups=joined(groups_of(labeled.stems, config.group_by), labeled.images),
        photographs=pool,
        encoder=encoder,
        generator=info,
        start=start,
        also=_also(given, labeled, size, parts, encoder),
        device=given.device,
        pictures=pictures,
    )
    return Read(materials, photographs)


def _photographs(
    folder: Path, files: Sequence[Path], most: int, reading: Reading, kept: Path
) -> Photographs:
    """At most `most` of the files, evenly spaced, as they are in the file `kept` if it has them.

    Raises ValueError as `check_photographs`.
    """
    chosen = [files[i] for i in spaced(len(files), most)]
    paths = [path.resolve() for path in chosen]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    size, pictures, crop = reading.size, reading.pictures, reading.crop
    about = json.dumps([stats, size, pictures.model_dump(mode="json"), crop])
    key = hashlib.sha256(about.encode()).hexdigest()
    if kept.is_file():
        with safe_open(kept, "pt") as file:
            notes = file.metadata()
            if notes["key"] == key:
                names = tuple(json.loads(notes["names"]))
                return Photographs(file.get_tensor("images"), names, len(files), key)
    check_photographs(folder, chosen, pictures)
    with ThreadPoolExecutor(available_cpus()) as pool:
        images = pool.map(lambda path: read_image(path, size, pictures, crop), chosen)
    return Photographs(
        torch.stack(list(images)), tuple(path.name for path in chosen), len(files), key
    )


def identity(materials: Materials, contenders: Sequence[str]) -> dict[str, Any]:
    """What decides the scores: settings, and digests of all inputs."""
    m = materials
    return {
        "settings": m.config.model_dump(mode="json"),
        "contenders": list(contenders),
        "classes": m.classes,
        "labeled": _digest(m.annotated, m.masks),
        "images": None if m.photographs is None else m.photographs.digest,
        "generator": None if m.generator is None else m.generator.digest,
        "also_test": None if m.also is None else _digest(*m.also),
    }


def _generator(given: Given, config: CompareConfig) -> tuple[Any, Any, Any]:
    """Encoder, description and U-Net of the generator; None, None, None without one."""
    if given.generator is None:
        return None, None, None
    recipe = generator_recipe(None, given.generator, [])
    generator, found = load_generator("--generator", recipe.generator, given.device)
    if isinstance(generator, Projecting):
        raise ValueError(
            f"--generator {given.generator}: a {found.kind} generator cannot encode photographs, "
            "only search for similar images: give a diffusion model"
        )
    start = generator.describe_unet() if isinstance(generator, Finetunable) else None
    info = GeneratorInfo(digest=generator.digest, config=found.model_dump(mode="json"))
    return Encoder(generator, config.labeler.feature_dtype), info, start


def _also(
    given: Given, labeled: Annotations, size: tuple[int, int], parts: Path, encoder: Encoder | None
) -> tuple[Pool, torch.Tensor] | None:
    if given.also is None:
        return None
    found = read_annotations(given.also, size, labeled.classes, labeled.pictures)
    is_new = equal_to_none(found.images, labeled.images)
    if not is_new.all():
        same = found.stems[int(is_new.int().argmin())]
        raise ValueError(
            f"--also-test {given.also}: {same} equals one of the annotated images of "
            f"{given.labeled}, which are trained on: expected other images"
        )
    return Pool(found.images, parts / "also", encoder), found.masks


def _digest(pool: Pool, masks: torch.Tensor) -> str:
    return hashlib.sha256(pool.digest.encode() + masks.numpy().tobytes()).hexdigest()
