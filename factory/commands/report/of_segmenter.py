"""What the report of a segmenter needs besides its files: scores and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from factory.reports.of_segmenter import Known, Measured, Shown, segmenter_page
from factory.reports.page import Page, Tile
from factory.reports.page.pictures import mask_uri, picture_uri
from factory.terminal.notes import print_notes
from factory_core.pictures import remembered
from train_seg.evaluation.evaluate import evaluate
from train_seg.evaluation.metrics import Confusion, scores
from train_seg.network.segmenter import Segmenter, read_info

if TYPE_CHECKING:
    from factory.commands.report.command import ReportOptions
    from factory_core.annotated.annotations import Annotations

SHOWN = 6  # best, and as many worst predictions


def segmenter_report(options: ReportOptions, console: Console) -> Page:
    """The page of a trained segmenter, tested on annotated images if the options name some."""
    if options.baseline is not None and options.labeled is None:
        raise ValueError("found --baseline without images to compare on: add --labeled DIR")
    folder = Path(str(options.folder))
    info = read_info(folder)
    recorded = None
    if options.evaluation is not None:
        recorded = Measured.recorded(options.evaluation, info.classes)
    corruptions = None if recorded is None else recorded.corruptions
    if options.labeled is None:
        measured = recorded or Measured.in_training(info.scores, info.classes)
        return segmenter_page(folder, info, Known(measured, corruptions))
    segmenter = Segmenter.load(folder, options.device)
    measured, masks, test = _tested(segmenter, folder, options, console)
    baseline = None
    if options.baseline is not None:
        other = Segmenter.load(options.baseline, options.device)
        if other.classes != info.classes:
            raise ValueError(
                f"--baseline {options.baseline} has the classes {', '.join(other.classes)}, the"
                f" model {', '.join(info.classes)}: only equal classes can be compared"
            )
        baseline = options.baseline.name, _tested(other, options.baseline, options, console)[0]
    worst, best = _ends(test, masks, segmenter)
    return segmenter_page(folder, info, Known(measured, corruptions, baseline, best, worst))


def _tested(
    segmenter: Segmenter, folder: Path, options: ReportOptions, console: Console
) -> tuple[Measured, torch.Tensor, Annotations]:
    """Scores of the model in `folder`, its masks uint8 `[N, H, W]`, and the images."""
    from factory_core.annotated.annotations import read_annotations

    assert options.labeled is not None
    pictures = options.pictures.over(remembered(folder))
    test = read_annotations(options.labeled, segmenter.image_size, segmenter.classes, pictures)
    print_notes(console, test.notes)
    masks: list[torch.Tensor] = []

    def predict(batch: torch.Tensor) -> torch.Tensor:
        masks.append(segmenter.predict(batch))
        return masks[-1]

    found = evaluate(predict, test.images, test.masks, segmenter.classes)
    return Measured.now(found, f"images of {options.labeled.name}"), torch.cat(masks), test


def _ends(
    test: Annotations, masks: torch.Tensor, segmenter: Segmenter
) -> tuple[list[Shown], list[Shown]]:
    """The worst and the best predictions, each image at most once."""
    found = []
    for i in range(len(masks)):
        confusion = Confusion(len(segmenter.classes))
        confusion.update(masks[i : i + 1], test.masks[i : i + 1])
        if confusion.counts[:-1].sum():  # else all of it is ignored
            found.append((scores(confusion, segmenter.classes).miou, i))
    found.sort()
    count = min(SHOWN, len(found) // 2)
    worst, best = found[: max(count, 1)], found[::-1][:count]

    def shown(score: float, i: int) -> Shown:
        picture = picture_uri(test.images[i].numpy())
        truth, guess = (
            Tile(test.stems[i], picture, mask_uri(mask.numpy(), segmenter.palette), caption)
            for mask, caption in ((test.masks[i], test.stems[i]), (masks[i], f"mIoU {score:.3f}"))
        )
        return Shown(truth, guess, score)

    return [shown(*one) for one in worst], [shown(*one) for one in best]
