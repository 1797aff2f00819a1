"""A worker: generator and labeler loaded once, then shards of candidates sampled and labelled."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from factory.pipeline.failures import SHARD_ERRORS, ShardError
from factory.pipeline.job import Job
from factory.pipeline.models import LoadModels, Models, device_of, load_models, precision_of
from factory.pipeline.shard import Shard, ShardStats
from factory.pipeline.shard_writer import Candidates, Encoding, ShardWriter
from factory_core.dataset import (
    CANDIDATES_DIR,
    probability_levels,
    sample_key,
    uncertainty_levels,
)
from factory_core.device import (
    DeviceFailed,
    OutOfMemory,
    device_kind,
    has_failed,
    is_out_of_memory,
    naming_memory,
)
from factory_core.pictures import DEFAULT_PICTURES, Pictures
from factory_core.storage import Store
from generators.base import Generator, sample_seed
from generators.config import GeneratorConfig
from labelers.config import LabelerConfig


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs to know; small, because it travels to every worker.

    `out` is the dataset's folder; `generator` and `labeler` name weights that exist on the worker's
    machine; `job` is noted in every marker; `precision` is that of earlier shards, None if there
    are none; `load` replaces the real models in tests; `pictures` is how photographs are read.
    """

    out: Store
    generator: GeneratorConfig
    labeler: LabelerConfig
    encoding: Encoding
    device: str = "auto"
    job: str = ""
    precision: str | None = None
    load: LoadModels = field(default=load_models)
    pictures: Pictures = DEFAULT_PICTURES

    @classmethod
    def of(cls, job: Job, precision: str | None = None) -> WorkerSpec:
        """The spec for the workers of `job`."""
        dataset = job.recipe.recipe.dataset
        return cls(
            out=job.out.resolve(),
            generator=job.recipe.generator,
            labeler=job.recipe.labeler,
            encoding=Encoding(
                job.recipe.palette,
                dataset.image_format,
                dataset.uncertainty_maps,
                dataset.probabilities,
            ),
            device=job.device,
            job=job.identity.sha256,
            precision=precision,
            load=job.load,
            pictures=job.recipe.pictures,
        )


class ShardWorker:
    """Samples, labels and writes shards. Models are loaded on first use."""

    def __init__(self, spec: WorkerSpec):
        self.spec = spec
        self._models: Models | None = None
        self._ahead: dict[str, Future[torch.Tensor]] = {}  # photographs that are being read

    def __call__(self, shard: Shard) -> ShardStats:
        """Make and write one shard.

        Raises:
            ShardError: this shard cannot be made (see `make`).
            ValueError, OSError: no shard can be made: see `make` and `models`, or the disk is full.
        """
        candidates = self.spec.out / CANDIDATES_DIR
        threads = torch.get_num_threads()  # those of the worker
        batches = list(shard.batches(self.spec.generator.batch_size))
        try:
            with (
                ThreadPoolExecutor(threads) as readers,
                ShardWriter(candidates, shard, self.spec.encoding, threads) as writer,
            ):
                for number, (indices, files) in enumerate(batches):
                    for _, wanted in batches[number : number + 2]:
                        self._read_ahead(wanted or (), readers)
                    writer.write(self.make(indices, files))
                return writer.close(precision_of(self.models), self.spec.job, self.device)
        finally:
            self._ahead.clear()

    def _read_ahead(self, files: Sequence[str], readers: ThreadPoolExecutor) -> None:
        """Start reading photographs, so that those of the next batch are read during this one."""
        for file in files:
            if file not in self._ahead:
                size = self.models[0].image_size
                self._ahead[file] = readers.submit(self._read, file, size)

    def _read(self, file: str, size: tuple[int, int]) -> torch.Tensor:
        from factory_core.images import read_image

        return read_image(file, size, self.spec.pictures)

    @property
    def device(self) -> str:
        """The kind of device that computes."""
        return device_kind(device_of(self.models))

    @property
    def models(self) -> Models:
        """Generator and labeler.

        Raises ValueError if the labeler belongs to a different generator or to different blocks, or
        if earlier shards were computed in a different precision.
        """
        if self._models is None:
            generator, labeler = self.spec.load(
                self.spec.generator, self.spec.labeler, self.spec.device
            )
            labeler.check(generator)
            before, here = self.spec.precision, precision_of((generator, labeler))
            if before not in (None, here):
                raise ValueError(
                    f"{self.spec.out} was started with {before}, but auto means {here} here: resume"
                    " where it was started, or give another --out and set both"
                )
            self._models = generator, labeler
        return self._models

    def make(self, indices: Sequence[int], files: Sequence[str] | None = None) -> Candidates:
        """Sample (or read `files`) and label one batch.

        Raises:
            ShardError: an unreadable photograph, a numerical failure, an uncertainty that is not
                finite.
            DeviceFailed: the device is broken for this process.
            OutOfMemory: the batch does not fit into the device's memory, at the second attempt.
            ValueError: as `models`.
        """
        models = self.models  # a failure here affects every shard
        try:
            with naming_memory("generator.batch_size=", self.spec.generator.batch_size):
                return self._label_with_room(models, indices, files)
        except (OutOfMemory, DeviceFailed):
            raise
        except SHARD_ERRORS as error:
            if has_failed(device_of(models), error):
                raise DeviceFailed.of(error) from error
            is_known = isinstance(error, ValueError | OSError)
            reason = str(error) if is_known else f"{type(error).__name__}: {error}"
            raise ShardError(" ".join(reason.split())) from error

    def _label_with_room(
        self, models: Models, indices: Sequence[int], files: Sequence[str] | None
    ) -> Candidates:
        """As `_label`; once more with emptied caches if the memory of the device is full.

        Another process may have held it for a moment. Smaller batches are the user's to choose: in
        low precision the bytes of a sample depend on the size of the batch, which the recipe sets.
        """
        try:
            return self._label(models, indices, files)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return self._label(models, indices, files)

    @torch.inference_mode()
    def _label(
        self, models: Models, indices: Sequence[int], files: Sequence[str] | None
    ) -> Candidates:
        generator, labeler = models
        features = None
        if files is not None:
            ahead = [self._ahead.pop(file, None) for file in files]
            images = torch.stack(
                [
                    self._read(file, generator.image_size) if reading is None else reading.result()
                    for file, reading in zip(files, ahead, strict=True)
                ]
            )
            if labeler.needs_features:
                features = generator.encode(images, indices)
        elif labeler.needs_features:
            images, features = cast(Generator, generator).sample(indices)
        else:
            images = cast(Generator, generator).sample_images(indices)
        how, (height, width) = self.spec.labeler, images.shape[-2:]
        asked = self.spec.encoding.probabilities
        prediction = labeler.predict(
            images, features, (height, width), how.vote, how.uncertainty, asked
        )
        masks = prediction.mask.cpu().numpy()
        uncertainty = prediction.uncertainty.cpu().numpy()
        for i in np.flatnonzero(~np.isfinite(uncertainty)).tolist():
            raise ValueError(f"sample {indices[i]} has uncertainty {uncertainty[i]}, not a number")
        levels = None
        if self.spec.encoding.uncertainty_maps:
            maps = prediction.pixel_uncertainty.cpu().numpy()
            levels = uncertainty_levels(maps, len(self.spec.encoding.palette))
        probabilities = None
        if asked:
            probabilities = probability_levels(prediction.probabilities.cpu().numpy())
        rows = [
            self._row(index, masks[i], uncertainty[i], files[i] if files else None)
            for i, index in enumerate(indices)
        ]
        return Candidates(images.cpu().numpy(), masks, levels, probabilities, rows)

    def _row(
        self, index: int, mask: np.ndarray, uncertainty: np.float32, file: str | None
    ) -> dict[str, Any]:
        classes = len(self.spec.encoding.palette)
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
