"""Robustness of a segmenter to the image corruptions of ImageNet-C.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), generalised to any image size by Michaelis et al., "Benchmarking
Robustness in Object Detection" (2019), and maintained in the package imagecorruptions-imaug. The
strengths were chosen for photographs of about 224 pixels; smaller images suffer more.
"""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from train_seg.config import INFERENCE_BATCH_SIZE
from train_seg.evaluation.evaluate import PredictFn
from train_seg.evaluation.metrics import Confusion, scores

SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = ("all", "common", "validation", "noise", "blur", "weather", "digital")
MIN_SIDE_PX = 32
POLICY_CORRUPTIONS = (
    "mPC: mean mIoU over the 15 common corruptions (of those measured) at all severities, as in "
    "Michaelis et al. 2019; rPC: mPC / mIoU of the clean images"
)


@dataclass(frozen=True)
class Robustness:
    """mIoU (0-1) under corruption: `miou[i][j]` of `names[i]` at `severities[j]`."""

    names: list[str]
    severities: list[int]
    miou: list[list[float]]
    clean: float
    common: list[str]
    """the names that enter the mean performance"""

    @property
    def mpc(self) -> float:
        """Mean performance under corruption; see POLICY_CORRUPTIONS."""
        return fmean(
            fmean(row)
            for name, row in zip(self.names, self.miou, strict=True)
            if name in self.common
        )

    @property
    def rpc(self) -> float | None:
        """Relative performance under corruption, None if the clean mIoU is 0."""
        return self.mpc / self.clean if self.clean else None

    @classmethod
    def average(cls, results: Sequence[Robustness]) -> Robustness:
        """The mean over several models, per corruption and severity."""
        first = results[0]
        miou = np.mean([r.miou for r in results], axis=0).tolist()
        clean = fmean(r.clean for r in results)
        return cls(first.names, first.severities, miou, clean, first.common)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = zip(self.names, self.miou, strict=True)
        return {
            "policy": POLICY_CORRUPTIONS,
            "severities": self.severities,
            "clean": self.clean,
            "mpc": self.mpc,
            "rpc": self.rpc,
            "miou": dict(rows),
        }


def corruption_names(asked: str) -> list[str]:
    """Names of a group (GROUPS) or of a list (`snow,fog`), in the order of the benchmark.

    Raises:
        ImportError: imagecorruptions-imaug is not installed, with the command that installs it.
        ValueError: a corruption is unknown.
    """
    library = _library()
    if asked in GROUPS:
        return list(library.get_corruption_names(asked))
    known = library.get_corruption_names("all")
    wanted = [name.strip() for name in asked.split(",")]
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, [*GROUPS, *known], n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(GROUPS)}"
            raise ValueError(f"unknown corruption '{name}': {hint}")
    return [name for name in known if name in wanted]


def check_size(size: tuple[int, int]) -> None:
    """Raise ValueError unless images of `size` (height, width) can be corrupted."""
    height, width = size
    if min(height, width) < MIN_SIDE_PX:
        raise ValueError(
            f"corruptions need images of at least {MIN_SIDE_PX} pixels per side, "
            f"found {width}x{height}"
        )


def corrupt(image: torch.Tensor, name: str, severity: int, seed: int) -> torch.Tensor:
    """An image uint8 `[3, H, W]` corrupted with `severity` 1-5; equal seeds give equal results.

    The caller's random state is left unchanged. H and W must be at least MIN_SIDE_PX.
    """
    library = _library()
    # Two functions have their own generator, the others draw from numpy's global one.
    own = {"seed": seed} if name in ("glass_blur", "impulse_noise") else {}
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints its workarounds
            pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            worse = library.corrupt(pixels, severity, name, **own)
    finally:
        np.random.set_state(state)
    return torch.from_numpy(np.ascontiguousarray(worse.transpose(2, 0, 1)))


def robustness(
    predict_fns: Sequence[PredictFn],
    images: torch.Tensor,
    masks: torch.Tensor,
    classes: Sequence[str],
    clean: Sequence[float],
    names: Sequence[str],
    severities: Sequence[int] = SEVERITIES,
    batch_size: int = INFERENCE_BATCH_SIZE,
    seed: int = 0,
    workers: int = 0,
) -> list[Robustness]:
    """mIoU of each of `predict_fns` under every corruption, on the same corrupted images.

    `images`, `masks` and `classes` are as for `evaluate`; `clean` is the mIoU of each function
    without corruption. `workers` processes corrupt the images, which takes longer than segmenting.

    Raises:
        ValueError: the images are too small to be corrupted, or as `evaluate`.
    """
    check_size((images.shape[2], images.shape[3]))
    cells = [(name, severity) for name in names for severity in severities]
    found = [[Confusion(len(classes)) for _ in cells] for _ in predict_fns]
    for cell, rows, batch in _corrupted(images, cells, batch_size, seed, workers):
        for predict_fn, confusions in zip(predict_fns, found, strict=True):
            confusions[cell].update(predict_fn(batch), masks[rows])
    columns, common = len(severities), _common(names)
    results = []
    for confusions, miou in zip(found, clean, strict=True):
        flat = [scores(confusion, classes).miou for confusion in confusions]
        grid = [flat[i : i + columns] for i in range(0, len(flat), columns)]
        results.append(Robustness(list(names), list(severities), grid, miou, common))
    return results


def _common(names: Sequence[str]) -> list[str]:
    """The benchmark's common corruptions among `names`; all of `names` if there are none."""
    benchmark = _library().get_corruption_names("common")
    return [name for name in names if name in benchmark] or list(names)


class _Batches(Dataset[tuple[int, int, torch.Tensor]]):
    """All corrupted batches: (cell, first row, images)."""

    def __init__(
        self, images: torch.Tensor, cells: Sequence[tuple[str, int]], batch_size: int, seed: int
    ):
        self._images, self._cells, self._seed = images, cells, seed
        starts = range(0, len(images), batch_size)
        self._items = [
            (c, start, start + batch_size) for c in range(len(cells)) for start in starts
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: int) -> tuple[int, int, torch.Tensor]:
        cell, start, end = self._items[item]
        name, severity = self._cells[cell]
        worse = [
            # The seed depends only on the image, so that cells differ only in the corruption.
            corrupt(image, name, severity, self._seed + row)
            for row, image in enumerate(self._images[start:end], start)
        ]
        return cell, start, torch.stack(worse)


def _corrupted(
    images: torch.Tensor,
    cells: Sequence[tuple[str, int]],
    batch_size: int,
    seed: int,
    workers: int,
) -> Iterator[tuple[int, slice, torch.Tensor]]:
    """Cell, rows and images of each batch, made in `workers` processes (0: in this process)."""
    loader = DataLoader(
        _Batches(images, cells, batch_size, seed), batch_size=None, num_workers=workers
    )
    for cell, start, batch in loader:
        yield cell, slice(start, start + len(batch)), batch


def _library() -> ModuleType:
    try:
        import imagecorruptions
    except ImportError as error:
        raise ImportError(
            f"corruptions need the package imagecorruptions-imaug ({error}): "
            "pip install 'dataset-factory[robustness]'"
        ) from None
    return imagecorruptions
