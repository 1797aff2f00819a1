"""The images that a generator is trained on: decoded once, kept at the size of the model.

Decoding a photograph of 12 megapixels takes longer than a training step, and a damaged one must be
found before the first step, not when it is drawn.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from factory_core.images import DEFAULT_PICTURES, Pictures, read_image
from factory_core.machine import available_cpus, memory_bytes
from generators.training.labels import find_labelled

MEMORY_SHARE = 0.25  # of the machine's memory; more pixels than that go to a file
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class TrainingImages(Dataset[Tensor | tuple[Tensor, int]]):
    """Images uint8 `[3, H, W]` of one size; each with its class number, if they have classes.

    `pixels` is uint8 `[N, 3, H, W]`, in memory or mapped to a file. `digests` holds the N names, in
    order, with the first hexadecimal digits of the sha256 of their pixels; `damaged` the files that
    were left out, with one line each. `is_grey` means R = G = B in every pixel. `labels` are the N
    class numbers, `classes` the names.
    """

    pixels: np.ndarray
    digests: Mapping[str, str]
    damaged: Mapping[str, str] = field(default_factory=dict)
    is_grey: bool = False
    labels: Sequence[int] | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, images: Tensor) -> TrainingImages:
        """Images uint8 `[N, 3, H, W]` that are no files; their names are their numbers."""
        pixels = images.numpy()
        digests = {str(number): _digest(image) for number, image in enumerate(pixels)}
        return cls(pixels, digests, {}, all(map(_is_grey, pixels)))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        image = self.image(index)
        return image if self.labels is None else (image, self.labels[index])

    def image(self, index: int) -> Tensor:
        """One image, without its class."""
        return torch.from_numpy(np.array(self.pixels[index]))


def read_training_images(
    folder: Path,
    size: int,
    scratch: Path,
    on_progress: Callable[[int, int], None],
    pictures: Pictures = DEFAULT_PICTURES,
    labels: str | None = None,
) -> TrainingImages:
    """The images of `folder`, resized to `size` x `size`; damaged ones are left out and listed.

    They stay in memory if they take at most MEMORY_SHARE of it, else in a file in `scratch` that
    vanishes with the process. `on_progress` is called with the number read and the number of all.
    `pictures` is measured (see `factory_core.images.measured`). `labels` says where their classes
    are.

    Raises FileNotFoundError, NotADirectoryError or ValueError as `find_labelled`.
    """
    found = find_labelled(folder, labels)
    total = len(found.paths)
    store = _Store((total, 3, size, size), scratch)
    digests: dict[str, str] = {}
    damaged: dict[str, str] = {}
    numbers: list[int] = []
    is_grey = True
    with closing(_read_all(found.paths, size, pictures)) as images:
        # After Ctrl-C, no more are decoded.
        for row, (name, image) in enumerate(zip(found.names, images, strict=True)):
            if isinstance(image, str):
                damaged[name] = image
            else:
                store.add(image)
                digests[name] = _digest(image)
                is_grey = is_grey and _is_grey(image)
                if found.labels is not None:
                    numbers.append(found.labels[row])
            on_progress(row + 1, total)
    kept = None if found.labels is None else numbers
    return TrainingImages(store.pixels(), digests, damaged, is_grey, kept, found.classes)


class _Store:
    """Room for images of a `shape` `[N, 3, H, W]`, in memory or in a file without a name."""

    def __init__(self, shape: tuple[int, ...], scratch: Path):
        self._shape, self._count = shape, 0
        self._array: np.ndarray | None = None
        if np.prod(shape, dtype=np.int64) <= MEMORY_SHARE * memory_bytes():
            self._array = np.empty(shape, np.uint8)
        else:
            scratch.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - the map keeps it open

    def add(self, image: np.ndarray) -> None:
        """Append an image uint8 `[3, H, W]`."""
        if self._array is not None:
            self._array[self._count] = image
        else:
            self._file.write(image.tobytes())  # a full disk is an error here, a crash in a map
        self._count += 1

    def pixels(self) -> np.ndarray:
        """The images that were added, uint8 `[n, 3, H, W]`."""
        if self._array is not None:
            return self._array[: self._count]
        self._file.flush()
        shape = (self._count, *self._shape[1:])
        return np.memmap(self._file, np.uint8, "r", shape=shape) if self._count else np.empty(shape)


def _read_all(
    paths: Sequence[Path], size: int, pictures: Pictures
) -> Generator[np.ndarray | str, None, None]:
    """Each image uint8 `[3, size, size]`, or why it cannot be read; in order, on all cores."""
    with ThreadPoolExecutor(available_cpus()) as pool:  # Pillow decodes and resizes in parallel
        try:
            yield from pool.map(partial(_read, size=size, pictures=pictures), paths)
        finally:
            pool.shutdown(cancel_futures=True)


def _read(path: Path, size: int, pictures: Pictures) -> np.ndarray | str:
    try:
        return read_image(path, (size, size), pictures).numpy()
    except (ValueError, OSError) as error:
        return str(error)


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:DIGEST_DIGITS]


def _is_grey(image: np.ndarray) -> bool:
    return bool((image[0] == image[1]).all() and (image[0] == image[2]).all())
