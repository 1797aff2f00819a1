"""Contenders without the generator: controls that are blind, and models on the labels alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from factory.verdict import baselines
from factory.verdict.bench import Bench, Materials
from factory.verdict.contenders.base import Contender
from factory.verdict.models import (
    Model,
    SegmenterModel,
    most_frequent_class,
    most_frequent_per_pixel,
)
from factory.verdict.students import deeplab_settings, unet_settings
from train_seg.network.pretrained import settle_encoder_weights
from train_seg.network.segmenter import Segmenter


def blind() -> list[Contender]:
    return [
        Contender(
            "blind-class",
            "the most frequent class everywhere",
            "blind",
            lambda bench: most_frequent_class(bench.masks, len(bench.materials.classes)),
            is_segmenter=False,
        ),
        Contender(
            "blind-place",
            "the most frequent class at each position",
            "blind",
            lambda bench: most_frequent_per_pixel(bench.masks, len(bench.materials.classes)),
            is_segmenter=False,
        ),
        Contender("blind-shuffled", "U-Net on masks of other images", "blind", _shuffled),
    ]


def labels_only() -> list[Contender]:
    return [
        Contender("unet", "U-Net, labels alone", "labels", _from(baselines.unet, is_strong=False)),
        Contender(
            "unet-strong",
            "U-Net, labels alone, strong augmentation",
            "labels",
            _from(baselines.unet, is_strong=True),
        ),
        Contender("deeplab", "DeepLabV3, labels alone", "labels", _from(baselines.deeplab)),
        Contender(
            "deeplab-strong",
            "DeepLabV3, labels alone, strong augmentation",
            "labels",
            _from(baselines.strong_deeplab),
        ),
        Contender(
            "labels-mean",
            "mean of U-Net and DeepLabV3, labels alone, strong augmentation",
            "labels",
            _from(_mean, is_strong=True),
        ),
        Contender(
            "labels-mean-light",
            "mean of U-Net and DeepLabV3, labels alone",
            "labels",
            _from(_mean, is_strong=False),
        ),
        Contender(
            "deeplab-imagenet",
            "DeepLabV3 from ImageNet, labels alone",
            "labels",
            _from(baselines.deeplab, name="deeplab-imagenet", encoder_weights="imagenet"),
            frozenset({"imagenet"}),
        ),
    ]


def _from(train: Callable[..., Segmenter], **settings: object) -> Callable[[Bench], Model]:
    return lambda bench: SegmenterModel(train(bench, **settings))


def _mean(bench: Bench, is_strong: bool) -> Segmenter:
    deeplab = baselines.strong_deeplab if is_strong else baselines.deeplab
    return Segmenter.mean([baselines.unet(bench, is_strong), deeplab(bench)])


def _shuffled(bench: Bench) -> Model:
    """Every image gets the mask of another one."""
    order = np.random.default_rng(bench.seed).permutation(len(bench.rows))
    masks = bench.masks.clone()
    masks[order] = bench.masks[np.roll(order, 1)]
    steps = bench.config.label_steps
    settings = unet_settings(bench.config, bench.size, bench.seed, steps)
    return SegmenterModel(bench.student("blind-shuffled", [bench.labels(masks)], settings))


def has_imagenet(materials: Materials) -> bool:
    settings = deeplab_settings(materials.config, materials.size, 0, 1, encoder_weights="cached")
    return settle_encoder_weights(settings).encoder_weights is not None
