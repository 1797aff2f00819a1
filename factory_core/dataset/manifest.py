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
    SAMPLES_NAME,
    SHARDS_DIR,
    file_sha256,
    read_tar,
    write_json,
)
from factory_core.dataset.sample import UNCERTAINTY_LEVELS, ImageFormat, Sample, decode_sample
from factory_core.storage import (
    MeasuredFile,
    check_reachable,
    list_files,
    location,
    one_line,
    reopened,
)

FORMAT_VERSION = 1


class DamagedManifest(ValueError):
    """A dataset.json that this program never wrote like that."""


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
    def written(cls, file: MeasuredFile, path: Path, samples: int) -> FileInfo:
        """As `of` the `path` that `file` becomes, without reading it back."""
        return cls(name=path.name, samples=samples, bytes=file.bytes_written, sha256=file.sha256)

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` is there with this size and sha256."""
        return (
            path.is_file()
            and path.stat().st_size == self.bytes
            and file_sha256(path) == self.sha256
        )


class Totals(BaseModel):
    """Counts over the whole dataset; `bytes` of the shards, pixels of kept samples a class."""

    model_config = ConfigDict(frozen=True)

    candidates: int
    kept: int
    dropped: int
    bytes: int
    class_pixels: list[int]


class Manifest(BaseModel):
    """Contents of dataset.json. Holds no date, host or path of the run: equal runs, equal bytes."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    name: str
    recipe_digest: str
    recipe: dict[str, Any] = Field(description="the resolved recipe")
    weights: dict[str, str] = Field(description="sha256 of what each `weights` key held")
    source: dict[str, Any] = Field(description="where the images came from")
    classes: list[str]
    palette: list[list[int]]
    image_size: tuple[int, int] = Field(description="(height, width) in pixels")
    image_format: ImageFormat
    shards: list[FileInfo]
    samples: FileInfo = Field(description="samples.parquet: one row a candidate")
    totals: Totals
    uncertainty_threshold: float = Field(description="largest uncertainty kept, in nats")
    uncertainty_histogram: list[int] | None = Field(
        default=None,
        min_length=UNCERTAINTY_LEVELS,
        max_length=UNCERTAINTY_LEVELS,
        description="pixels of all candidates at each level of KEY.unc.png; none: no such maps",
    )
    precision: str = Field(default="", description="what `auto` precision meant, as settings")

    def write(self, folder: Path) -> None:
        """Write `folder`/dataset.json atomically."""
        write_json(folder / MANIFEST_NAME, self.model_dump(mode="json"))


# --- reading back ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A finished dataset: its folder and manifest."""

    path: Path
    manifest: Manifest

    @property
    def shard_paths(self) -> list[Path]:
        """The tars, in order. Loader processes may open them, whoever has opened `path`."""
        folder = reopened(self.path) / SHARDS_DIR
        return [folder / shard.name for shard in self.manifest.shards]

    @property
    def samples_path(self) -> Path:
        """samples.parquet."""
        return self.path / SAMPLES_NAME


def open_dataset(folder: str | Path) -> Dataset:
    """Open a finished dataset and check that its files are there with their sizes.

    `folder` may be the text of an URL, see `location`.

    Raises:
        FileNotFoundError: no such folder, no dataset.json in it, or a file is missing.
        OSError: a bucket that does not answer.
        ValueError: dataset.json cannot be read, is of another version, or a file is truncated.
    """
    path = location(folder)
    check_reachable(path)
    file = path / MANIFEST_NAME
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder, expected a dataset")
    dataset = Dataset(path, read_manifest(path))
    infos = [*dataset.manifest.shards, dataset.manifest.samples]
    files = [*list_files(path / SHARDS_DIR), *list_files(path)]
    sizes = {entry.name: entry.size for entry in files}
    for info, listed in zip(infos, [*dataset.shard_paths, dataset.samples_path], strict=True):
        found = sizes.get(info.name)
        if found is None:
            raise FileNotFoundError(f"{listed} is missing, although {file} lists it")
        if found != info.bytes:
            raise ValueError(
                f"{listed} has {found} bytes, {file} lists {info.bytes}: it is damaged"
            )
    return dataset


def read_manifest(folder: Path) -> Manifest:
    """Contents of `folder`/dataset.json, whatever else is there.

    Raises FileNotFoundError, saying what the folder is, if there is none, OSError if it cannot be
    opened, DamagedManifest if it is damaged, ValueError if it is of another version.
    """
    file = folder / MANIFEST_NAME
    hint = "copy it again, or run the command that made it, which brings it back"
    try:
        with one_line(file):
            content = json.loads(file.read_bytes())
    except FileNotFoundError:
        what = "its job is not finished: run the same command again to resume it"
        if not (folder / CANDIDATES_DIR).is_dir():
            what = "expected a folder written by `factory generate` or `factory label`"
        raise FileNotFoundError(f"{folder} holds no {MANIFEST_NAME}: {what}") from None
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
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedManifest(f"{file} is damaged, '{where}': {first['msg']}: {hint}") from None


def read_samples(folder: str | Path) -> Iterator[Sample]:
    """Every kept sample of a finished dataset, in key order.

    Errors as `open_dataset`, and ValueError for a shard whose contents are damaged.
    """
    dataset = open_dataset(folder)
    for info, shard in zip(dataset.manifest.shards, dataset.shard_paths, strict=True):
        count = 0
        for key, members in read_tar(shard):
            count += 1
            yield decode_sample(key, members, len(dataset.manifest.classes))
        if count != info.samples:  # tarfile takes a header it cannot read for the end
            raise ValueError(f"{shard} has {count} samples, expected {info.samples}: it is damaged")
