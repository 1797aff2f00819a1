"""`train-labeler --folds`: the score of a labeler on random splits of the annotated images.

As in the DDPM paper, each split draws its own test images and trains on the others; the score is
the mean and standard deviation of the test mIoU over the splits. The labeler of split i is kept in
`DIR/split_i`, the scores in `DIR/folds.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from factory.commands.train_labeler.folder import (
    FEATURES_DIR,
    FOLDS_NAME,
    begin,
    clean,
    read_record,
    settings_of,
)
from factory.commands.train_labeler.preparation import (
    LabelerJob,
    Preparation,
    remove_checkpoints,
)
from factory.locking.lock import exclusive
from factory_core.dataset import IGNORE
from factory_core.pictures import remember
from factory_core.storage import write_bytes, write_json

if TYPE_CHECKING:
    from factory.reports.calibration import Calibration
    from factory_core.annotated.annotations import Annotations
    from labelers.config import LabelerConfig
    from labelers.training.feature_store import FeatureStore
    from train_seg.evaluation.metrics import Scores

SCORES = ("miou", "miou_reference", "pixel_accuracy")


@dataclass(frozen=True)
class Folds:
    """The number of splits, test images per split (None: a third), and a JSON file for scores."""

    splits: int
    test_images: int | None = None
    json_file: Path | None = None


def draw_test_sets(images: int, splits: int, test_images: int, seed: int) -> list[list[int]]:
    """The test images of each split, drawn at random and independently for each."""
    rng = np.random.default_rng(seed)
    return [sorted(rng.permutation(images)[:test_images].tolist()) for _ in range(splits)]


def cross_validate(job: LabelerJob, folds: Folds) -> None:
    """Train and score on random splits; print a table, write JSON; resumes.

    Raises ValueError if there are too few images, or if the folder holds a run with other settings.
    """
    prepared = Preparation(job)
    stems = prepared.annotations.stems
    test_images = folds.test_images or max(1, len(stems) // 3)
    if not test_images < len(stems):
        raise ValueError(
            f"found {len(stems)} annotated images, expected more than the {test_images} to test on"
        )
    tests = draw_test_sets(len(stems), folds.splits, test_images, job.recipe.labeler.seed)
    for number, test in enumerate(tests, 1):
        _check(prepared, job.recipe.labeler, test, f"split {number} of {folds.splits}")
    settings = settings_of(prepared.info, {"splits": folds.splits, "test_images": test_images})
    with exclusive(job.out):
        begin(job.out, settings)
        result: dict[str, Any] = {"settings": settings, "splits": []}
        path = job.out / FOLDS_NAME
        if path.is_file():
            result = read_record(path)
        done = len(result["splits"])
        if done < folds.splits:
            store = prepared.encode(job.out / FEATURES_DIR)
            for number, test in list(enumerate(tests, 1))[done:]:
                scores, calibration = _split(
                    prepared, store, test, job.out / f"split_{number}", f"split {number}"
                )
                about = {"test": [stems[i] for i in test], **scores.to_dict()}
                about["calibration"] = calibration.model_dump(mode="json")
                result["splits"].append(about)
                result["summary"] = _summary(result["splits"])
                write_json(path, result)
        clean(job.out, prepared)
    _print(result, len(stems), job.console)
    job.console.print(f"labelers and {FOLDS_NAME} in {job.out}")
    if folds.json_file is not None:
        write_bytes(folds.json_file, (json.dumps(result, indent=1) + "\n").encode())
        job.console.print(f"JSON in {folds.json_file}")


def _check(prepared: Preparation, config: LabelerConfig, test: Sequence[int], title: str) -> None:
    """Raise ValueError if there is nothing to learn without the images `test`, or to score."""
    from labelers.training.fit import check

    annotations = prepared.annotations
    try:
        check(_without(annotations, test).masks, len(annotations.classes), config)
    except ValueError as error:
        raise ValueError(f"{title}, without the images to test on: {error}") from None
    if not (annotations.masks[list(test)] != IGNORE).any():
        raise ValueError(
            f"{title}: the images to test on have no labelled pixel (255 everywhere): leave such "
            "images out, or label them"
        )


def _split(
    prepared: Preparation,
    store: FeatureStore | None,
    test: Sequence[int],
    folder: Path,
    title: str,
) -> tuple[Scores, Calibration]:
    """Train without the images `test`, score on them, and write the labeler to `folder`."""
    from factory.reports.calibration import Counted, Tally
    from train_seg.evaluation.metrics import Confusion, scores

    folder.mkdir(exist_ok=True)
    annotations = prepared.annotations
    labeler = prepared.fit(store, _without(annotations, test), folder, title)
    confusion, tally = Confusion(len(labeler.classes)), Tally(len(labeler.classes))
    for i in test:
        features = None if store is None else store.features(i)
        found = labeler.predict(annotations.images[i : i + 1], features)
        confusion.update(found.mask, annotations.masks[i : i + 1])
        tally.update(Counted.of(annotations.stems[i], found, annotations.masks[i]))
    scored = scores(confusion, labeler.classes, len(test))
    measured = {f"test_{name}": float(getattr(scored, name)) for name in SCORES}
    info = labeler.info.model_copy(update={"scores": {**labeler.info.scores, **measured}})
    remember(folder, annotations.pictures)
    replace(labeler, info=info).save(folder)
    remove_checkpoints(folder)
    return scored, tally.result()


def _without(annotations: Annotations, test: Sequence[int]) -> Annotations:
    """The annotations with the masks of `test` set to "ignore", so that they are not trained on."""
    masks = annotations.masks.clone()
    masks[list(test)] = IGNORE
    return replace(annotations, masks=masks)


def _summary(splits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation of every score and of every class's IoU."""
    from train_seg.evaluation.evaluate import Spread

    def spread(values: list[float | None]) -> dict[str, float | None]:
        found = Spread.of(values)
        return {"mean": found.mean, "std": found.std}

    classes = splits[0]["iou"]
    return {
        **{name: spread([split[name] for split in splits]) for name in SCORES},
        "iou": {name: spread([split["iou"][name] for split in splits]) for name in classes},
    }


def _print(result: dict[str, Any], images: int, console: Console) -> None:
    splits, summary = result["splits"], result["summary"]
    table = Table(title=f"{len(splits)} random splits of {images} annotated images")
    for column in ("split", "training", "test", "mIoU", "mIoU (reference)", "pixel accuracy"):
        table.add_column(column, justify="right")
    for number, split in enumerate(splits, 1):
        tested = len(split["test"])
        figures = (f"{split[name]:.4f}" for name in SCORES)
        table.add_row(str(number), str(images - tested), str(tested), *figures)
    table.add_section()
    table.add_row("mean ± std", "", "", *(_spread(summary[name]) for name in SCORES))
    console.print(table)
    classes = Table(title="IoU on the test images, mean ± std")
    for name in ("class", "IoU"):
        classes.add_column(name)
    for name, spread in summary["iou"].items():
        classes.add_row(name, _spread(spread))
    console.print(classes)
    console.print(
        f"mIoU: {splits[0]['miou_policy']}\n"
        f"mIoU (reference): {splits[0]['miou_reference_policy']}\n"
        "std: over the splits, n - 1"
    )


def _spread(found: dict[str, float | None]) -> str:
    if found["mean"] is None:
        return "-"
    std = "" if found["std"] is None else f" ± {found['std']:.4f}"
    return f"{found['mean']:.4f}{std}"
