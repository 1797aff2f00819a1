"""What dropping costs each class: its share of the pixels before and after the selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from factory_core.dataset import SAMPLES_NAME, Manifest
from factory_core.dataset.rows import class_pixels_of
from factory_core.storage import Place, open_store

MAX_LOSS = 0.25  # part of its share that a class may lose without a warning


@dataclass(frozen=True)
class ClassShares:
    """Share of each class in the pixels of all candidates and of the kept ones, float64 `[K]`."""

    before: np.ndarray
    after: np.ndarray

    @property
    def changes(self) -> np.ndarray:
        """(after - before) / before, float64 `[K]`; nan for a class without any pixel."""
        with np.errstate(invalid="ignore"):
            return self.after / self.before - 1

    @classmethod
    def of(cls, all_pixels: np.ndarray, kept_pixels: np.ndarray) -> ClassShares:
        """From the pixels per class, integers `[K]`, of all and of the kept candidates."""
        return cls(all_pixels / max(all_pixels.sum(), 1), kept_pixels / max(kept_pixels.sum(), 1))


def read_class_shares(folder: Place) -> ClassShares:
    """From samples.parquet of a finished dataset; one row group is in memory at a time."""
    pixels: list[np.ndarray] = []
    with open_store(folder).local_copy(SAMPLES_NAME) as path, pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["class_pixels", "kept"]):
            counts = class_pixels_of(pa.Table.from_batches([batch]))
            kept = batch["kept"].to_numpy(zero_copy_only=False)
            pixels.append(np.stack([counts.sum(axis=0), counts[kept].sum(axis=0)]))
    all_pixels, kept_pixels = np.sum(pixels, axis=0)
    return ClassShares.of(all_pixels, kept_pixels)


def show_class_shares(manifest: Manifest, folder: Place, console: Console) -> None:
    """Print the shares of a finished dataset, and a warning for each class that loses too much.

    Prints nothing if nothing was dropped.
    """
    if not manifest.totals.dropped:
        return
    shares = read_class_shares(folder)
    console.print(render_table(shares, manifest.classes))
    policy = manifest.recipe.get("selection", {}).get("policy", "uncertain")
    for line in warnings(shares, manifest.classes, policy):
        console.print(line, style="yellow", markup=False, soft_wrap=True)


def render_table(shares: ClassShares, classes: Sequence[str]) -> Table:
    """A table for the terminal: a row per class."""
    table = Table("class", title="What dropping costs: share of the pixels")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for name, before, after, change in zip(
        classes, shares.before, shares.after, shares.changes, strict=True
    ):
        changed = "" if np.isnan(change) else f"{change:+.1%}"
        table.add_row(escape(name), f"{before:.2%}", f"{after:.2%}", changed)
    return table


def warnings(shares: ClassShares, classes: Sequence[str], policy: str) -> list[str]:
    """One line for each class that loses more than `MAX_LOSS` of its share."""
    hint = "--set selection.policy=none keeps all candidates"
    if policy != "per_class":
        hint = f"--set selection.policy=per_class drops fewer of them, {hint}"
    return [
        f"warning: dropping costs class '{name}' {-change:.0%} of its share of the pixels: {hint}"
        for name, change in zip(classes, shares.changes, strict=True)
        if change < -MAX_LOSS
    ]
