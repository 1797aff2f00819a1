"""How well regions without names segment annotated images."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from torch import Tensor

from labelers.regions.naming import match_regions
from train_seg.evaluation.foreground import (
    METRICS,
    ForegroundScores,
    choose_grouping,
    named_confusion,
    of_grouping,
    oracle,
    two_classes,
)
from train_seg.evaluation.metrics import Scores, scores

MIOU_MATCHING = (
    "one Hungarian matching of regions to classes on all images; regions left over get the class "
    "of most of their pixels"
)


@dataclass(frozen=True)
class RegionScores:
    """Scores of K regions, 0-1.

    `dataset` takes one grouping of the regions for all images, in which `foreground_regions` are
    foreground; `oracle` the best grouping for each image and metric. `named` are the scores of the
    classes after one matching on all images, `class_of` the class of each region; `miou_foreground`
    is the same over the two classes foreground and background. `miou_per_image` is the mean over
    images that are each matched alone. `chosen_on` says on which images the grouping was chosen.
    """

    images: int
    foreground: list[str]
    dataset: ForegroundScores
    foreground_regions: tuple[int, ...]
    chosen_on: str
    oracle: ForegroundScores
    named: Scores
    class_of: list[str]
    miou_foreground: float
    miou_per_image: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON: each number with what it is."""
        return {
            "images": self.images,
            "foreground": self.foreground,
            "dataset": asdict(self.dataset),
            "foreground_regions": list(self.foreground_regions),
            "grouping_chosen_on": self.chosen_on,
            "oracle": asdict(self.oracle),
            "class_of_region": self.class_of,
            "miou": self.named.miou,
            "miou_matching": MIOU_MATCHING,
            "iou": dict(zip(self.named.classes, self.named.iou, strict=True)),
            "pixel_accuracy": self.named.pixel_accuracy,
            "miou_foreground": self.miou_foreground,
            "miou_per_image": self.miou_per_image,
        }

    def tables(self, title: str) -> list[Table]:
        """The foreground, then the classes."""
        first = Table(title=f"foreground ({', '.join(self.foreground)}), {title}")
        first.add_column("grouping of the regions")
        for name in ("Acc", "IoU", "DICE"):
            first.add_column(name, justify="right")
        for name, row in (("dataset", self.dataset), ("oracle", self.oracle)):
            first.add_row(name, *(f"{getattr(row, metric):.3f}" for metric in METRICS))
        second = Table(title="classes, after one matching of the regions")
        for name in ("class", "IoU"):
            second.add_column(name, justify="left" if name == "class" else "right")
        for name, iou in zip(self.named.classes, self.named.iou, strict=True):
            second.add_row(name, "-" if iou is None else f"{iou:.3f}")
        second.add_row("mIoU", f"{self.named.miou:.3f}")
        second.add_row("mIoU, each image matched alone", f"{self.miou_per_image:.3f}")
        second.add_row("mIoU, foreground and background", f"{self.miou_foreground:.3f}")
        return [first, second]


def score_regions(
    counts: Tensor,
    classes: Sequence[str],
    foreground: Collection[int],
    validation: Tensor | None = None,
) -> RegionScores:
    """Scores of `counts` `[N, K, C]`, see `train_seg.evaluation.foreground`.

    The grouping is chosen on the counts of `validation` images, else on the same ones. Raises
    ValueError for a single region, or images in which every pixel is ignored.
    """
    chosen = choose_grouping(counts if validation is None else validation, foreground)
    class_of = match_regions(counts.sum(0))
    halves = two_classes(counts, foreground)
    binary = named_confusion(halves, match_regions(halves.sum(0)))
    alone = [one for one in counts if one.any()]
    return RegionScores(
        images=len(counts),
        foreground=[classes[c] for c in sorted(foreground)],
        dataset=of_grouping(counts, foreground, chosen),
        foreground_regions=chosen,
        chosen_on="the same images" if validation is None else "validation images",
        oracle=oracle(counts, foreground),
        named=scores(named_confusion(counts, class_of), classes, len(counts)),
        class_of=[classes[c] for c in class_of],
        miou_foreground=scores(binary, ("background", "foreground"), len(counts)).miou,
        miou_per_image=statistics.fmean(_matched_alone(one, classes) for one in alone),
    )


def _matched_alone(counts: Tensor, classes: Sequence[str]) -> float:
    """mIoU of one image `[K, C]` after a matching of its own."""
    return scores(named_confusion(counts[None], match_regions(counts)), classes).miou


def foreground_ids(wanted: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The class ids of `--foreground`; by default all but the first.

    Raises ValueError for an unknown class, or if no class remains for the background.
    """
    for name in wanted:
        if name not in classes:
            raise ValueError(f"--foreground {name}: expected one of {', '.join(classes)}")
    chosen = sorted({classes.index(name) for name in wanted}) or list(range(1, len(classes)))
    if not 0 < len(chosen) < len(classes):
        raise ValueError(
            f"found {len(chosen)} of {len(classes)} classes as foreground, expected some but not "
            "all: give --foreground CLASS"
        )
    return chosen
