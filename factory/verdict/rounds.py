"""Rounds: what was learned labels the photographs again, together with the pixel classifiers.

Round 0 is the generator's U-Net, fine-tuned on the labels. In round r, the photographs get the mean
of the probabilities of the pixel classifiers and of the segmenter of round r - 1. The network
labeler is not asked: it is the U-Net of round 0 once more. A new segmenter, which again starts from
the generator, learns from these, then from the labels. It never starts from its predecessor, whose
mistakes it would keep. All of them learn with strong augmentation, which helps a network that
starts from the generator and not one that starts at random (neural tissue, 12 labels: 0.51 against
0.45, and 0.45 against 0.44).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from factory.verdict.bench import Bench
from factory.verdict.labels import levels_of, save_tensors
from factory.verdict.students import finishing, levels_by, unet_settings
from train_seg.config import SegmenterConfig
from train_seg.data.training_data import LabeledImages
from train_seg.network.segmenter import Segmenter

POOL = "photographs"


def fine_tuned(bench: Bench, is_strong: bool = True) -> Segmenter:
    """The generator's U-Net, or a random one without it, trained on the labels: round 0."""
    start = bench.materials.start
    name = f"{'unet' if start is None else 'generator-unet'}{'-strong' if is_strong else ''}"
    settings = _settings(bench, bench.config.label_steps, is_strong)
    return bench.student(name, [bench.labels()], settings, init=start)


def learn(bench: Bench, number: int) -> Segmenter:
    """The segmenter of round `number` >= 1; earlier rounds are made first, once."""
    config, start = bench.config, bench.materials.start
    before = fine_tuned(bench) if number == 1 else learn(bench, number - 1)
    settings = _settings(bench, config.pretrain_steps, is_strong=True)
    settings = settings.model_copy(update={"soft_labels": config.soft_labels})
    data = _labelled(bench, before, number)
    taught = bench.student(f"round-{number}-{POOL}", [data], settings, init=start)
    finish = finishing(config, taught.config)
    return bench.student(f"round-{number}", [bench.labels()], finish, init=taught)


def _settings(bench: Bench, steps: int, is_strong: bool) -> SegmenterConfig:
    return unet_settings(bench.config, bench.size, bench.seed, steps, is_strong)


def _labelled(bench: Bench, segmenter: Segmenter, number: int) -> LabeledImages:
    """The photographs with the labels of round `number`."""
    path: Path = bench.folder / f"{POOL}.round-{number}.safetensors"
    images, theirs = bench.materials.pool(POOL).images, bench.taught(POOL, "ensemble").levels
    if not path.is_file():
        ours = levels_by(segmenter, images)
        # The sum of two levels may be 510; `levels_of` scales it.
        save_tensors(path, {"levels": levels_of(ours.short() + theirs)})
    kept = bench.may_learn_from(images)
    levels = load_file(path)["levels"][kept]
    masks = levels.argmax(1).to(torch.uint8)
    return replace(bench.labelled(images[kept], masks, POOL), probabilities=levels)
