"""Whether samples are near-copies of training images, or of each other.

Images are compared as small pictures: a copy keeps its layout, whatever its colours. The distance
of two images is 1 - ρ, where ρ is the correlation of their pixels after the mean picture of the
training set is taken away: 0 for a copy, about 1 for unrelated images. Each training image is tried
in its eight flips and quarter turns, and the best of these again at a few crops and shifts, so that
a copy is found if it was flipped, turned, cropped by up to a tenth, made noisy or recoloured.

What "near" means depends on the domain: two faces are more alike than two smears. So the distances
are calibrated by a control, the distances of real images to their nearest training image. Each
image of the control is left out of the training images when these are searched. If nothing was
memorised, one sample in a hundred is nearer than the control's first percentile. A sample is called
a near-copy if its distance is less than half of that, which chance does not explain.

A copied part (a single cell, one half of a face) is not seen, nor is a copy that was rotated by
other angles or warped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import grid_sample, interpolate

PERCENTILE = 1.0  # of the control
COPY_SHARE = 0.5  # of the control's percentile; nearer samples are near-copies
ALIKE = 0.02  # a percentile below this: the real images themselves have near-duplicates
SEARCH_PX, CHECK_PX = 12, 32  # sides of the pictures that are searched, and of those compared
CANDIDATES = 6  # nearest by search that are compared
CROPS = (1.0, 0.95, 0.9)  # shares of the training image's side
SHIFT_PX = 2  # either way, in compared pictures
SYMMETRIES = 8
CHUNK = 64  # samples searched at once
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Thumbnails:
    """N images in two sizes, 0-255: `search` float32 and `check` uint8, both `[N, 3, s, s]`."""

    search: torch.Tensor
    check: torch.Tensor

    def __len__(self) -> int:
        return len(self.search)

    @classmethod
    def of(cls, images: Iterable[np.ndarray | torch.Tensor]) -> Thumbnails:
        """From one or more images uint8 `[3, H, W]` of any sizes; one is in memory at a time."""
        search, check = [], []
        for image in images:
            pixels = torch.from_numpy(np.array(np.asarray(image), order="C"))
            shrunk = _shrunk(pixels[None].float(), CHECK_PX)
            search.append(_shrunk(shrunk, SEARCH_PX))
            check.append(shrunk.round().clamp(0, 255).byte())
        return cls(torch.cat(search), torch.cat(check))

    def select(self, numbers: Sequence[int]) -> Thumbnails:
        """The pictures of these images."""
        return Thumbnails(self.search[list(numbers)], self.check[list(numbers)])


@dataclass(frozen=True)
class Match:
    """The nearest training image of a sample: its number, the distance, and the symmetry (0-7).

    `turned(training image, symmetry)` lies as the sample does.
    """

    nearest: int
    distance: float
    symmetry: int


@dataclass(frozen=True)
class Memorisation:
    """Matches of the samples and of the control, in order, and what they say."""

    matches: list[Match]
    control: np.ndarray
    """distances float64 `[M]` of real images to the nearest other training image"""

    @property
    def percentile(self) -> float:
        """The control's first percentile: one real image in a hundred is nearer."""
        return float(np.percentile(self.control, PERCENTILE))

    @property
    def share_near(self) -> float:
        """Share of the samples nearer than `percentile`; 0.01 is expected."""
        return float(np.mean([m.distance < self.percentile for m in self.matches]))

    @property
    def copies(self) -> list[int]:
        """Numbers of the near-copies, nearest first."""
        limit = COPY_SHARE * self.percentile
        return [i for i in self.worst if self.matches[i].distance < limit]

    @property
    def worst(self) -> list[int]:
        """Numbers of all samples, nearest to a training image first."""
        return sorted(range(len(self.matches)), key=lambda i: self.matches[i].distance)

    @property
    def has_alike(self) -> bool:
        """Whether the training images hold so many near-duplicates that copies cannot be told."""
        return self.percentile < ALIKE


def memorisation(
    samples: Thumbnails,
    training: Thumbnails,
    control: Sequence[int],
    progress: Progress | None = None,
) -> Memorisation:
    """Compare samples with the training images; `control` are numbers of training images.

    `progress` is called with the number of images done, samples and control together. Raises
    ValueError for fewer than two training images.
    """
    if len(training) < 2:
        raise ValueError(f"found {len(training)} training image(s), expected at least 2")
    say = progress or (lambda _: None)
    index = _Index(training)
    matches = index.nearest(samples, None, say)
    theirs = index.nearest(training.select(control), control, lambda done: say(len(samples) + done))
    return Memorisation(matches, np.array([m.distance for m in theirs]))


@dataclass(frozen=True)
class Twin:
    """Sample `number`, and the earlier sample that it repeats: `match.nearest`."""

    number: int
    match: Match


def duplicates(samples: Thumbnails, limit: float, progress: Progress | None = None) -> list[Twin]:
    """Samples whose nearest other sample is nearer than `limit`; of a pair, only the later one."""
    if len(samples) < 2:
        return []
    found = _Index(samples).nearest(samples, range(len(samples)), progress or (lambda _: None))
    return [Twin(i, m) for i, m in enumerate(found) if m.distance < limit and m.nearest < i]


def turned(images: torch.Tensor, symmetry: int) -> torch.Tensor:
    """Images `[..., H, W]` under one of the eight symmetries of the square; 0 changes nothing."""
    flipped = images.flip(-1) if symmetry >= 4 else images
    return flipped.rot90(symmetry % 4, (-2, -1))


class _Index:
    """Training images to search, without the mean picture of all of them in all symmetries."""

    def __init__(self, training: Thumbnails):
        self._check = training.check
        self._check_mean = _mean_turned(training.check.sum(0, dtype=torch.int64) / len(training))
        self._search_mean = _mean_turned(training.search.mean(0))
        self._rows = _normalised(training.search - self._search_mean)  # [N, D]

    def nearest(
        self, samples: Thumbnails, own: Sequence[int] | None, progress: Progress
    ) -> list[Match]:
        """A match per sample; `own` are their numbers among the training images, left out."""
        matches: list[Match] = []
        n = len(self._rows)
        for start in range(0, len(samples), CHUNK):
            rows = slice(start, start + CHUNK)
            centred = samples.search[rows] - self._search_mean
            # Turning the sample back is turning all training images.
            turns = [turned(centred, _inverse(s)) for s in range(SYMMETRIES)]
            near = torch.cat([_normalised(t) @ self._rows.T for t in turns], dim=1)  # [n, 8 N]
            if own is not None:
                for row, number in enumerate(own[rows]):
                    near[row, number::n] = -2
            best = near.topk(min(CANDIDATES, SYMMETRIES * (n - 1)), dim=1).indices
            matches += self._compared(samples.check[rows], best % n, best // n)
            progress(len(matches))
        return matches

    def _compared(
        self, samples: torch.Tensor, numbers: torch.Tensor, symmetries: torch.Tensor
    ) -> Iterator[Match]:
        """The best of each sample's candidates, both int64 `[N, C]`, by aligned correlation."""
        pairs = zip(numbers.flatten().tolist(), symmetries.flatten().tolist(), strict=True)
        pictures = torch.stack([turned(self._check[i], s) for i, s in pairs]).float()
        ours, rho = samples - self._check_mean, []
        for crop in CROPS:
            centred = _cropped(pictures, crop) - self._check_mean
            rho.append(_best_shift(ours, centred.unflatten(0, tuple(numbers.shape))))
        value, column = torch.stack(rho).amax(dim=0).max(dim=1)
        for row, (i, correlation) in enumerate(zip(column.tolist(), value.tolist(), strict=True)):
            found = int(numbers[row, i]), int(symmetries[row, i])
            yield Match(found[0], max(0.0, 1 - correlation), found[1])


def _mean_turned(picture: torch.Tensor) -> torch.Tensor:
    return torch.stack([turned(picture, s) for s in range(SYMMETRIES)]).mean(0)


def _inverse(symmetry: int) -> int:
    """The symmetry that undoes this one; reflections undo themselves."""
    return symmetry if symmetry >= 4 else -symmetry % 4


def _best_shift(samples: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """The largest correlation of `[N, 3, s, s]` with `[N, C, 3, s, s]` over all shifts, `[N, C]`.

    The middle of a sample is compared with every window of that size. Products of all windows come
    from one Fourier transform: those that would wrap around are not used.
    """
    side, shifts = samples.shape[-1] - 2 * SHIFT_PX, 2 * SHIFT_PX + 1
    middle = samples[..., SHIFT_PX : SHIFT_PX + side, SHIFT_PX : SHIFT_PX + side]
    kernel = torch.zeros_like(samples)
    kernel[..., :side, :side] = _normalised(middle).view_as(middle)
    spectrum = (torch.fft.rfft2(pictures) * torch.fft.rfft2(kernel).conj()[:, None]).sum(dim=2)
    # The kernel's mean is 0, so that of the window plays no part in the product.
    product = torch.fft.irfft2(spectrum, s=samples.shape[-2:])[..., :shifts, :shifts]
    window = torch.ones(shifts, samples.shape[-1]).tril(side - 1).triu()
    count = 3 * side * side
    total = window @ pictures.sum(dim=2) @ window.T
    square = window @ (pictures**2).sum(dim=2) @ window.T
    length = (square - total**2 / count).clamp(min=1e-12).sqrt()
    return (product / length).flatten(2).amax(dim=2)


def _normalised(pictures: torch.Tensor) -> torch.Tensor:
    """Rows without their mean and of length 1; the last axis of rows, or all of pictures."""
    rows = pictures.flatten(1) if pictures.ndim == 4 else pictures
    rows = rows - rows.mean(dim=-1, keepdim=True)
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def _cropped(pictures: torch.Tensor, share: float) -> torch.Tensor:
    """The middle of each picture, enlarged to its size."""
    side = pictures.shape[-1]
    if share == 1:
        return pictures
    # Sampled at fractional positions: a crop by whole pixels would be too coarse.
    line = torch.linspace(-share, share, side) * (side - 1) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([x, y], dim=-1).expand(len(pictures), -1, -1, -1)
    return grid_sample(pictures, grid, align_corners=False)


def _shrunk(pixels: torch.Tensor, side: int) -> torch.Tensor:
    return interpolate(pixels, (side, side), mode="bilinear", antialias=True)
