"""Table 6: a segmenter trained on more and more synthetic images, prefixes of one set.

The set is a dataset (`--data`), or samples of the generator, labelled for every split by a labeler
that was trained on the split's training images. The most uncertain are dropped inside each prefix.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file

from factory.analysis.base import (
    MIOU,
    Analysis,
    Cell,
    Findings,
    Numbers,
    Results,
    Settings,
    Table,
    on_all_splits,
    prepare_default,
)
from factory.analysis.drawing import score_lines
from factory.analysis.judging import difference, does_not_help, points, sentence
from factory.analysis.sources import cell_name
from factory.analysis.study import Study
from factory.pipeline.select import drop_count, select
from factory.terminal.progress import ProgressLine
from factory.verdict.labels import save_tensors
from factory.verdict.students import DEEPLAB
from factory_core.dataset.sample_set import SampleSet
from factory_core.images import wxh
from generators.base import Generator, batches
from labelers.labeler import Labeler
from train_seg.config import PRESETS, SegmenterConfig
from train_seg.data.training_data import LabeledImages
from train_seg.training.train import train

SIZES = 5  # prefixes, equally spaced, as in the paper
SAMPLES = 250  # made if there is no dataset
CHUNK = 64  # samples in one file
STEPS = 300
IMAGES, OF_SPLIT = "images", "{what}.{split}"  # tensors in a file
KEPT = "images"  # how many a segmenter was trained on


class SaturationSettings(Settings):
    """Also: the sizes, the share to drop, and the segmenter."""

    choosing = frozenset({"sizes"})

    sizes: tuple[int, ...] | None = Field(
        default=None,
        description="numbers of synthetic images, before dropping; none: five prefixes of the "
        f"dataset, or of {SAMPLES} samples",
    )
    drop_fraction: float = Field(default=0.1, ge=0, lt=1, description="the most uncertain part")
    segmenter: SegmenterConfig = Field(
        default=SegmenterConfig.model_validate(
            PRESETS["modern"] | DEEPLAB | {"max_steps": STEPS, "validate_every": STEPS // 3}
        ),
        description="the segmenter; as many steps for every size, unless max_steps is null",
    )


def sizes(study: Study) -> list[int]:
    """Numbers of synthetic images, ascending."""
    assert isinstance(study.settings, SaturationSettings)
    if study.settings.sizes is not None:
        return sorted(set(study.settings.sizes))
    total = (
        SAMPLES if study.sources.data is None else _candidates(SampleSet.open(study.sources.data))
    )
    return sorted({total * part // SIZES for part in range(1, SIZES + 1)} - {0})


def check(study: Study) -> None:
    """Raise ValueError for sizes that cannot be had, a dataset of other images, or an encoder."""
    found = sizes(study)
    if len(found) < 2 or found[0] < 2:
        raise ValueError(f"saturation: found sizes {found}, expected two or more, each at least 2")
    if study.sources.data is None:
        if not isinstance(study.generator, Generator):
            raise ValueError("saturation: an encoder makes no images: give --data DIR")
        return
    data = SampleSet.open(study.sources.data)
    if data.manifest.image_size != tuple(study.generator.image_size):
        raise ValueError(
            f"--data {study.sources.data} has images of {wxh(data.manifest.image_size)}, the "
            f"generator makes {wxh(study.generator.image_size)}: give a dataset of that size"
        )
    if data.classes != study.classes:
        raise ValueError(
            f"--data {study.sources.data} has the classes {', '.join(data.classes)}, --labeled "
            f"{', '.join(study.classes)}: they must agree in names and order"
        )
    if found[-1] > (total := _candidates(data)):
        raise ValueError(f"saturation: found size {found[-1]}, the dataset has {total} candidates")


def variants(study: Study) -> dict[str, int]:
    """The size by name of the cell."""
    data = study.sources.data
    if data is None:
        return {f"samples-{size}": size for size in sizes(study)}
    digest = SampleSet.open(data).manifest.recipe_digest
    return {cell_name(f"data-{size}", digest): size for size in sizes(study)}


def prepare(study: Study) -> None:
    """Sample and label as many images as the largest size needs, once for all splits."""
    if study.sources.data is not None:
        return
    prepare_default(study)
    teachers: list[Labeler] = []
    total = scaled(study, sizes(study)[-1])
    with ProgressLine("labelling", "samples", total, study.console, study.folder) as line:
        for number, rows in enumerate(batches(range(total), CHUNK)):
            path = _chunk(study, number)
            if not _is_complete(path, len(rows), len(study.splits)):
                teachers = teachers or [
                    study.fit(study.default_maps, split.train, split.seed) for split in study.splits
                ]
                save_tensors(path, _labelled(study, rows, teachers))
            line.update(rows.stop)


def _is_complete(path: Path, samples: int, splits: int) -> bool:
    """Whether a chunk has that many samples, with labels for that many splits."""
    if not path.is_file():
        return False
    last = OF_SPLIT.format(what="masks", split=splits - 1)
    with safe_open(path, "pt") as file:
        names = file.keys()
        return last in names and file.get_slice(last).get_shape()[0] >= samples


def scaled(study: Study, size: int) -> int:
    """The size in a study of a share of the images (a dry run)."""
    return max(2, round(size * study.share))


def _labelled(study: Study, rows: range, teachers: list[Labeler]) -> dict[str, torch.Tensor]:
    """Images of samples, and for each teacher their masks and uncertainty."""
    generator = study.generator
    assert isinstance(generator, Generator)  # checked
    found: dict[str, list[torch.Tensor]] = {}
    for some in batches(rows, generator.batch_size):
        images, maps = generator.sample(some)
        found.setdefault(IMAGES, []).append(images.cpu())
        for number, teacher in enumerate(teachers):
            made = teacher.predict(images, maps)
            for what, tensor in (("masks", made.mask), ("uncertainty", made.uncertainty)):
                key = OF_SPLIT.format(what=what, split=number)
                found.setdefault(key, []).append(tensor.cpu())
    return {key: torch.cat(parts).contiguous() for key, parts in found.items()}


def run(study: Study, cell: Cell) -> Numbers:
    """A segmenter trained on a prefix, its checkpoint chosen on the real training images."""
    assert isinstance(study.settings, SaturationSettings)
    split, settings = study.split(cell.split), study.settings
    size = scaled(study, variants(study)[cell.variant])
    images, masks = _prefix(study, size, cell.split)
    folder = study.folder / "segmenters" / f"{cell.variant}-{cell.split}"
    train_rows, palette = list(split.train), study.annotations.palette
    real = LabeledImages(
        study.annotations.images[train_rows], study.masks[train_rows], study.classes, palette
    )
    segmenter = train(
        [LabeledImages(images, masks, study.classes, palette, "synthetic images")],
        folder,
        settings.segmenter.model_copy(update={"seed": split.seed}),
        val=real,
        device=str(study.device),
    )
    predictions = segmenter.predict(study.annotations.images[list(split.test)])
    numbers = study.score_masks(predictions, split.test)
    shutil.rmtree(folder)
    return {**numbers, KEPT: float(len(images))}


def _prefix(study: Study, size: int, split: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks of the first `size` candidates, without the most uncertain."""
    assert isinstance(study.settings, SaturationSettings)
    drop = study.settings.drop_fraction
    if study.sources.data is not None:
        return prefix_of_data(SampleSet.open(study.sources.data), size, drop)
    parts = list(_read_chunks(study, size))
    images = torch.cat([part[IMAGES] for part in parts])[:size]
    masks, uncertainty = (
        torch.cat([part[OF_SPLIT.format(what=what, split=split)] for part in parts])[:size]
        for what in ("masks", "uncertainty")
    )
    kept = torch.from_numpy(select(range(size), uncertainty.numpy(), drop).kept)
    return images[kept], masks[kept]


def prefix_of_data(data: SampleSet, size: int, drop: float) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_prefix`, of the samples that the dataset has kept; it has dropped some itself."""
    index = np.array([int(key) for key in data.keys])
    first = data[index < size]
    missing = size - len(first)
    # What the dataset has dropped counts as the most uncertain of the prefix.
    more = max(0, drop_count(size, drop) - missing)
    order = np.argsort(first.uncertainty, kind="stable")
    chosen = first[np.sort(order[: len(first) - more])]
    if not len(chosen):
        raise ValueError(f"the dataset has dropped all of its first {size} candidates")
    pairs = [(torch.tensor(sample.image), torch.tensor(sample.mask)) for sample in chosen]
    return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])


def _read_chunks(study: Study, size: int) -> Iterator[dict[str, torch.Tensor]]:
    for number in range(-(-size // CHUNK)):
        yield load_file(_chunk(study, number))


def _chunk(study: Study, number: int) -> Path:
    return study.folder / "labelled" / f"{number:06d}.safetensors"


def _candidates(data: SampleSet) -> int:
    return data.manifest.totals.candidates


def summarise(study: Study, results: Results) -> Findings:
    """mIoU by size of the set, and whether the last step still helps."""
    found = variants(study)
    counts, names = list(found.values()), list(found)
    scores = [results.spread(name) for name in names]
    by_split = [results.by_split(name) for name in names]
    rows = []
    for count, name, score, by in zip(counts, names, scores, by_split, strict=True):
        kept = results.spread(name, KEPT).mean
        trained_on = None if kept is None else round(kept)
        rows.append([count, trained_on, score, difference(by, by_split[0])])
    step = difference(by_split[-1], by_split[-2])
    evidence = (
        f"mIoU is {points(scores[0])} with {counts[0]} synthetic images and {points(scores[-1])} "
        f"with {counts[-1]}; the last step, from {counts[-2]}, changes it by {points(step)}"
    )
    columns = ["synthetic images", "after dropping", "mIoU", "minus the fewest"]
    return Findings(
        Table(columns, rows),
        sentence("mIoU saturates as synthetic images are added", does_not_help(step), evidence),
        "It counts as saturated unless the mean gain in mIoU from the second largest size to the "
        "largest, split by split, exceeds its standard deviation. Every segmenter is that of the "
        "best mIoU on the split's training images.",
        {"saturation": lambda: score_lines(counts, {MIOU: scores}, "synthetic images")},
        _notes(study),
    )


def _notes(study: Study) -> list[str]:
    data = study.sources.data
    if data is None:
        return []
    return [
        f"All splits share the labels of {data}: if its labeler was trained on images that are "
        "scored here, the scores are too high. What the dataset dropped counts as the most "
        "uncertain of each prefix."
    ]


ANALYSIS = Analysis(
    name="saturation",
    title="mIoU with more synthetic images (Table 6)",
    cells=lambda study: on_all_splits(study, variants(study)),
    run=run,
    summarise=summarise,
    settings=SaturationSettings,
    check=check,
    prepare=prepare,
)
