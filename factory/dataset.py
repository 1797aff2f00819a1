"""The dataset on disk: keys, members of a sample, deterministic tars, the manifest, reading back.

    DIR/dataset.json             the manifest, written last: a folder without it is not finished
        shards/NAME-000000.tar   KEY.png|jpg, KEY.json, KEY.seg.png of every kept sample
        samples.parquet          one row a candidate, dropped ones too

The same samples give the same bytes: members are sorted, times and owners are fixed, and nothing
in a file depends on when, where or by how many workers it was written.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT_VERSION = 1
MANIFEST_NAME = "dataset.json"
SAMPLES_NAME = "samples.parquet"
SHARDS_DIR = "shards"
CANDIDATES_DIR = "candidates"  # while the job runs
PREVIEW_NAME = "preview.png"
IGNORE = 255  # in masks: no class
TEMPORARY_PREFIX = ".tmp-"
MAX_SAMPLES = 10**9  # keys have nine digits

ImageFormat = Literal["png", "jpg"]
Member = tuple[str, bytes]


def sample_key(index: int) -> str:
    """Key of sample `index` (0 to 999 999 999): nine digits, so that sorting keys sorts indices."""
    assert 0 <= index < MAX_SAMPLES, index
    return f"{index:09d}"


def default_palette(n: int) -> list[list[int]]:
    """`n` distinguishable RGB colours (0-255); class 0 is black, as backgrounds usually are."""
    colours = [[0, 0, 0]]
    for i in range(1, n):
        # Golden-ratio steps keep neighbours in the list far apart on the colour wheel; two
        # levels of saturation and brightness tell later turns of the wheel from earlier ones.
        hue = (i - 1) * 0.618033988749895 % 1.0
        rgb = colorsys.hsv_to_rgb(hue, (0.85, 0.5)[i // 16 % 2], (0.95, 0.7)[i // 8 % 2])
        colours.append([round(255 * c) for c in rgb])
    return colours[:n]


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]], alpha: float = 0.45
) -> np.ndarray:
    """Mask colours over an image, and a thin contour in full colour around every region.

    `image` uint8 `[H, W, 3]`, `mask` uint8 `[H, W]` class ids, `palette` one RGB (0-255) a class,
    `alpha` in 0-1. Returns uint8 `[H, W, 3]`. Black classes (by custom the background) and pixels
    to ignore stay as they are.
    """
    colours = np.zeros((256, 3), np.float32)
    colours[: len(palette)] = palette
    shown: np.ndarray = np.any(colours, axis=1)
    shown[IGNORE] = False
    weight = np.where(shown, alpha, 0.0)[mask]
    # On both sides of a border between classes; a class that is not shown has no contour.
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge: np.ndarray = np.zeros(mask.shape, bool)
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    weight = np.where(edge & shown[mask], 1.0, weight)[..., None]
    return np.rint(image * (1 - weight) + colours[mask] * weight).astype(np.uint8)


# --- writing ---------------------------------------------------------------------------------


def encode_sample(
    key: str,
    image: np.ndarray,
    mask: np.ndarray,
    palette: Sequence[Sequence[int]],
    meta: Mapping[str, Any],
    image_format: ImageFormat = "png",
) -> list[Member]:
    """Members (name, bytes) of one sample, sorted by name.

    `image` is uint8 `[3, H, W]` RGB, `mask` uint8 `[H, W]` class ids (255 = ignore); `palette`
    (RGB, 0-255, one a class) only colours the mask for viewers. `meta` must be JSON-able.
    """
    assert image.dtype == mask.dtype == np.uint8, (image.dtype, mask.dtype)
    assert image.shape == (3, *mask.shape), (image.shape, mask.shape)
    members = [
        (f"{key}.{image_format}", encode_rgb(image.transpose(1, 2, 0), image_format)),
        (f"{key}.json", canonical_json(meta)),
        (f"{key}.seg.png", encode_mask(mask, palette)),
    ]
    return sorted(members)


def encode_rgb(image: np.ndarray, image_format: ImageFormat = "png") -> bytes:
    """PNG or JPEG of an RGB image uint8 `[H, W, 3]`."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    if image_format == "png":
        picture.save(buffer, "PNG")
    else:  # full chroma resolution: a mask's edges are as sharp as the image's must stay
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def encode_mask(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> bytes:
    """PNG of class ids uint8 `[H, W]`, one channel, with `palette` for viewers (255 is white)."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[255] = 255
    picture = Image.fromarray(np.ascontiguousarray(mask))
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def canonical_json(value: Any) -> bytes:
    """JSON of `value` with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class TarWriter:
    """Writes a byte-reproducible tar to an open binary file: fixed times, owner and mode."""

    def __init__(self, file: BinaryIO):
        # USTAR: plain 512-byte headers that every reader knows, never PAX records.
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, members: Iterable[Member]) -> None:
        """Append members (name, bytes) in the order given."""
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), 0, 0o644
            info.uname = info.gname = "root"
            self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive; the file itself stays open."""
        self._tar.close()


def read_tar(path: Path) -> Iterator[tuple[str, list[Member]]]:
    """Samples (key, members) of a tar; the key is the name up to its first dot.

    Raises ValueError naming a tar that is damaged.
    """
    key, members = "", list[Member]()
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                file = tar.extractfile(info)
                if file is None:
                    raise tarfile.ReadError(f"{info.name} is not a plain file")
                data = file.read()
                if members and info.name.split(".", 1)[0] != key:
                    yield key, members
                    members = []
                key = info.name.split(".", 1)[0]
                members.append((info.name, data))
    except tarfile.TarError as error:
        raise ValueError(f"{path} is damaged ({error}): copy it again or make it anew") from None
    if members:
        yield key, members


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing; on success it is flushed to disk and becomes `path`.

    On any exception, KeyboardInterrupt too, the temporary is removed and `path` is as before.
    """
    # The random part lets two workers that were given the same shard write it at once.
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{uuid.uuid4().hex[:12]}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON (keys in the order given) atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def sweep_temporaries(folder: Path) -> None:
    """Remove what interrupted writers left behind in `folder`."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the manifest ----------------------------------------------------------------------------


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
        """The tars, in order."""
        return [self.path / SHARDS_DIR / shard.name for shard in self.manifest.shards]

    @property
    def samples_path(self) -> Path:
        """samples.parquet."""
        return self.path / SAMPLES_NAME


@dataclass(frozen=True)
class Sample:
    """One kept sample: image uint8 `[3, H, W]`, mask uint8 `[H, W]`, and its KEY.json."""

    key: str
    image: np.ndarray
    mask: np.ndarray
    meta: dict[str, Any]


def open_dataset(folder: str | Path) -> Dataset:
    """Open a finished dataset and check that its files are there with their sizes.

    Raises:
        FileNotFoundError: no such folder, no dataset.json in it, or a file is missing.
        ValueError: dataset.json cannot be read, is of another version, or a file is truncated.
    """
    path = Path(folder)
    file = path / MANIFEST_NAME
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder, expected a dataset")
    if not file.is_file():
        hint = "its job is not finished: run the same command again to resume it"
        if not (path / CANDIDATES_DIR).is_dir():
            hint = "expected a folder written by `factory generate` or `factory label`"
        raise FileNotFoundError(f"{path} holds no {MANIFEST_NAME}: {hint}")
    dataset = Dataset(path, _read_manifest(file))
    infos = [*dataset.manifest.shards, dataset.manifest.samples]
    for info, listed in zip(infos, [*dataset.shard_paths, dataset.samples_path], strict=True):
        if not listed.is_file():
            raise FileNotFoundError(f"{listed} is missing, although {file} lists it")
        found = listed.stat().st_size
        if found != info.bytes:
            raise ValueError(
                f"{listed} has {found} bytes, {file} lists {info.bytes}: it is damaged"
            )
    return dataset


def _read_manifest(file: Path) -> Manifest:
    try:
        content = json.loads(file.read_bytes())
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise ValueError(f"{file}: found format version {version}, expected {FORMAT_VERSION}")
        return Manifest.model_validate(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file}: '{where}': {first['msg']}") from None


def read_samples(folder: str | Path) -> Iterator[Sample]:
    """Every kept sample of a finished dataset, in key order.

    Errors as `open_dataset`, and ValueError for a shard whose contents are damaged.
    """
    dataset = open_dataset(folder)
    for info, shard in zip(dataset.manifest.shards, dataset.shard_paths, strict=True):
        count = 0
        for key, members in read_tar(shard):
            count += 1
            yield decode_sample(key, members)
        if count != info.samples:  # tarfile takes a header it cannot read for the end
            raise ValueError(f"{shard} has {count} samples, expected {info.samples}: it is damaged")


def decode_sample(key: str, members: Iterable[Member]) -> Sample:
    """The inverse of `encode_sample`."""
    by_extension = {name.split(".", 1)[1]: data for name, data in members}
    encoded = by_extension.get("png") or by_extension["jpg"]
    image = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).transpose(2, 0, 1)
    mask = np.asarray(Image.open(io.BytesIO(by_extension["seg.png"])))
    return Sample(key, np.ascontiguousarray(image), mask, json.loads(by_extension["json"]))
