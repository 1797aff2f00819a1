"""Rounds: what was learned labels the photographs again, together with teachers of other kinds.

Samples of the generator may stand in for the photographs, or be added to them.

Round 0 is the mean of two U-Nets of the generator, fine-tuned on the labels. In round r, the
photographs get a mean of class probabilities, aligned to the class shares of the annotated images:
those of round r - 1 count half, those of the pixel classifiers and of a DeepLabV3 that learned from
the labels alone a quarter each. Teachers of different kinds err in different places. The network
labeler is not asked: it is round 0 once more. With a generator that has no U-Net, round 0 is a
U-Net from a random start, and so are the others. A new segmenter, which again starts from the
generator, learns from these and the labels together. It never starts from its predecessor, whose
mistakes it would keep.

All of them learn with strong augmentation, or all with light: on neural tissue strong is better, on
stained cells, whose colours tell the classes apart, light. The labels are mixed in: last steps on
the labels alone, which help after the labels of pixel classifiers, make a segmenter worse that has
learned from better teachers (neural tissue, 12 labels, two halves: 0.588 and 0.539 before such
steps, 0.536 and 0.522 after).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from factory.verdict import baselines
from factory.verdict.bench import Bench
from factory.verdict.labels import align_shares, class_shares, levels_of, save_tensors
from factory.verdict.students import levels_by, unet_settings
from train_seg.config import SegmenterConfig
from train_seg.data.training_data import LabeledImages
from train_seg.network.segmenter import Segmenter

Source = Literal["photographs", "synthetic", "both"]
POOLS: Mapping[Source, tuple[str, ...]] = {
    "photographs": ("photographs",),
    "synthetic": ("synthetic",),
    "both": ("photographs", "synthetic"),
}
MEMBERS = 2  # of round 0
MEMBER_SEED_STRIDE = 1000  # between the seeds of members: benches count theirs from 0


@dataclass(frozen=True)
class Variant:
    """What rounds learn from, and whether its augmentation is strong."""

    source: Source = "photographs"
    is_strong: bool = True

    def name(self, number: int) -> str:
        """The name of round `number`."""
        source = "" if self.source == "photographs" else f"-{self.source}"
        return f"round-{number}{source}{'' if self.is_strong else '-light'}"


DEFAULT = Variant()


def fine_tuned(bench: Bench, is_strong: bool = True, member: int = 0) -> Segmenter:
    """The generator's U-Net, or a random one without it, trained on the labels."""
    start = bench.materials.start
    name = f"{'unet' if start is None else 'generator-unet'}{'-strong' if is_strong else ''}"
    if member:
        name += f"-{member}"
    settings = _settings(bench, bench.config.label_steps, is_strong, member)
    return bench.student(name, [bench.labels()], settings, init=start)


def mean_fine_tuned(bench: Bench, is_strong: bool = True) -> Segmenter:
    """Round 0: the mean of several of these, which differ in their seed.

    Without a U-Net to start from, it is the single one that starts at random.
    """
    if bench.materials.start is None:
        return fine_tuned(bench, is_strong)
    return Segmenter.mean([fine_tuned(bench, is_strong, number) for number in range(MEMBERS)])


def seed_of(member: int) -> int:
    """What a member of a mean adds to the seed of the bench."""
    return MEMBER_SEED_STRIDE * member


def learn(bench: Bench, number: int, variant: Variant = DEFAULT) -> Segmenter:
    """The segmenter of round `number` >= 1; earlier rounds are made first, once.

    If it learns from several pools, each counts by its number of images.
    """
    config, start = bench.config, bench.materials.start
    settings = _settings(bench, config.pretrain_steps, variant.is_strong)
    settings = settings.model_copy(update={"soft_labels": config.soft_labels})
    pools = [_labelled(bench, pool, number, variant) for pool in POOLS[variant.source]]
    every = sum(len(pool.images) for pool in pools)
    mix = [(1 - config.label_share) * len(pool.images) / every for pool in pools]
    data, mix = [*pools, bench.labels()], [*mix, config.label_share]
    return bench.student(variant.name(number), data, settings, start, mix)


def _settings(bench: Bench, steps: int, is_strong: bool, member: int = 0) -> SegmenterConfig:
    return unet_settings(bench.config, bench.size, bench.seed + seed_of(member), steps, is_strong)


def _labelled(bench: Bench, pool: str, number: int, variant: Variant) -> LabeledImages:
    """A pool with the labels of all teachers for round `number`."""
    if number == 1:
        # The same for photographs alone and with samples.
        before = mean_fine_tuned(bench, variant.is_strong)
        name = Variant(is_strong=variant.is_strong).name(0)
    else:
        before, name = learn(bench, number - 1, variant), variant.name(number - 1)
    path: Path = bench.folder / f"{pool}.after-{name}.safetensors"
    images, theirs = bench.materials.pool(pool).images, bench.taught(pool, "ensemble").levels
    alone = baselines.strong_deeplab(bench) if variant.is_strong else baselines.deeplab(bench)
    if not path.is_file():
        levels = 2 * levels_by(before, images).short() + theirs + levels_by(alone, images)
        if bench.config.align_shares:
            levels = align_shares(levels, class_shares(bench.masks, levels.shape[1]))
        else:
            levels = levels_of(levels)
        save_tensors(path, {"levels": levels})
    kept = bench.may_learn_from(images)
    levels = load_file(path)["levels"][kept]
    masks = levels.argmax(1).to(torch.uint8)
    return replace(bench.labelled(images[kept], masks, pool), probabilities=levels)
