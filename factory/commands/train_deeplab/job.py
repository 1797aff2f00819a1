"""The input of `train-deeplab`: datasets, annotated folders, settings, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from factory_core.dataset import (
    CANDIDATES_DIR,
    JOB_NAME,
    MANIFEST_NAME,
    SAMPLES_NAME,
    default_palette,
    read_manifest,
)
from factory_core.images.files import counted
from factory_core.pictures import DEFAULT_PICTURES, Pictures, remembered
from factory_core.storage import Store, open_store

if TYPE_CHECKING:
    from factory.commands.train_deeplab.tars import TarReader
    from train_seg.config import SegmenterConfig
    from train_seg.data.foreign import ForeignTars
    from train_seg.data.training_data import LabeledImages

    Input = str | LabeledImages | ForeignTars


@dataclass(frozen=True)
class SegmenterJob:
    """Datasets and annotated folders to train on, and how.

    Datasets may be in buckets; text is a pattern of tars, which `tars` reads. `then` are those of a
    second stage. `mix` is the share of each of `data` in the samples; `init` names a generator or a
    segmenter to start from; `pictures` is how annotated folders are read, as far as it is given.
    """

    data: Sequence[Path | Store | str]
    out: Path
    val: Path | None
    config: SegmenterConfig
    device: str
    mix: Sequence[float] | None = None
    wandb: bool = False
    init: str | None = None
    then: Sequence[Path | Store | str] = ()
    pictures: Pictures = DEFAULT_PICTURES
    tars: TarReader | None = None

    @cached_property
    def scaled(self) -> Pictures:
        """How pictures are read: as for the first dataset or `init`, else as the folders need."""
        from factory_core.annotated.layouts import open_layout
        from factory_core.images import measured

        every = [*self.data, *self.then]
        known = remembered(self.init)
        if (dataset := next((read_manifest(d) for d in every if is_dataset(d)), None)) is not None:
            known = Pictures.model_validate(dataset.recipe.get("pictures", {}))
        pictures = self.pictures.over(known)
        for folder in every:
            if isinstance(folder, Path) and not is_dataset(folder):
                paths = [item.image for item in open_layout(folder).items]
                pictures = measured(pictures, paths)
        return pictures

    def absolute(self) -> SegmenterJob:
        """The same job for processes with another working directory: no path is relative."""

        def place(path: Path | Store | str) -> Path | Store | str:
            if isinstance(path, str):  # a pattern of tars
                return path if "://" in path else str(Path(path).absolute())
            return path.absolute() if isinstance(path, Path) else path

        init = self.init
        if init is not None and (path := Path(init).expanduser()).exists():
            init = str(path.absolute())  # else `package:` or a hub id, found on each node
        return replace(
            self,
            data=[place(path) for path in self.data],
            then=[place(path) for path in self.then],
            out=self.out.absolute(),
            val=None if self.val is None else self.val.absolute(),
            init=init,
        )

    def read(
        self, report: Callable[[Sequence[str]], None] = lambda _: None
    ) -> tuple[list[Input], list[Input], LabeledImages | None]:
        """Training data of both stages (datasets by path or URL) and validation images.

        `report` is called with the notes on every annotated folder.
        """
        every = [*self.data, *self.then]
        dataset = next((read_manifest(d) for d in every if is_dataset(d)), None)
        size, classes = self.config.image_size, None
        if dataset is not None:
            size, classes = size or dataset.image_size, dataset.classes
        data = [self._read(d, size, classes, report) for d in every]
        val = None
        if self.val is not None:
            val = labeled_images(self.val, size, classes, report, self.scaled)
        return data[: len(self.data)], data[len(self.data) :], val

    def _read(
        self,
        data: Path | Store | str,
        size: tuple[int, int] | None,
        classes: Sequence[str] | None,
        report: Callable[[Sequence[str]], None],
    ) -> Input:
        """One of the inputs; a dataset by its path or URL."""
        if isinstance(data, str):
            assert self.tars is not None  # `tar_reader` has checked it
            found = self.tars.open(data, classes)
            samples = counted(sum(tar.samples for tar in found.tars), "sample")
            report([f"{samples} in {counted(len(found.tars), 'tar')}, {data}"])
            return found
        if isinstance(data, Path) and not is_dataset(data):
            return labeled_images(data, size, classes, report, self.scaled)
        return str(data)


@dataclass(frozen=True)
class Crew:
    """The processes that train together.

    `cpus_per_worker` None divides the cores of this machine; on a cluster it means one core each.
    `address` None starts a local cluster for the duration of the training.
    """

    workers: int
    cpus_per_worker: int | None = None
    address: str | None = None

    @property
    def cpus(self) -> int:
        """Threads per worker."""
        from factory_core.machine import available_cpus

        if self.cpus_per_worker is not None:
            return self.cpus_per_worker
        return 1 if self.address is not None else max(1, available_cpus() // self.workers)


def is_dataset(folder: Path | Store | str) -> bool:
    """Whether `folder` is a dataset, finished or not, rather than an annotated folder or tars."""
    if isinstance(folder, str):
        return False
    store = open_store(folder)
    if store.exists(MANIFEST_NAME) or store.exists(SAMPLES_NAME):
        return True
    return (store / CANDIDATES_DIR).exists(JOB_NAME)


def labeled_images(
    folder: Path,
    size: tuple[int, int] | None,
    classes: Sequence[str] | None,
    report: Callable[[Sequence[str]], None],
    pictures: Pictures = DEFAULT_PICTURES,
) -> LabeledImages:
    """An annotated folder in memory, resized to `size` (None: the size of its first image).

    `classes` are the names expected, in id order; None takes the folder's. `report` is called with
    the notes on the folder.
    """
    from factory_core.annotated.annotations import annotated_size, read_annotations
    from train_seg.data.training_data import LabeledImages

    size = size or annotated_size(folder, pictures)
    annotations = read_annotations(folder, size, classes, pictures)
    count = counted(len(annotations.stems), "annotated image")
    report([f"{count} in {folder}", *annotations.notes])
    return LabeledImages(
        annotations.images,
        annotations.masks,
        annotations.classes,
        annotations.palette or default_palette(len(annotations.classes)),
        str(folder),
    )
