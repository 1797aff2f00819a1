"""Ways of making images that are timed in turn, and the table of their speeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.counting import Work, peak_bandwidth, peak_flops, seconds

PLAIN = "plain"  # the loop in float32, as it stands in examples
STRONG = "plain, autocast"  # the same with what any practitioner adds: two lines


@dataclass
class Run:
    """One way of making images: its functions, their cost, their times."""

    name: str
    dtype: torch.dtype
    batch_size: int
    images: Callable[[], Tensor]
    encode: Callable[[Tensor], object]
    work: Work  # of one image with its features
    image_seconds: list[float] = field(default_factory=list)  # of one batch each
    feature_seconds: list[float] = field(default_factory=list)

    def once(self, device: torch.device, keep: bool = True) -> None:
        """One batch, timed."""
        image_seconds, feature_seconds = self.time(device)
        if keep:
            self.image_seconds.append(image_seconds)
            self.feature_seconds.append(feature_seconds)

    def time(self, device: torch.device) -> tuple[float, float]:
        """Seconds of one batch of images, and the additional seconds of its features."""
        made: list[Tensor] = []
        image_seconds = seconds(lambda: made.append(self.images()), device)
        return image_seconds, seconds(lambda: self.encode(made[0]), device)

    @property
    def seconds(self) -> float:
        """Median time of one image with its features, in seconds."""
        pairs = zip(self.image_seconds, self.feature_seconds, strict=True)
        return statistics.median(a + b for a, b in pairs) / self.batch_size

    @property
    def feature_share(self) -> float:
        """The cost of features relative to sampling alone."""
        pairs = zip(self.image_seconds, self.feature_seconds, strict=True)
        return statistics.median(b / a for a, b in pairs)


@dataclass
class OnePass(Run):
    """Images and features come from one pass; `encode` repeats the images."""

    def time(self, device: torch.device) -> tuple[float, float]:
        alone, together = super().time(device)
        return alone, together - alone


class Subject(Protocol):
    """The network that is measured."""

    title: str
    parts: dict[str, float]  # floating-point operations of the parts of a pass
    work: Work  # of one image with its features, our way

    def cost(self) -> str:
        """The computation of an image, in words."""
        ...

    def runs(self, batch_size: int) -> list[Run]:
        """The runs to compare at one batch size."""
        ...


def parts_table(subject: Subject) -> Table:
    """How the arithmetic of a pass is distributed."""
    total = sum(subject.parts.values())
    table = Table(title=f"a pass: {total / 1e9:.5g} GFLOP")
    table.add_column("part")
    table.add_column("share", justify="right")
    for part, flops in subject.parts.items():
        table.add_row(part, f"{100 * flops / total:.1f} %")
    return table


def summary(subject: Subject, peak: float | None, bandwidth: float | None) -> str:
    """The cost of an image, and the best images/s of a device with these rates."""
    work = subject.work
    lines = [
        f"{subject.cost()}: {work.flops / 1e12:.4g} TFLOP of products, "
        f"{work.other_bytes / 1e9:.4g} GB moved by other layers"
    ]
    if peak and bandwidth:
        products, other = work.flops / peak, work.other_bytes / bandwidth
        lines.append(
            f"at {peak / 1e12:g} TFLOP/s and {bandwidth / 1e9:g} GB/s: {1 / products:.3g} images/s "
            f"by the products alone, {1 / (products + other):.3g} with all layers"
        )
    return "\n".join(lines)


def results(runs: list[Run], device: torch.device) -> list[dict[str, Any]]:
    """The figures of each run by column of the table."""
    peaks = {dtype: peak_flops(device, dtype) for dtype in {run.dtype for run in runs}}
    bandwidth = peak_bandwidth(device)
    baselines = {
        f"x {name}": {run.batch_size: run.seconds for run in runs if run.name == name}
        for name in (STRONG, PLAIN)
    }
    rows = []
    for run in runs:
        peak = peaks[run.dtype]
        bound = run.work.flops / peak + run.work.other_bytes / bandwidth
        rows.append(
            {
                "run": f"{run.name}, {str(run.dtype).removeprefix('torch.')}",
                "batch": run.batch_size,
                "images/s": 1 / run.seconds,
                **{
                    times: of.get(run.batch_size, float("nan")) / run.seconds
                    for times, of in baselines.items()
                },
                "features": run.feature_share,
                "peak": peak / 1e12,
                "used": run.work.flops / run.seconds / peak,
                "bound": run.work.flops / peak / bound,
                "image_seconds": run.image_seconds,
                "feature_seconds": run.feature_seconds,
            }
        )
    return rows


def results_table(rows: list[dict[str, Any]], title: str) -> Table:
    """The figures, without the single repeats.

    `features` is their time relative to sampling, `peak` the TFLOP/s of a plain product, `used` the
    utilisation of it, and `bound` the utilisation that memory would allow.
    """
    table = Table(title=title)
    shares = ("features", "used", "bound")
    for key in rows[0]:
        if not key.endswith("_seconds"):
            table.add_column(key, justify="left" if key == "run" else "right")
    for row in rows:
        cells = []
        for key, value in row.items():
            if key in shares:
                cells.append(f"{100 * value:.1f} %")
            elif not key.endswith("_seconds"):
                cells.append(f"{value:.3g}" if isinstance(value, float) else str(value))
        table.add_row(*cells)
    return table
