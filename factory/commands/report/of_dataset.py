"""What the report of a dataset needs besides the dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from factory.pipeline.fidelity import FIDELITY_NAME, measure_fidelity
from factory.reports.choosing import read_chosen
from factory.reports.memorisation import (
    COPY_SHARE,
    Match,
    Thumbnails,
    duplicates,
    memorisation,
    turned,
)
from factory.reports.of_dataset import Evidence, dataset_page
from factory.reports.of_dataset.balance import Annotated
from factory.reports.of_dataset.copies import Copying
from factory.reports.of_dataset.report import is_generated
from factory.reports.of_dataset.samples import make_tiles, read_rows, spread
from factory.reports.page import Page, Tile
from factory.reports.page.pictures import picture_uri
from factory.terminal.notes import print_notes
from factory.terminal.progress import ProgressLine
from factory_core.annotated.annotations import ImageFolder, read_annotations
from factory_core.dataset import Dataset, open_dataset
from factory_core.images import Pictures, folder_notes

if TYPE_CHECKING:
    from factory.commands.report.command import ReportOptions
    from factory.reports.of_dataset.samples import Rows

CONTROL = 500  # real images, at most: their first percentile is then the mean of a few
SHOWN_PAIRS = 8


def dataset_report(options: ReportOptions, console: Console) -> Page:
    """The page of a finished dataset, compared with whatever the options name."""
    data = open_dataset(options.folder)
    if options.real is not None and not is_generated(data.manifest):
        raise ValueError("found --real for a dataset of photographs: leave it out")
    recorded = Pictures.model_validate(data.manifest.recipe.get("pictures", {}))
    pictures = options.pictures.over(recorded)
    annotated = None
    if options.labeled is not None:
        annotated = _annotated(options.labeled, data, pictures, console)
    if options.real is None:
        return dataset_page(data, Evidence(annotated, _recorded_fidelity(data)))
    real = ImageFolder(options.real, data.manifest.image_size, pictures)
    print_notes(console, folder_notes(options.real, real.pictures))
    fidelity = _fidelity(options, real, data, console)
    copying = _copying(real, options.samples, data, console)
    return dataset_page(data, Evidence(annotated, fidelity, copying))


def _annotated(folder: Path, data: Dataset, pictures: Pictures, console: Console) -> Annotated:
    classes = data.manifest.classes
    found = read_annotations(folder, data.manifest.image_size, classes, pictures)
    print_notes(console, found.notes)
    counts = [np.bincount(m.numpy().ravel(), minlength=256)[: len(classes)] for m in found.masks]
    return Annotated(np.array(counts), folder.name)


def _recorded_fidelity(data: Dataset) -> dict[str, Any] | None:
    """What `factory generate --real` measured."""
    if not data.store.exists(FIDELITY_NAME):
        return None
    try:
        return dict(json.loads(data.store.read(FIDELITY_NAME)))
    except (ValueError, TypeError):
        file = data.store / FIDELITY_NAME
        raise ValueError(f"{file} is damaged: delete it, or give --real DIR") from None


def _fidelity(
    options: ReportOptions, real: ImageFolder, data: Dataset, console: Console
) -> dict[str, Any]:
    """Measured now, in the features of the recipe's generator, or of --generator if it moved."""
    import generators
    from factory.recipe.loading import build_recipe
    from factory.recipe.networks import find_networks

    overrides = [] if options.generator is None else [f"generator.weights={options.generator}"]
    recipe = build_recipe(data.manifest.recipe, overrides, f"of {data.store}")
    generator = None
    try:
        config, _ = find_networks("--generator", recipe.generator)
    except FileNotFoundError:  # datasets travel without their generators
        if options.generator is not None:
            raise
    else:
        generator = generators.load_encoder(config, options.device)
    return measure_fidelity(generator, data.store, real, console).to_dict()


def _copying(training: ImageFolder, most: int, data: Dataset, console: Console) -> Copying:
    """Samples, evenly spaced, against all the real images."""
    rows = read_rows(data)
    numbers = spread(rows.kept, most)
    control = spread(np.arange(len(training)), CONTROL)
    total = 3 * len(numbers) + len(training) + len(control)
    with ProgressLine("comparing", "images", total, console) as line:
        done = 0

        def counted(images: Iterator[Any]) -> Iterator[Any]:
            nonlocal done
            for image in images:
                yield image
                done += 1
                line.update(done)

        samples = Thumbnails.of(counted(_images(data, rows, numbers)))
        pictures = Thumbnails.of(counted(training[i] for i in range(len(training))))
        before = done
        found = memorisation(samples, pictures, control, lambda n: line.update(before + n))
        after = before + len(numbers) + len(control)
        limit = COPY_SHARE * found.percentile
        twins = duplicates(samples, limit, lambda n: line.update(after + n))
    twins = sorted(twins, key=lambda twin: twin.match.distance)
    worst = found.worst[:SHOWN_PAIRS]
    shown = set(worst) | {i for t in twins[:SHOWN_PAIRS] for i in (t.number, t.match.nearest)}
    tiles = make_tiles(data, rows, [numbers[i] for i in sorted(shown)])
    return Copying(
        found,
        len(training),
        len(rows.kept),
        [(_bare(tiles[numbers[i]]), _beside(training, found.matches[i])) for i in worst],
        twins,
        [
            (_bare(tiles[numbers[t.number]]), _bare(tiles[numbers[t.match.nearest]]))
            for t in twins[:SHOWN_PAIRS]
        ],
    )


def _bare(tile: Tile) -> Tile:
    """The tile without its mask, which would hide what is compared."""
    return replace(tile, mask="", caption=tile.name)


def _images(data: Dataset, rows: Rows, numbers: list[int]) -> Iterator[np.ndarray]:
    """Images of these kept rows, in this order: shards and rows have the same."""
    for sample in read_chosen(data, rows.named(numbers)):
        yield sample.image


def _beside(training: ImageFolder, match: Match) -> Tile:
    """The training image, turned as the sample lies."""
    image = turned(training[match.nearest], match.symmetry).contiguous()
    name = training.paths[match.nearest].name
    how = "" if match.symmetry == 0 else ", turned or flipped"
    return Tile(name, picture_uri(image.numpy()), "", f"{name}{how}; distance {match.distance:.3f}")
