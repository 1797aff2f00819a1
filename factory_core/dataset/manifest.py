"""The manifest of a finished dataset, and reading the dataset back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from factory_core.dataset.files import (
    CANDIDATES_DIR,
    MANIFEST_NAME,
    SHARDS_DIR,
    Member,
    read_open_tar,
)
from factory_core.dataset.sample import UNCERTAINTY_LEVELS, ImageFormat, Sample, decode_sample
from factory_core.models import first_fault
from factory_core.storage import MeasuredFile, Place, Store, file_sha256, open_store

FORMAT_VERSION = 1


class DamagedManifest(ValueError):
    """A dataset.json whose content this program cannot have written."""


class FileInfo(BaseModel):
    """A file of the dataset: name, number of samples (rows), size in bytes and sha256."""

    model_config = ConfigDict(frozen=True)

    name: str
    samples: int
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, samples: int) -> FileInfo:
        """Measure the file at `path`."""
        size, digest = path.stat().st_size, file_sha256(path)
        return cls(name=path.name, samples=samples, bytes=size, sha256=digest)

    @classmethod
    def written(cls, file: MeasuredFile, name: str, samples: int) -> FileInfo:
        """Describe what was written to `file`, the future `name`, without reading it back."""
        return cls(name=name, samples=samples, bytes=file.bytes_written, sha256=file.sha256)

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` exists with this size and sha256."""
        return (
            path.is_file()
            and path.stat().st_size == self.bytes
            and file_sha256(path) == self.sha256
        )

    def is_intact(self, store: Store) -> bool:
        """Whether `store` holds this file, with this size and sha256."""
        if not store.exists(self.name) or store.entry(self.name).size != self.bytes:
            return False
        with store.local_copy(self.name) as path:
            return self.matches(path)


class Totals(BaseModel):
    """Counts over the dataset; `bytes` of all shards, `class_pixels` of the kept samples."""

    model_config = ConfigDict(frozen=True)

    candidates: int
    kept: int
    dropped: int
    bytes: int
    class_pixels: list[int]


class Manifest(BaseModel):
    """Contents of dataset.json, without date, host or path: equal runs give equal bytes."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    name: str
    recipe_digest: str
    recipe: dict[str, Any] = Field(description="the resolved recipe")
    weights: dict[str, str] = Field(description="sha256 of the content of each `weights` key")
    source: dict[str, Any] = Field(description="where the images came from")
    classes: list[str]
    palette: list[list[int]]
    image_size: tuple[int, int] = Field(description="(height, width) in pixels")
    image_format: ImageFormat
    shards: list[FileInfo]
    samples: FileInfo = Field(description="samples.parquet: one row per candidate")
    totals: Totals
    uncertainty_threshold: float = Field(description="largest uncertainty kept, in nats")
    uncertainty_histogram: list[int] | None = Field(
        default=None,
        min_length=UNCERTAINTY_LEVELS,
        max_length=UNCERTAINTY_LEVELS,
        description="pixels of all candidates at each level of KEY.unc.png; none without maps",
    )
    probabilities: bool = Field(
        default=False,
        description="whether every sample has KEY.prob.png; left out if not, as in older datasets",
        exclude_if=lambda value: not value,
    )
    precision: str = Field(default="", description="what `auto` precision chose, as settings")
    devices: list[str] = Field(
        default=[],
        description="kinds of GPU that made the shards; left out if they were made on CPUs",
        exclude_if=lambda value: not value,
    )
    threads: list[int] = Field(
        default=[],
        description="threads of the workers that made shards on CPUs; left out if none did",
        exclude_if=lambda value: not value,
    )

    def write(self, folder: Place) -> None:
        """Write dataset.json into `folder`."""
        open_store(folder).write_json(MANIFEST_NAME, self.model_dump(mode="json"))


# --- reading back ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A finished dataset: its folder and manifest. It can be pickled."""

    store: Store
    manifest: Manifest

    @property
    def shards(self) -> Store:
        """The folder of the tars that `manifest.shards` lists."""
        return self.store / SHARDS_DIR


def open_dataset(folder: Place) -> Dataset:
    """Open a finished dataset and check that its files exist with the sizes listed.

    `folder` may be the URL of a bucket, see `open_store`.

    Raises:
        FileNotFoundError: no such folder, no dataset.json in it, or a file is missing.
        OSError: a bucket that does not answer.
        ValueError: dataset.json cannot be read, has a different version, or a file is truncated.
    """
    store = open_store(folder)
    store.check()
    if not store.is_folder():
        raise FileNotFoundError(f"{store}: no such folder, expected a dataset")
    dataset = Dataset(store, read_manifest(store))
    _check_sizes(dataset.shards, dataset.manifest.shards, store)
    _check_sizes(store, [dataset.manifest.samples], store)
    return dataset


def _check_sizes(folder: Store, listed: list[FileInfo], store: Store) -> None:
    """Raise FileNotFoundError or ValueError unless `folder` has these files at these sizes."""
    sizes = {entry.name: entry.size for entry in folder.entries()}
    for info in listed:
        found = sizes.get(info.name)
        if found is None:
            raise FileNotFoundError(
                f"{folder / info.name} is missing, although {store / MANIFEST_NAME} lists it"
            )
        if found != info.bytes:
            raise ValueError(
                f"{folder / info.name} has {found} bytes, {store / MANIFEST_NAME} lists"
                f" {info.bytes}: it is damaged"
            )


def read_manifest(folder: Place) -> Manifest:
    """Content of dataset.json in `folder`; other files are not checked.

    Raises FileNotFoundError, saying what the folder is, if there is none, OSError if it cannot be
    opened, DamagedManifest if it is damaged, ValueError if it has a different version.
    """
    store = open_store(folder)
    file = store / MANIFEST_NAME
    hint = "copy it again, or rerun the command that made the dataset, which restores it"
    try:
        content = json.loads(store.read(MANIFEST_NAME))
    except FileNotFoundError:
        what = "its job is not finished: rerun the command to resume it"
        if not (store / CANDIDATES_DIR).is_folder():
            what = "expected a folder written by `factory generate` or `factory label`"
        raise FileNotFoundError(f"{store} holds no {MANIFEST_NAME}: {what}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedManifest(f"{file} is damaged, not JSON ({error}): {hint}") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version is None:
        raise DamagedManifest(f"{file} is damaged, it has no format version: {hint}")
    if version != FORMAT_VERSION:
        raise ValueError(f"{file}: found format version {version}, expected {FORMAT_VERSION}")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise DamagedManifest(f"{file} is damaged, {first_fault(error)}: {hint}") from None


def read_samples(folder: Place) -> Iterator[Sample]:
    """Every kept sample of a finished dataset, in key order.

    Errors as `open_dataset`, and ValueError for a shard whose content is damaged.
    """
    dataset = open_dataset(folder)
    for key, members in read_members(dataset):
        yield decode_sample(key, members, len(dataset.manifest.classes))


def read_members(dataset: Dataset) -> Iterator[tuple[str, list[Member]]]:
    """Key and files of every kept sample, in key order, not decoded; errors as `read_samples`."""
    for info in dataset.manifest.shards:
        count = 0
        with dataset.shards.open(info.name) as file:
            for key, members in read_open_tar(file, dataset.shards / info.name):
                count += 1
                yield key, members
        if count != info.samples:  # tarfile takes an unreadable header for the end
            raise ValueError(
                f"{dataset.shards / info.name} has {count} samples, expected {info.samples}: it is"
                " damaged"
            )
