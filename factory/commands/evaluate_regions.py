"""`factory evaluate --generator G`: score the regions of a factorized generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from factory.pipeline.region_finder import RegionFinder
from factory.reports.region_scores import RegionScores, foreground_ids, score_regions
from factory.terminal.notes import print_notes
from factory.terminal.progress import ProgressLine
from factory_core.annotated.annotations import read_annotations
from factory_core.storage import write_bytes
from train_seg.evaluation.foreground import count_pairs


@dataclass(frozen=True)
class RegionJob:
    """The options: test images, images on which the grouping is chosen, names of classes.

    `image_classes` is a CSV with the class of each image, of a class-conditional generator.
    """

    generator: str
    labeled: Path
    val: Path | None
    foreground: Sequence[str]
    image_classes: Path | None
    overrides: Sequence[str]
    device: str
    batch_size: int
    json_file: Path | None


def evaluate_regions(job: RegionJob, console: Console) -> RegionScores:
    """Score the regions, print tables, and write the JSON file if one is asked for.

    Raises ValueError or OSError as `RegionFinder.load`, `read_annotations` and `score_regions`.
    """
    import torch

    finder = RegionFinder.load(job.generator, job.overrides, job.device)
    folders = [job.labeled, *([] if job.val is None else [job.val])]
    classes: list[str] | None = None
    counts = []
    for folder in folders:
        found = read_annotations(folder, finder.image_size, classes, finder.pictures)
        classes = found.classes
        foreground = foreground_ids(job.foreground, classes)
        print_notes(console, found.notes)
        ids = None
        if job.image_classes is not None:
            ids = finder.class_ids(job.image_classes, found.stems)
        k, parts = finder.generator.regions, []
        with ProgressLine("segmenting", "images", len(found.images), console) as line:
            for start in range(0, len(found.images), job.batch_size):
                rows = slice(start, start + job.batch_size)
                regions = finder.predict(found.images[rows], None if ids is None else ids[rows])
                parts.append(count_pairs(regions, found.masks[rows], k, len(classes)))
                line.update(start + len(regions))
        counts.append(torch.cat(parts))
    assert classes is not None
    scored = score_regions(counts[0], classes, foreground, *counts[1:])
    for table in scored.tables(f"{scored.images} images of {job.labeled}"):
        console.print(table)
    console.print(
        f"dataset: regions {', '.join(map(str, scored.foreground_regions))} are foreground, the "
        f"grouping with the highest mean IoU on {scored.chosen_on}"
        + ("" if job.val else "; give --val DIR to choose it on others"),
        soft_wrap=True,
    )
    if job.json_file is not None:
        text = json.dumps(scored.to_dict(), indent=1, ensure_ascii=False)
        write_bytes(job.json_file, f"{text}\n".encode())
        console.print(f"JSON in {job.json_file}")
    return scored
