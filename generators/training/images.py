"""The images that a generator is trained on: decoded once, kept at the size of the model.

Decoding a photograph of 12 megapixels takes longer than a training step, and a damaged one must be
found before the first step, not when it is drawn.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from factory_core.images import list_images, read_image
from factory_core.machine import available_cpus, memory_bytes

MEMORY_SHARE = 0.25  # of the machine's memory; more pixels than that go to a file
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class TrainingImages(Dataset[Tensor]):
    """Images uint8 `[3, H, W]` of one size.

    `pixels` is uint8 `[N, 3, H, W]`, in memory or mapped to a file. `digests` holds the N names, in
    order, with the first hexadecimal digits of the sha256 of their pixels; `damaged` the files that
    were left out, with one line each. `is_grey` means R = G = B in every pixel.
    """

    pixels: np.ndarray
    digests: Mapping[str, str]
    damaged: Mapping[str, str] = field(default_factory=dict)
    is_grey: bool = False

    @classmethod
    def of(cls, images: Tensor) -> TrainingImages:
        """Images uint8 `[N, 3, H, W]` that are no files; their names are their numbers."""
        pixels = images.numpy()
        digests = {str(number): _digest(image) for number, image in enumerate(pixels)}
        return cls(pixels, digests, {}, all(map(_is_grey, pixels)))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.pixels[index]))


def read_training_images(
    folder: Path, size: int, scratch: Path, on_progress: Callable[[int, int], None]
) -> TrainingImages:
    """The images of `folder`, resized to `size` x `size`; damaged ones are left out and listed.

    They stay in memory if they take at most MEMORY_SHARE of it, else in a file in `scratch` that
    vanishes with the process. `on_progress` is called with the number read and the number of all.

    Raises FileNotFoundError, NotADirectoryError or ValueError as `list_images`.
    """
    paths = list_images(folder)
    shape = (len(paths), 3, size, size)
    pixels: np.ndarray | None = None
    file = None
    if np.prod(shape, dtype=np.int64) <= MEMORY_SHARE * memory_bytes():
        pixels = np.empty(shape, np.uint8)
    else:
        scratch.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - the map keeps it open
    digests: dict[str, str] = {}
    damaged: dict[str, str] = {}
    is_grey = True
    for number, (path, image) in enumerate(zip(paths, _read_all(paths, size), strict=True), 1):
        if isinstance(image, str):
            damaged[path.name] = image
        else:
            if pixels is not None:
                pixels[len(digests)] = image
            if file is not None:
                file.write(image.tobytes())  # a full disk is an error here, and a crash in a map
            digests[path.name] = _digest(image)
            is_grey = is_grey and _is_grey(image)
        on_progress(number, len(paths))
    found = (len(digests), *shape[1:])
    if file is not None:
        file.flush()
        pixels = (
            np.memmap(file, np.uint8, "r", shape=found) if digests else np.empty(found, np.uint8)
        )
    assert pixels is not None
    return TrainingImages(pixels[: len(digests)], digests, damaged, is_grey)


def _read_all(paths: Sequence[Path], size: int) -> Iterator[np.ndarray | str]:
    """Each image uint8 `[3, size, size]`, or why it cannot be read; in order, on all cores."""
    with ThreadPoolExecutor(available_cpus()) as pool:  # Pillow decodes and resizes in parallel
        try:
            yield from pool.map(partial(_read, size=size), paths)
        finally:
            pool.shutdown(cancel_futures=True)


def _read(path: Path, size: int) -> np.ndarray | str:
    try:
        return read_image(path, (size, size)).numpy()
    except (ValueError, OSError) as error:
        return str(error)


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:DIGEST_DIGITS]


def _is_grey(image: np.ndarray) -> bool:
    return bool((image[0] == image[1]).all() and (image[0] == image[2]).all())
