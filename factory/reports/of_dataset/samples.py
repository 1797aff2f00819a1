"""Which samples of a dataset are shown, and their small pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from factory.reports.choosing import read_chosen
from factory.reports.page import Tile
from factory.reports.page.parts import percent
from factory.reports.page.pictures import mask_uri, picture_uri
from factory_core.dataset import SAMPLES_NAME, Dataset, Sample
from factory_core.dataset.rows import class_pixels_of

GALLERY = 288  # samples, at most
GALLERY_BYTES = 4_500_000  # of their pictures, as text; of noisy ones, fewer are shown
EXTREMES = 8  # of the most and of the least certain
STRIP, SHORT_STRIP = 8, 4  # samples of a class
FEW_CLASSES = 12  # with more, strips are short
LISTED = 4  # classes named below an enlarged sample


@dataclass(frozen=True)
class Rows:
    """samples.parquet: `table` (key, shard, kept, reason, uncertainty), pixels int64 `[N, K]`."""

    table: pd.DataFrame
    pixels: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Numbers of the kept rows, int64."""
        return np.flatnonzero(self.table.kept)

    def named(self, numbers: Sequence[int]) -> Iterator[tuple[str, str, bool]]:
        """Key, shard and kept of these rows."""
        columns = self.table[["key", "shard", "kept"]].iloc[list(numbers)]
        return columns.itertuples(index=False, name=None)

    @property
    def shares(self) -> np.ndarray:
        """Share of each class in the pixels of each sample, float64 `[N, K]`."""
        return self.pixels / np.maximum(self.pixels.sum(axis=1, keepdims=True), 1)


def read_rows(data: Dataset) -> Rows:
    """The rows of all candidates."""
    columns = ["key", "shard", "kept", "reason", "uncertainty", "class_pixels"]
    with data.store.local_copy(SAMPLES_NAME) as path:
        found = pq.read_table(path, columns=columns)
    return Rows(found.drop(["class_pixels"]).to_pandas(), class_pixels_of(found))


@dataclass(frozen=True)
class Chosen:
    """Numbers of the rows to show, in order."""

    gallery: list[int]
    certain: list[int]
    uncertain: list[int]
    dropped: list[int]
    classes: list[list[int]]

    @property
    def all(self) -> list[int]:
        """Each row once."""
        parts = [self.gallery, self.certain, self.uncertain, self.dropped, *self.classes]
        return sorted({i for part in parts for i in part})


def choose(rows: Rows) -> Chosen:
    """An even spread over the dataset, both ends of the uncertainty, examples of each class."""
    uncertainty = rows.table.uncertainty.to_numpy()
    kept, dropped = rows.kept, np.flatnonzero(~rows.table.kept.to_numpy())
    by_uncertainty = kept[np.argsort(uncertainty[kept], kind="stable")]
    shares = rows.shares
    length = STRIP if shares.shape[1] <= FEW_CLASSES else SHORT_STRIP
    strips = []
    for k in range(shares.shape[1]):
        present = kept[shares[kept, k] > 0]
        richest = present[np.argsort(-shares[present, k], kind="stable")]
        strips.append(spread(richest[: max(length, len(richest) // 2)], length))
    return Chosen(
        spread(kept, GALLERY),
        by_uncertainty[:EXTREMES].tolist(),
        by_uncertainty[::-1][:EXTREMES].tolist(),
        dropped[np.argsort(-uncertainty[dropped], kind="stable")][:EXTREMES].tolist(),
        strips,
    )


def spread(numbers: np.ndarray, most: int) -> list[int]:
    """At most this many of the numbers, evenly spaced."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return numbers[places].tolist()


def make_tiles(data: Dataset, rows: Rows, numbers: Sequence[int]) -> dict[int, Tile]:
    """Tiles by row number; those of dropped samples only if their candidates still exist."""
    number_of = dict(zip(rows.table.key.iloc[list(numbers)], numbers, strict=True))
    found = {}
    for sample in read_chosen(data, rows.named(numbers)):
        number = number_of[sample.key]
        found[number] = _tile(data, rows, number, sample)
    return found


def within_budget(tiles: Sequence[Tile], budget: int = GALLERY_BYTES) -> list[Tile]:
    """Evenly spaced tiles of at most `budget` bytes: half of them, a quarter, ... if needed."""
    shown = list(tiles)
    while len(shown) > 1 and sum(len(t.picture) + len(t.mask) for t in shown) > budget:
        shown = shown[::2]
    return shown


def _tile(data: Dataset, rows: Rows, number: int, sample: Sample) -> Tile:
    shares, classes = rows.shares[number], data.manifest.classes
    uncertainty = float(rows.table.uncertainty.iloc[number])
    largest = [k for k in np.argsort(-shares, kind="stable") if shares[k] > 0][:LISTED]
    listed = ", ".join(f"{classes[k]} {percent(shares[k])}" for k in largest)
    return Tile(
        name=f"sample {sample.key}",
        picture=picture_uri(sample.image),
        mask=mask_uri(sample.mask, data.manifest.palette),
        caption=f"{uncertainty:#.3g} nats",
        order=uncertainty,
        classes=np.flatnonzero(shares > 0).tolist(),
        details=listed,
    )
