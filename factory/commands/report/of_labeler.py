"""What the report of a labeler needs besides its files: scores on images not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.reports.calibration import Calibration, Counted, Tally, joined
from factory.reports.of_labeler import Folds, labeler_page
from factory.reports.of_labeler.report import SCORES
from factory.reports.page import Page
from factory.terminal.notes import print_notes
from factory.terminal.progress import ProgressLine
from labelers.info import INFO_FILE, LabelerInfo, read_info

if TYPE_CHECKING:
    from factory.commands.report.command import ReportOptions

FOLDS_NAME = "folds.json"


def labeler_report(options: ReportOptions, console: Console) -> Page:
    """The page of a labeler, or of a cross-validation with its labelers."""
    folder = Path(str(options.folder))
    name = folder.resolve().name
    if (folder / FOLDS_NAME).is_file():
        if options.labeled is not None or options.generator is not None:
            raise ValueError(
                f"found --labeled or --generator for {folder}, which was scored on its own splits:"
                " leave them out"
            )
        return labeler_page(name, read_info(folder / "split_1" / INFO_FILE), _recorded(folder))
    info = read_info(folder / INFO_FILE)
    folds = None if options.labeled is None else _tested(options, info, console)
    return labeler_page(name, info, folds)


def _recorded(folder: Path) -> Folds:
    """What `train-labeler --folds` measured; earlier versions did not measure the calibration."""
    file = folder / FOLDS_NAME
    try:
        found = json.loads(file.read_bytes())
        splits, summary = found["splits"], found["summary"]
        parts = [
            Calibration.model_validate(split["calibration"])
            for split in splits
            if "calibration" in split
        ]
        return Folds(
            f"test images of {len(splits)} random splits",
            splits,
            {key: summary[key] for key in SCORES},
            summary["iou"],
            joined(parts) if parts else None,
        )
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{file} is damaged or not finished: rerun `factory train-labeler --folds`"
        ) from None


def _tested(options: ReportOptions, info: LabelerInfo, console: Console) -> Folds:
    """Scores on the folder `labeled`, with the generator of the labeler."""
    from factory.pipeline.models import load_models
    from factory.recipe import recipe_of_labeler, resolve
    from factory_core.annotated.annotations import read_annotations
    from train_seg.evaluation.metrics import Confusion, scores

    assert options.labeled is not None
    resolved = resolve(recipe_of_labeler(str(options.folder), options.generator))
    pictures = options.pictures.over(resolved.pictures)
    test = read_annotations(options.labeled, info.image_size, info.classes, pictures)
    print_notes(console, test.notes)
    generator, labeler = load_models(resolved.generator, resolved.labeler, options.device)
    labeler.check(generator)
    confusion, tally = Confusion(len(info.classes)), Tally(len(info.classes))
    with ProgressLine("labelling", "images", len(test.images), console) as line:
        for i in range(len(test.images)):
            image = test.images[i : i + 1]
            features = generator.encode(image, [i]) if labeler.needs_features else None
            found = labeler.predict(image, features, info.image_size, resolved.labeler.vote)
            confusion.update(found.mask, test.masks[i : i + 1])
            tally.update(Counted.of(test.stems[i], found, test.masks[i]))
            line.update(i + 1)
    split: dict[str, Any] = scores(confusion, info.classes, len(test.images)).to_dict()
    return Folds(
        f"images of {options.labeled.name}",
        [split],
        {key: {"mean": split[key]} for key in SCORES},
        {name: {"mean": value} for name, value in split["iou"].items()},
        tally.result(),
        was_trained_on=test.digest == info.data_digest,
    )
