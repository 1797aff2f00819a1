"""A worker: generator and labeler loaded once, then shards of candidates written to disk.

A shard is a tar of every sample, a parquet of rows about them, and `NNNNNN_stats.json`: the
completion marker, written last, with size and sha256 of the other two. What has none is redone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from factory.pipeline.failures import SHARD_ERRORS, ShardError
from factory_core.dataset import (
    CANDIDATES_DIR,
    MARKER_SUFFIX,
    UNCERTAINTY_LEVELS,
    FileInfo,
    ImageFormat,
    Member,
    TarWriter,
    encode_sample,
    sample_key,
    uncertainty_levels,
    write_json,
)
from factory_core.storage import atomic_file
from generators.base import FeatureMaps, Generator, sample_seed
from generators.config import GeneratorConfig
from labelers.config import LabelerConfig


@dataclass(frozen=True)
class Shard:
    """A unit of work: candidates `start` to `stop` (exclusive).

    `files` are the photographs to label, one a candidate; None means to sample the generator.
    """

    number: int
    start: int
    stop: int
    files: tuple[str, ...] | None = None

    @property
    def stem(self) -> str:
        """Beginning of the names of this shard's files."""
        return f"{self.number:06d}"

    @property
    def marker(self) -> str:
        """Name of the file that says that this shard is finished."""
        return f"{self.stem}{MARKER_SUFFIX}"

    @property
    def indices(self) -> range:
        """Sample indices."""
        return range(self.start, self.stop)


@dataclass(frozen=True)
class ShardStats:
    """What a finished shard holds: the content of its completion marker.

    `image_size` is (height, width) in pixels; `uncertainty_sum` in nats; `uncertainty_histogram`
    counts the pixels at each level of the uncertainty maps, None without maps; `precision` is
    that of `precision_of`; `job` tells its shards from those of other jobs.
    """

    number: int
    start: int
    stop: int
    image_size: tuple[int, int]
    uncertainty_sum: float
    elapsed_sec: float
    tar: FileInfo
    rows: FileInfo
    uncertainty_histogram: list[int] | None
    precision: str
    job: str = ""

    @property
    def samples(self) -> int:
        """Number of candidates."""
        return self.stop - self.start

    def to_json(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        files = {"tar": self.tar.model_dump(), "rows": self.rows.model_dump()}
        return {**{k: v for k, v in vars(self).items() if k not in files}, **files}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ShardStats:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        values = dict(content)
        values["image_size"] = tuple(values["image_size"])
        values["tar"] = FileInfo.model_validate(values["tar"])
        values["rows"] = FileInfo.model_validate(values["rows"])
        return cls(**values)


class LabelerLike(Protocol):
    """What a worker asks of a labeler (`labelers.Labeler`)."""

    def predict(
        self, features: FeatureMaps, size: tuple[int, int], vote: Any, uncertainty: Any = None
    ) -> Any:
        """Masks and uncertainty of a batch."""
        ...

    def check(self, generator: Generator) -> None:
        """Raise ValueError unless `generator` is the one of training."""
        ...


Models = tuple[Generator, LabelerLike]
LoadModels = Callable[[GeneratorConfig, LabelerConfig, str], Models]


def load_models(generator: GeneratorConfig, labeler: LabelerConfig, device: str) -> Models:
    """Generator and labeler from the folders that their configs name, on `device`."""
    import generators
    from factory_core.device import pick_device, pick_dtype
    from labelers.labeler import Labeler

    assert labeler.weights is not None  # a resolved recipe has both
    loaded, where = generators.load(generator, device), pick_device(device)
    return loaded, Labeler.load(labeler.weights, where, pick_dtype(labeler.precision, where))


def precision_of(models: Models) -> str:
    """What the models compute in, as recipe settings: `auto` is not the same on every machine.

    A model that does not say computes in float32.
    """
    dtypes = [
        str(getattr(model, "dtype", torch.float32)).removeprefix("torch.") for model in models
    ]
    return "generator.precision={} labeler.precision={}".format(*dtypes)


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs to know; small, because it travels to every worker.

    `out` is the dataset's folder; `generator` and `labeler` name weights that exist on the
    worker's machine; `precision` is that of the shards made before, None if there are none;
    `job` is noted in every marker; `load` replaces the real models in tests.
    """

    out: Path
    generator: GeneratorConfig
    labeler: LabelerConfig
    palette: tuple[tuple[int, int, int], ...]
    image_format: ImageFormat = "png"
    uncertainty_maps: bool = False
    device: str = "auto"
    precision: str | None = None
    job: str = ""
    load: LoadModels = field(default=load_models)


@dataclass(frozen=True)
class Candidates:
    """A labelled batch, in order: what becomes the members of N samples, and a row about each.

    `images` uint8 `[N, 3, H, W]`, `masks` uint8 `[N, H, W]`, `levels` of the uncertainty maps uint8
    `[N, H, W]` or None without maps.
    """

    images: np.ndarray
    masks: np.ndarray
    levels: np.ndarray | None
    rows: list[dict[str, Any]]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.masks.shape[1:]
        return height, width


class ShardWorker:
    """Samples, labels and writes shards. Models are loaded by the first call, not before."""

    def __init__(self, spec: WorkerSpec, threads: int = 1):
        self.spec = spec
        self.folder = spec.out / CANDIDATES_DIR
        # Workers share a machine: each must keep to its cores or they fight over all of them.
        torch.set_num_threads(threads)
        self._models: Models | None = None

    @property
    def models(self) -> Models:
        """Generator and labeler.

        Raises:
            ValueError: the labeler belongs to another generator or to other blocks, or the shards
                made before were computed in another precision.
        """
        if self._models is None:
            generator, labeler = self.spec.load(
                self.spec.generator, self.spec.labeler, self.spec.device
            )
            labeler.check(generator)
            before, here = self.spec.precision, precision_of((generator, labeler))
            if before not in (None, here):
                raise ValueError(
                    f"{self.spec.out} was begun with {before}, but auto means {here} here: go on"
                    " where it was begun, or give another --out and set both"
                )
            self._models = generator, labeler
        return self._models

    def __call__(self, shard: Shard) -> ShardStats:
        """Make and write one shard.

        Raises:
            ShardError: this shard cannot be made (see `make`).
            ValueError, OSError: none can: see `models`, or the disk is full.
        """
        started = time.perf_counter()
        rows: list[dict[str, Any]] = []
        histogram = np.zeros(UNCERTAINTY_LEVELS, np.int64)
        image_size = (0, 0)
        tar_path = self.folder / f"{shard.stem}.tar"
        # Encoding lets go of the interpreter: a batch is encoded and written in the background
        # while the next one is made. Two are in memory, and what fails in either is raised here.
        with ThreadPoolExecutor(1) as background, atomic_file(tar_path, sync_name=False) as file:
            tar = TarWriter(file)
            writing: Future[None] | None = None
            step = self.spec.generator.batch_size
            # Batches are cut inside the shard: the bits of a sample depend on its batch, and the
            # same shard must come out the same whoever makes it.
            for start in range(shard.start, shard.stop, step):
                batch = range(start, min(start + step, shard.stop))
                candidates = self.make(batch, self._batch_files(shard, batch))
                if writing is not None:
                    writing.result()
                writing = background.submit(self._append, tar, candidates)
                rows += candidates.rows
                image_size = candidates.image_size
                if candidates.levels is not None:
                    histogram += np.bincount(candidates.levels.ravel(), minlength=len(histogram))
            if writing is not None:
                writing.result()
            tar.close()
            tar_info = FileInfo.written(file, tar_path, len(rows))
            # Waiting for the disk is most of what a small shard costs: for both files at once.
            rows_written = background.submit(self._write_rows, shard, rows)
        stats = ShardStats(
            number=shard.number,
            start=shard.start,
            stop=shard.stop,
            image_size=image_size,
            uncertainty_sum=float(sum(row["uncertainty"] for row in rows)),
            elapsed_sec=round(time.perf_counter() - started, 3),
            tar=tar_info,
            rows=rows_written.result(),
            uncertainty_histogram=histogram.tolist() if self.spec.uncertainty_maps else None,
            precision=precision_of(self.models),
            job=self.spec.job,
        )
        write_json(self.folder / shard.marker, stats.to_json())
        return stats

    def _write_rows(self, shard: Shard, rows: list[dict[str, Any]]) -> FileInfo:
        path = self.folder / f"{shard.stem}.parquet"
        with atomic_file(path, sync_name=False) as file:
            pq.write_table(pa.Table.from_pylist(rows, rows_schema(shard.files is not None)), file)
            return FileInfo.written(file, path, len(rows))

    @staticmethod
    def _batch_files(shard: Shard, batch: range) -> Sequence[str] | None:
        if shard.files is None:
            return None
        return shard.files[batch.start - shard.start : batch.stop - shard.start]

    def make(self, indices: Sequence[int], files: Sequence[str] | None = None) -> Candidates:
        """Sample (or read `files`) and label one batch.

        Raises ShardError for an unreadable photograph, a failure of the device or an uncertainty
        that is not finite; ValueError as `models`.
        """
        models = self.models  # what fails here fails for every shard
        try:
            return self._label(models, indices, files)
        except SHARD_ERRORS as error:
            known = isinstance(error, ValueError | OSError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            raise ShardError(" ".join(reason.split())) from error

    def _label(
        self, models: Models, indices: Sequence[int], files: Sequence[str] | None
    ) -> Candidates:
        generator, labeler = models
        with torch.inference_mode():
            if files is None:
                images, features = generator.sample(indices)
            else:
                from factory_core.annotated.annotations import read_image

                images = torch.stack([read_image(f, generator.image_size) for f in files])
                features = generator.encode(images, indices)
            height, width = images.shape[-2:]
            how = self.spec.labeler
            prediction = labeler.predict(features, (height, width), how.vote, how.uncertainty)
        masks = prediction.mask.cpu().numpy()
        uncertainty = prediction.uncertainty.cpu().numpy()
        for i in np.flatnonzero(~np.isfinite(uncertainty)).tolist():
            raise ValueError(f"sample {indices[i]} has uncertainty {uncertainty[i]}, not a number")
        levels = None
        if self.spec.uncertainty_maps:
            maps = prediction.pixel_uncertainty.cpu().numpy()
            levels = uncertainty_levels(maps, len(self.spec.palette))
        rows = [
            self._row(index, masks[i], uncertainty[i], files[i] if files else None)
            for i, index in enumerate(indices)
        ]
        return Candidates(images.cpu().numpy(), masks, levels, rows)

    def encode(self, candidates: Candidates) -> Iterator[list[Member]]:
        """Members of each sample of a batch."""
        palette, image_format = self.spec.palette, self.spec.image_format
        for i, row in enumerate(candidates.rows):
            image, mask = candidates.images[i], candidates.masks[i]
            levels = None if candidates.levels is None else candidates.levels[i]
            yield encode_sample(row["key"], image, mask, palette, _meta(row), image_format, levels)

    def _append(self, tar: TarWriter, candidates: Candidates) -> None:
        for members in self.encode(candidates):
            tar.add(members)

    def _row(
        self, index: int, mask: np.ndarray, uncertainty: np.float32, file: str | None
    ) -> dict[str, Any]:
        classes = len(self.spec.palette)
        counts = np.bincount(mask.ravel(), minlength=256)
        assert counts[classes:255].sum() == 0, f"class ids beyond {classes - 1} in sample {index}"
        row = {
            "key": sample_key(index),
            "index": index,
            "seed": sample_seed(self.spec.generator.seed, index),
            "uncertainty": float(uncertainty),
            "class_pixels": counts[:classes].tolist(),
        }
        return row if file is None else {**row, "source": Path(file).name}


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    """Content of KEY.json: the row without the key, which is the file's name."""
    return {name: value for name, value in row.items() if name != "key"}


def rows_schema(from_files: bool) -> pa.Schema:
    """Columns of a candidate parquet; `source` is the photograph's file name."""
    fields = [
        ("key", pa.string()),
        ("index", pa.int64()),
        ("seed", pa.int64()),
        ("uncertainty", pa.float32()),
        ("class_pixels", pa.list_(pa.int64())),
    ]
    return pa.schema([*fields, ("source", pa.string())] if from_files else fields)
