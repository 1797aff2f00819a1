"""An evaluation as tables for the terminal, as Markdown, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from rich.table import Table

from train_seg.evaluation.boundary import POLICY_BOUNDARY
from train_seg.evaluation.evaluate import Evaluation, Spread
from train_seg.evaluation.metrics import POLICY_MIOU, POLICY_REFERENCE
from train_seg.evaluation.robustness import POLICY_CORRUPTIONS, Robustness

METRICS = {
    "miou": ("mIoU", POLICY_MIOU),
    "miou_reference": ("mIoU (reference)", POLICY_REFERENCE),
    "pixel_accuracy": ("pixel accuracy", "of the pixels that are not ignored"),
    "boundary_f1": ("boundary F1", POLICY_BOUNDARY),
}


@dataclass(frozen=True)
class Grid:
    """A table of strings: the first cell of a row is its name, the others are numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: bool = False
    """whether the last column is text"""

    def to_rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left")
        for i, name in enumerate(self.header):
            text = i == 0 or (self.notes and i == len(self.header) - 1)
            table.add_column(name, justify="left" if text else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """A heading and a pipe table."""
        ruler = ["---", *["---:"] * (len(self.header) - 1)]
        if self.notes:
            ruler[-1] = "---"
        cells = [self.header, ruler, *self.rows]
        lines = ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in cells]
        return "\n".join([f"### {self.title}", "", *lines, ""])


@dataclass(frozen=True)
class Report:
    """Scores of one or several models on their test images; those of several are averaged."""

    title: str
    models: list[str]
    evaluations: list[Evaluation]
    robustness: list[Robustness]
    """one per model, or empty"""

    @property
    def classes(self) -> list[str]:
        """Names in the order of their ids."""
        return self.evaluations[0].scores.classes

    @property
    def confusion(self) -> np.ndarray:
        """Pixels int64 `[K, K]` by true (row) and predicted class, summed over the models."""
        return np.sum([e.confusion for e in self.evaluations], axis=0)

    def over_models(self, metric: str) -> Spread:
        """Spread of a headline metric over the models."""
        return Spread.of([e.headline[metric] for e in self.evaluations])

    def over_splits(self, metric: str) -> Spread:
        """Spread over the parts of the test set, each averaged over the models."""
        parts = zip(*(e.splits for e in self.evaluations), strict=True)
        return Spread.of([Spread.of([e.headline[metric] for e in part]).mean for part in parts])

    def grids(self) -> list[Grid]:
        """All tables, the most important first."""
        grids = [self._class_grid(), self._total_grid()]
        if len(self.models) > 1:
            rows = [
                [name, *(_number(e.headline[m]) for m in METRICS)]
                for name, e in zip(self.models, self.evaluations, strict=True)
            ]
            names = [name for name, _ in METRICS.values()]
            grids.append(Grid("Each model", ["model", *names], rows))
        grids.append(self._confusion_grid())
        if self.robustness:
            grids.append(self._corruption_grid())
        return grids

    def to_markdown(self) -> str:
        """The tables as Markdown."""
        parts = [grid.to_markdown() for grid in self.grids()]
        if self.robustness:
            parts.append(POLICY_CORRUPTIONS + ".\n")
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; top-level numbers are means over the models."""
        images = [e.scores.images for e in self.evaluations]
        result: dict[str, Any] = {"title": self.title, "images": images[0]}
        for metric, (_, policy) in METRICS.items():
            result |= {metric: self.over_models(metric).mean, f"{metric}_policy": policy}
        ious = [self.iou(k).mean for k in range(len(self.classes))]
        result |= {
            "iou": dict(zip(self.classes, ious, strict=True)),
            "boundary_f1_of_class": dict(zip(self.classes, self._boundaries(), strict=True)),
            "class_pixels": dict(zip(self.classes, self._pixels(), strict=True)),
            "confusion": self.confusion.tolist(),
            "models": [
                {
                    "model": name,
                    "images": e.scores.images,
                    **e.headline,
                    "iou": dict(zip(self.classes, e.scores.iou, strict=True)),
                }
                for name, e in zip(self.models, self.evaluations, strict=True)
            ],
            "std_over_models": {m: self.over_models(m).std for m in METRICS},
        }
        if self.evaluations[0].splits:
            spreads = {m: self.over_splits(m) for m in METRICS}
            result["splits"] = {
                "of": "disjoint parts of the test images, each scored as a set",
                **{metric: asdict(spread) for metric, spread in spreads.items()},
            }
        if self.robustness:
            result["corruptions"] = {
                **Robustness.average(self.robustness).to_dict(),
                "models": [r.to_dict()["miou"] for r in self.robustness],
            }
        return result

    def iou(self, k: int) -> Spread:
        """Spread of the IoU of a class over the models."""
        return Spread.of([e.scores.iou[k] for e in self.evaluations])

    def _boundaries(self) -> list[float | None]:
        columns = zip(*(e.boundary.classes for e in self.evaluations), strict=True)
        return [Spread.of(column).mean for column in columns]

    def _pixels(self) -> list[int]:
        """Ground-truth pixels per class, mean over the test sets of the models."""
        return (self.confusion.sum(1) // len(self.models)).tolist()

    def _class_grid(self) -> Grid:
        pixels, total = self._pixels(), sum(self._pixels())
        rows = [
            [name, _spread(self.iou(k)), _number(f1), f"{100 * pixels[k] / total:.2f} %"]
            for k, (name, f1) in enumerate(zip(self.classes, self._boundaries(), strict=True))
        ]
        return Grid(self.title, ["class", "IoU", "boundary F1", "of the pixels"], rows)

    def _total_grid(self) -> Grid:
        several, splits = len(self.models), len(self.evaluations[0].splits)
        header = ["", f"mean ± std of {several} models" if several > 1 else "all images"]
        if splits:
            header.append(f"mean ± std of {splits} splits")
        rows = []
        for metric, (name, policy) in METRICS.items():
            row = [name, _spread(self.over_models(metric))]
            if splits:
                row.append(_spread(self.over_splits(metric)))
            rows.append([*row, policy])
        return Grid("Over all classes", [*header, "how"], rows, notes=True)

    def _confusion_grid(self) -> Grid:
        shares = row_shares(self.confusion)
        rows = [
            [name, *("-" if np.isnan(v) else f"{100 * v:.1f}" for v in row)]
            for name, row in zip(self.classes, shares, strict=True)
        ]
        title = "Confusion: % of the pixels of a class (row) seen as each class"
        return Grid(title, ["", *self.classes], rows)

    def _corruption_grid(self) -> Grid:
        mean = Robustness.average(self.robustness)
        rows = [
            [name.replace("_", " "), *map(_number, row), _number(fmean(row))]
            for name, row in zip(mean.names, mean.miou, strict=True)
        ]
        rpc = "-" if mean.rpc is None else f"{100 * mean.rpc:.1f} %"
        title = f"mIoU under corruption: clean {mean.clean:.4f}, mPC {mean.mpc:.4f}, rPC {rpc}"
        return Grid(title, ["severity", *map(str, mean.severities), "mean"], rows)


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """Confusion `[K, K]` with rows that sum to 1; NaN for a class without pixels."""
    with np.errstate(invalid="ignore"):
        return confusion / confusion.sum(1, keepdims=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _spread(spread: Spread) -> str:
    return _number(spread.mean) + ("" if spread.std is None else f" ± {spread.std:.4f}")
