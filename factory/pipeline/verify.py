"""Whether a finished dataset is intact: every file, member and row, read back.

When `factory generate` resumes, it trusts size and sha256 of each file. Here the contents are
opened too, and checked against samples.parquet and dataset.json.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from factory.pipeline.commit import select_rows
from factory.reports import preview
from factory_core.dataset import (
    CANDIDATES_DIR,
    IGNORE,
    MANIFEST_NAME,
    PREVIEW_NAME,
    SAMPLES_NAME,
    SHARDS_DIR,
    UNCERTAINTY_LEVELS,
    DamagedManifest,
    Dataset,
    FileInfo,
    Manifest,
    Member,
    open_dataset,
    read_manifest,
    read_tar,
    unstacked,
)
from factory_core.dataset.recovery import recover_manifest
from factory_core.storage import Place, open_store

Remedy = Literal["redo", "move", "none"]

HINTS: dict[Remedy, str] = {
    "redo": "rerun the command that made the dataset, which regenerates {}",
    "move": "move {} elsewhere: readers may take it for part of the dataset",
    "none": "do not rely on {}: regenerating it gives the same fault",
}
ADDED = ("shard", "kept", "reason")  # columns of samples.parquet that KEY.json does not have


@dataclass(frozen=True)
class Problem:
    """A fault of `file` (its name in the dataset's folder), and the remedy.

    `redo`: its bytes differ from those listed when it was made, so regenerating it will help;
    `move`: it does not belong to the dataset; `none`: it was written with the fault.
    """

    file: str
    reason: str
    remedy: Remedy

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class _Counts:
    """Counts over the kept samples: samples, pixels per class, pixels per uncertainty level."""

    class_pixels: np.ndarray
    levels: np.ndarray = field(default_factory=lambda: np.zeros(UNCERTAINTY_LEVELS, np.int64))
    samples: int = 0


def verify(dataset: Place) -> list[Problem]:
    """Every fault of a dataset; empty if it is intact.

    Raises OSError or ValueError if it is not finished, or if it cannot be checked because
    dataset.json and samples.parquet are both damaged.
    """
    folder, problems = open_store(dataset), []
    try:
        manifest = read_manifest(folder)
    except (FileNotFoundError, DamagedManifest) as error:
        recovered = recover_manifest(folder)
        if recovered is None or (folder / CANDIDATES_DIR).is_folder():
            open_dataset(folder)  # reports a missing folder
            raise
        manifest = recovered
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        problems.append(Problem(MANIFEST_NAME, reason, "redo"))
    data = Dataset(folder, manifest)
    with folder.local_copy(SAMPLES_NAME) as samples_path:
        problems += _verify(data, samples_path)
    if (fault := preview.fault(folder)) is not None:
        problems.append(Problem(PREVIEW_NAME, fault, "redo"))
    return problems


def _verify(data: Dataset, samples_path: Path) -> list[Problem]:
    """Faults of rows, shards and totals; `samples_path` is the file of rows on this machine."""
    manifest = data.manifest
    problems = _check_file(manifest.samples, samples_path, SAMPLES_NAME)
    rows: Iterator[tuple[str, list[dict[str, Any]]]] | None = None
    if not problems:
        problems += _check_selection(manifest, samples_path)
        rows = _rows_by_shard(samples_path)
    counts = _Counts(np.zeros(len(manifest.classes), np.int64))
    copies = data.shards.local_copies([info.name for info in manifest.shards])
    for info, path in zip(manifest.shards, copies, strict=True):
        placed, expected = (info.name, None) if rows is None else next(rows, ("nothing", []))
        if placed != info.name:
            reason = f"has rows of {placed}, expected those of {info.name}"
            problems.append(Problem(SAMPLES_NAME, reason, "none"))
        name = f"{SHARDS_DIR}/{info.name}"
        damaged = _check_file(info, path, name)
        problems += damaged or _check_shard(info, path, name, expected, manifest, counts)
    if rows is not None and (more := next(rows, None)) is not None:
        reason = f"has rows of {more[0]}, which {MANIFEST_NAME} does not list"
        problems.append(Problem(SAMPLES_NAME, reason, "none"))
    listed = {info.name for info in manifest.shards}
    problems += [
        Problem(f"{SHARDS_DIR}/{name}", "does not belong to the dataset", "move")
        for name in data.shards.names()
        if name not in listed
    ]
    # Totals add nothing if files are already known to be damaged.
    return problems or _check_totals(manifest, counts)


def _check_file(info: FileInfo, path: Path, name: str) -> list[Problem]:
    """Existence, size, sha256."""
    if not path.is_file():
        return [Problem(name, "is missing", "redo")]
    size = path.stat().st_size
    if size != info.bytes:
        return [Problem(name, f"has {size} bytes, expected {info.bytes}", "redo")]
    if not info.matches(path):
        return [Problem(name, "has a different sha256 than listed", "redo")]
    return []


# --- samples.parquet -------------------------------------------------------------------------


def _check_selection(manifest: Manifest, samples_path: Path) -> list[Problem]:
    """Number of rows, and whether the kept rows are those that the recipe keeps."""
    table = pq.read_table(samples_path, columns=["index", "kept"])
    fraction = manifest.recipe.get("dataset", {}).get("drop_fraction")
    policy = manifest.recipe.get("selection", {}).get("policy", "uncertain")
    problems = []
    if len(table) != manifest.totals.candidates:
        problems.append(f"has {len(table)} rows, expected {manifest.totals.candidates}")
    elif not np.array_equal(table["index"], np.arange(len(table))):
        problems.append("does not have the indices 0, 1, 2, ...")
    elif fraction is not None:
        selection = select_rows([samples_path], fraction, policy)
        if not np.array_equal(selection.kept, table["kept"]):
            problems.append("does not keep the candidates that its recipe keeps")
        elif selection.threshold != manifest.uncertainty_threshold:
            problems.append(
                f"has threshold {selection.threshold}, {MANIFEST_NAME} says"
                f" {manifest.uncertainty_threshold}"
            )
    return [Problem(SAMPLES_NAME, reason, "none") for reason in problems]


def _rows_by_shard(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(final shard, rows of its samples) in order, a row group in memory at a time."""

    def kept_rows() -> Iterator[dict[str, Any]]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from pa.Table.from_batches([batch]).filter(batch["kept"]).to_pylist()

    for shard, rows in groupby(kept_rows(), key=lambda row: row["shard"]):
        yield shard, list(rows)


# --- shards ----------------------------------------------------------------------------------


def _check_shard(
    info: FileInfo,
    path: Path,
    name: str,
    rows: list[dict[str, Any]] | None,
    manifest: Manifest,
    counts: _Counts,
) -> list[Problem]:
    """Every sample against its row; `rows` None skips that (samples.parquet is damaged)."""
    found = list[str]()
    problems = []
    for key, members in read_tar(path):
        row = None
        if rows is not None and len(found) < len(rows):
            row = rows[len(found)]
        found.append(key)
        reason = _sample_fault(key, members, row, manifest, counts)
        if reason is not None:
            problems.append(Problem(name, f"sample {key} {reason}", "none"))
    expected = info.samples if rows is None else len(rows)
    if len(found) != expected or len(found) != info.samples:
        reason = f"has {len(found)} samples, expected {info.samples} and {expected} rows"
        problems.append(Problem(name, reason, "none"))
    counts.samples += len(found)
    return problems


def _sample_fault(
    key: str,
    members: list[Member],
    row: dict[str, Any] | None,
    manifest: Manifest,
    counts: _Counts,
) -> str | None:
    """What is wrong with a sample, if anything; a good one is counted."""
    files = {name.partition(".")[2]: content for name, content in members}
    maps = ["unc.png"] if manifest.uncertainty_histogram is not None else []
    maps += ["prob.png"] if manifest.probabilities else []
    expected = sorted([manifest.image_format, "json", "seg.png", *maps])
    found = sorted(name.partition(".")[2] for name, _ in members)
    if found != expected:
        return f"has members {found}, expected {expected}"
    try:
        pictures = {name: _open(files[name]) for name in expected if name != "json"}
        meta = json.loads(files["json"])
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises any of them
        return f"cannot be read: {error}"
    modes = {manifest.image_format: "RGB", "seg.png": "P", "unc.png": "L", "prob.png": "L"}
    height, width = manifest.image_size
    classes = len(manifest.classes)
    for name, picture in pictures.items():
        rows = height * (classes - 1) if name == "prob.png" else height
        if (picture.mode, picture.size) != (modes[name], (width, rows)):
            return (
                f"has a .{name} of {picture.mode} {picture.width} x {picture.height}, expected"
                f" {modes[name]} {width} x {rows}"
            )
    pixels = np.bincount(np.asarray(pictures["seg.png"]).ravel(), minlength=256)
    unknown = np.flatnonzero(pixels[classes:IGNORE])
    if len(unknown):
        return f"has class id {classes + unknown[0]}, there are {classes} classes"
    if row is not None and {"key": key, **meta} != {k: row[k] for k in row if k not in ADDED}:
        return f"has a .json that differs from its row in {SAMPLES_NAME}"
    if pixels[:classes].tolist() != meta.get("class_pixels"):
        return "has a mask that differs from the counts in its .json"
    if "prob.png" in pictures:
        try:
            unstacked(np.asarray(pictures["prob.png"]), height)
        except ValueError as error:
            return f"has a .prob.png that is wrong: {error}"
    counts.class_pixels += pixels[:classes]
    if "unc.png" in pictures:
        counts.levels += np.bincount(np.asarray(pictures["unc.png"]).ravel(), minlength=256)
    return None


def _open(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()  # all of it, not just the header
    return picture


# --- dataset.json ----------------------------------------------------------------------------


def _check_totals(manifest: Manifest, counts: _Counts) -> list[Problem]:
    """The manifest's sums against what was counted."""
    totals, problems = manifest.totals, []
    found = (counts.samples, totals.candidates - counts.samples, counts.class_pixels.tolist())
    if found != (totals.kept, totals.dropped, totals.class_pixels):
        problems.append("has totals that differ from its shards")
    if totals.bytes != sum(info.bytes for info in manifest.shards):
        problems.append("has a total of bytes that differs from its shards")
    if manifest.uncertainty_histogram is not None:
        # It also counts the dropped candidates, which are in no shard.
        dropped = np.asarray(manifest.uncertainty_histogram) - counts.levels
        height, width = manifest.image_size
        if dropped.min() < 0 or dropped.sum() != totals.dropped * height * width:
            problems.append("has an uncertainty_histogram that differs from the shards' maps")
    return [Problem(MANIFEST_NAME, reason, "none") for reason in problems]
