"""`factory evaluate`: score segmenters, or a labeler, on annotated images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from factory.terminal.notes import print_notes
from factory_core.pictures import DEFAULT_PICTURES, Pictures, remembered
from factory_core.storage import write_bytes

if TYPE_CHECKING:
    import torch

    from factory.terminal.progress import ProgressLine
    from train_seg.evaluation.evaluate import Evaluation
    from train_seg.evaluation.report import Report
    from train_seg.evaluation.robustness import Robustness

# Nothing in the package was trained on these renderings: training used indices below 200 000.
DEMO_TEST_INDICES = range(1_000_000, 1_000_200)
MAX_COLUMNS = 12  # wider tables do not fit a terminal


@dataclass(frozen=True)
class Predictor:
    """Anything that turns images uint8 `[N, 3, H, W]` of `image_size` into class ids.

    `pictures` is how the images of its training were read.
    """

    predict: Callable[[torch.Tensor], torch.Tensor]
    classes: list[str]
    palette: list[list[int]]
    image_size: tuple[int, int]
    name: str
    pictures: Pictures = DEFAULT_PICTURES


class TestSet(NamedTuple):
    """Images uint8 `[N, 3, H, W]`, masks uint8 `[N, H, W]`, and a description for the title."""

    images: torch.Tensor
    masks: torch.Tensor
    description: str


@dataclass(frozen=True)
class Measurement:
    """What to measure, and where to write it.

    `labeled` are annotated folders: one for all predictors, or one for each (a paper's splits).
    Without any, unseen renderings of the demo are used. `pictures` is how they are read, as far as
    it differs from the training.
    """

    labeled: Sequence[Path]
    splits: int
    seed: int
    corruptions: str | None
    workers: int
    batch_size: int
    json_file: Path | None
    markdown: Path | None
    plots: Path | None
    pictures: Pictures = DEFAULT_PICTURES


def load_predictors(
    models: Sequence[Path],
    labeler: str | None,
    generator: str | None,
    device: str,
    encoders: Sequence[str] = (),
) -> list[Predictor]:
    """The segmenters in the folders `models`, or the labeler in the folder `labeler`.

    `generator` and `encoders` replace the addresses of the labeler's. Raises ValueError unless
    there is exactly one kind of predictor; other errors as `Segmenter.load` and
    `recipe_of_labeler`.
    """
    if bool(models) == bool(labeler):
        raise ValueError("found both or neither of --model and --labeler, expected exactly one")
    if labeler is not None:
        return [load_labeler(labeler, generator, device, encoders)]
    if generator is not None or encoders:
        option = "--encoder" if generator is None else "--generator"
        raise ValueError(f"found {option} with --model, expected it with --labeler: leave it out")
    return [load_segmenter(folder, device) for folder in models]


def load_segmenter(folder: Path, device: str) -> Predictor:
    """A trained segmenter."""
    from train_seg.network.segmenter import Segmenter

    model = Segmenter.load(folder, device)
    about = (model.classes, model.palette, model.image_size, str(folder))
    return Predictor(model.predict, *about, remembered(folder) or DEFAULT_PICTURES)


def load_labeler(
    folder: str, generator: str | None, device: str, encoders: Sequence[str] = ()
) -> Predictor:
    """A labeler on real images; with an ensemble, the direct method of the DDPM paper."""
    import torch

    from factory.pipeline.models import load_models
    from factory.recipe import recipe_of_labeler, resolve
    from factory.recipe.weights import find_weights
    from generators.base import batches

    path = str(find_weights("--labeler", folder))
    recipe = recipe_of_labeler(path, generator, encoders=encoders)
    resolved = resolve(recipe)
    model, labeler = load_models(resolved.generator, resolved.labeler, device)
    labeler.check(model)

    seen = 0  # images so far: their numbers seed fresh noise, whatever the size of the batches

    def predict(images: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        masks = []
        for rows in batches(range(seen, seen + len(images)), model.batch_size):
            batch = images[rows.start - seen : rows.stop - seen]
            features = model.encode(batch, rows) if labeler.needs_features else None
            vote = resolved.labeler.vote
            masks.append(labeler.predict(batch, features, model.image_size, vote).mask)
        seen += len(images)
        return torch.cat(masks)

    palette = [list(colour) for colour in resolved.palette]
    about = (list(resolved.classes), palette, model.image_size, folder)
    return Predictor(predict, *about, resolved.pictures)


def evaluate(predictors: Sequence[Predictor], wanted: Measurement, console: Console) -> Report:
    """Score every predictor; print the tables, and write the files asked for.

    Raises:
        ImportError: plots or corruptions need a package that is not installed.
        ValueError: predictors and test folders do not match, or as `train_seg.evaluation.evaluate`.
    """
    from train_seg.evaluation.plots import draw, figure_type
    from train_seg.evaluation.report import Report
    from train_seg.evaluation.robustness import SEVERITIES, corruption_names

    _check(predictors, wanted)
    if wanted.plots is not None:
        figure_type()  # reports a missing package before the work starts
    names = [] if wanted.corruptions is None else corruption_names(wanted.corruptions)
    sets = _test_sets(predictors, wanted, console)
    images = sum(len(test.images) for test in sets) * (1 + len(names) * len(SEVERITIES))
    with _Scoring(images, console) as scoring:
        evaluations = [
            scoring.evaluate(predictor, test, wanted)
            for predictor, test in zip(predictors, sets, strict=True)
        ]
        robust = scoring.robustness(predictors, sets, evaluations, names, wanted) if names else []
    report = Report(_title(predictors, sets), [p.name for p in predictors], evaluations, robust)
    for grid in report.grids():
        if len(grid.header) <= MAX_COLUMNS:
            console.print(grid.to_rich())
    if wanted.json_file is not None:
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
        _write(wanted.json_file, f"{text}\n".encode(), "JSON", console)
    if wanted.markdown is not None:
        _write(wanted.markdown, report.to_markdown().encode(), "Markdown", console)
    if wanted.plots is not None:
        pictures = draw(report)
        wanted.plots.mkdir(parents=True, exist_ok=True)
        for name, data in pictures.items():
            write_bytes(wanted.plots / name, data)
        console.print(f"{', '.join(pictures)} in {wanted.plots}")
    return report


def _check(predictors: Sequence[Predictor], wanted: Measurement) -> None:
    if len(wanted.labeled) not in (0, 1, len(predictors)):
        raise ValueError(
            f"found {len(predictors)} models and {len(wanted.labeled)} --labeled: "
            "expected one test folder for all of them, or one for each"
        )
    first = predictors[0]
    for other in predictors[1:]:
        if other.classes != first.classes:
            raise ValueError(
                f"{other.name} has the classes {', '.join(other.classes)}, {first.name} "
                f"{', '.join(first.classes)}: only scores of the same classes can be averaged"
            )


def _test_sets(
    predictors: Sequence[Predictor], wanted: Measurement, console: Console
) -> list[TestSet]:
    """The test images of each predictor at its size; each folder is read once per size."""
    classes = predictors[0].classes
    folders: list[Path | None] = list(wanted.labeled) or [None]
    if len(folders) < len(predictors):
        folders *= len(predictors)

    @cache
    def load(folder: Path | None, size: tuple[int, int], pictures: Pictures) -> TestSet:
        if folder is None:
            return _demo_images(classes, size)
        from factory_core.annotated.annotations import read_annotations

        found = read_annotations(folder, size, classes, pictures)
        print_notes(console, found.notes)
        return TestSet(found.images, found.masks, f"{len(found.images)} images of {folder}")

    return [
        load(folder, p.image_size, wanted.pictures.over(p.pictures))
        for folder, p in zip(folders, predictors, strict=True)
    ]


class _Scoring:
    """Runs the predictors with one progress line over all their images."""

    def __init__(self, images: int, console: Console):
        self._images, self._console, self._done = images, console, 0

    def __enter__(self) -> _Scoring:
        from factory.terminal.progress import ProgressLine

        self._line: ProgressLine = ProgressLine("scoring", "images", self._images, self._console)
        self._line.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.__exit__()

    def _counted(self, predictor: Predictor) -> Callable[[torch.Tensor], torch.Tensor]:
        def predict(batch: torch.Tensor) -> torch.Tensor:
            result = predictor.predict(batch)
            self._done += len(batch)
            self._line.update(self._done)
            return result

        return predict

    def evaluate(self, predictor: Predictor, test: TestSet, wanted: Measurement) -> Evaluation:
        from train_seg.evaluation.evaluate import evaluate

        return evaluate(
            self._counted(predictor),
            test.images,
            test.masks,
            predictor.classes,
            wanted.batch_size,
            wanted.splits,
            wanted.seed,
        )

    def robustness(
        self,
        predictors: Sequence[Predictor],
        sets: Sequence[TestSet],
        evaluations: Sequence[Evaluation],
        names: Sequence[str],
        wanted: Measurement,
    ) -> list[Robustness]:
        """Scores on corrupted images; predictors with the same test images share them."""
        from train_seg.evaluation.robustness import robustness

        found: dict[int, Robustness] = {}
        for test in sets:
            group = [i for i, other in enumerate(sets) if other is test and i not in found]
            if not group:
                continue
            results = robustness(
                [self._counted(predictors[i]) for i in group],
                test.images,
                test.masks,
                predictors[0].classes,
                [evaluations[i].scores.miou for i in group],
                names,
                batch_size=wanted.batch_size,
                seed=wanted.seed,
                workers=wanted.workers,
            )
            found |= dict(zip(group, results, strict=True))
        return [found[i] for i in range(len(predictors))]


def _title(predictors: Sequence[Predictor], sets: Sequence[TestSet]) -> str:
    descriptions = {test.description for test in sets}
    sizes = {predictor.image_size for predictor in predictors}
    what = descriptions.pop() if len(descriptions) == 1 else f"{len(descriptions)} test sets"
    height, width = predictors[0].image_size
    where = f"at {height} x {width}" if len(sizes) == 1 else "each at the size of its model"
    return f"{what}, {where}"


def _write(path: Path, data: bytes, what: str, console: Console) -> None:
    write_bytes(path, data)
    console.print(f"{what} in {path}")


def _demo_images(classes: Sequence[str], size: tuple[int, int]) -> TestSet:
    import numpy as np
    import torch

    from factory.demo.render import CLASSES, render

    if list(classes) != list(CLASSES):
        raise ValueError(
            f"--demo has the classes {', '.join(CLASSES)}, the model {', '.join(classes)}: "
            "give --labeled DIR"
        )
    height, width = size
    if height != width:
        raise ValueError(f"--demo renders square images, the model works at {height} x {width}")
    pairs = [render(i, height) for i in DEMO_TEST_INDICES]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))
    return TestSet(images.contiguous(), masks, f"{len(images)} unseen renderings")
