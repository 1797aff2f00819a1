"""The contenders: each a name, what it needs, how it is trained, and the commands that do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from factory.verdict import rounds
from factory.verdict.bench import Bench, Kind, Materials
from factory.verdict.models import (
    LabelerModel,
    Model,
    SegmenterModel,
    most_frequent_class,
    most_frequent_per_pixel,
)
from factory.verdict.settings import CompareConfig
from factory.verdict.students import deeplab_settings, finishing, unet_settings
from train_seg.config import SegmenterConfig
from train_seg.network.pretrained import settle_encoder_weights
from train_seg.network.segmenter import Segmenter

Need = Literal["photographs", "generator", "unet", "imagenet"]
Group = Literal["blind", "labels", "factory"]

WHY_NOT: dict[Need, str] = {
    "photographs": "needs --images",
    "generator": "needs --generator",
    "unet": "needs a generator with a U-Net that can be fine-tuned",
    "imagenet": "no ImageNet weights of this encoder on this machine",
}
MIXTURE = {"synthetic": 0.4, "photographs": 0.4, "labels": 0.2}


@dataclass(frozen=True)
class Contender:
    """One way to a model of the user's classes.

    `group` is `labels` for those that use annotated images alone, `blind` for controls that do not
    look at the image, or learn from wrong masks. `make` trains it on the images of a bench.
    `is_segmenter` says whether the result can be delivered as a segmenter.
    """

    name: str
    description: str
    group: Group
    make: Callable[[Bench], Model]
    needs: frozenset[Need] = frozenset()
    is_segmenter: bool = True


def contenders(config: CompareConfig) -> list[Contender]:
    """All contenders, cheap ones first within their group."""
    return [*_blind(), *_labels_only(), *_labelers(), *_taught(), *_rounds(config)]


def missing(contender: Contender, materials: Materials) -> Need | None:
    """What `contender` needs and `materials` do not have; None if nothing."""
    there: Mapping[Need, bool] = {
        "photographs": materials.photographs is not None,
        "generator": materials.encoder is not None,
        "unet": materials.start is not None,
        "imagenet": "imagenet" in contender.needs and _has_imagenet(materials),
    }
    return next((need for need in sorted(contender.needs) if not there[need]), None)


# --- without the image, and with annotated images alone -------------------------------------


def _blind() -> list[Contender]:
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


def _labels_only() -> list[Contender]:
    return [
        Contender("unet", "U-Net, labels alone", "labels", partial(_unet, is_strong=False)),
        Contender(
            "unet-strong",
            "U-Net, labels alone, strong augmentation",
            "labels",
            partial(_unet, is_strong=True),
        ),
        Contender("deeplab", "DeepLabV3, labels alone", "labels", _deeplab),
        Contender(
            "deeplab-strong",
            "DeepLabV3, labels alone, strong augmentation",
            "labels",
            partial(_deeplab, name="deeplab-strong", is_strong=True),
        ),
        Contender(
            "deeplab-imagenet",
            "DeepLabV3 from ImageNet, labels alone",
            "labels",
            partial(_deeplab, name="deeplab-imagenet", encoder_weights="imagenet"),
            frozenset({"imagenet"}),
        ),
    ]


def _unet(bench: Bench, is_strong: bool) -> Model:
    settings = _unet_settings(bench, bench.config.label_steps, is_strong)
    name = "unet-strong" if is_strong else "unet"
    return SegmenterModel(bench.student(name, [bench.labels()], settings))


def _deeplab(bench: Bench, name: str = "deeplab", **changes: object) -> Model:
    steps = bench.config.label_steps
    settings = deeplab_settings(bench.config, bench.size, bench.seed, steps, **changes)
    return SegmenterModel(bench.student(name, [bench.labels()], settings))


def _shuffled(bench: Bench) -> Model:
    """Every image gets the mask of another one."""
    order = np.random.default_rng(bench.seed).permutation(len(bench.rows))
    masks = bench.masks.clone()
    masks[order] = bench.masks[np.roll(order, 1)]
    settings = _unet_settings(bench, bench.config.label_steps)
    return SegmenterModel(bench.student("blind-shuffled", [bench.labels(masks)], settings))


def _unet_settings(bench: Bench, steps: int, is_strong: bool = False) -> SegmenterConfig:
    return unet_settings(bench.config, bench.size, bench.seed, steps, is_strong)


def _has_imagenet(materials: Materials) -> bool:
    settings = deeplab_settings(materials.config, materials.size, 0, 1, encoder_weights="cached")
    return settle_encoder_weights(settings).encoder_weights is not None


# --- with the generator ---------------------------------------------------------------------


def _labelers() -> list[Contender]:
    about: list[tuple[Kind, str, frozenset[Need]]] = [
        ("ensemble", "labeler: pixel classifiers", frozenset({"generator"})),
        ("network", "labeler: the generator's U-Net", frozenset({"generator", "unet"})),
        ("both", "labeler: both", frozenset({"generator", "unet"})),
    ]
    direct = [
        Contender(f"labeler-{kind}", text, "factory", partial(_labeler, kind=kind), needs, False)
        for kind, text, needs in about
    ]
    tuned = Contender(
        "generator-unet",
        "the generator's U-Net, fine-tuned on the labels",
        "factory",
        lambda bench: SegmenterModel(rounds.fine_tuned(bench)),
        frozenset({"generator", "unet"}),
    )
    return [*direct, tuned]


def _labeler(bench: Bench, kind: Kind) -> Model:
    return LabelerModel(bench.teacher(kind))


def _taught() -> list[Contender]:
    photographs, synthetic = frozenset({"generator", "photographs"}), frozenset({"generator"})
    return [
        Contender(
            "photographs",
            "U-Net on labelled photographs",
            "factory",
            lambda bench: SegmenterModel(_first(bench, "photographs")),
            frozenset[Need](photographs),
        ),
        Contender(
            "photographs-labels",
            "U-Net on labelled photographs, then the labels",
            "factory",
            lambda bench: SegmenterModel(_then_labels(bench, "photographs")),
            frozenset[Need](photographs),
        ),
        Contender(
            "deeplab-photographs-labels",
            "DeepLabV3 on labelled photographs, then the labels",
            "factory",
            lambda bench: SegmenterModel(_then_labels(bench, "photographs", is_deeplab=True)),
            frozenset[Need](photographs),
        ),
        Contender(
            "synthetic",
            "U-Net on synthetic images",
            "factory",
            lambda bench: SegmenterModel(_first(bench, "synthetic")),
            frozenset[Need](synthetic),
        ),
        Contender(
            "synthetic-labels",
            "U-Net on synthetic images, then the labels",
            "factory",
            lambda bench: SegmenterModel(_then_labels(bench, "synthetic")),
            frozenset[Need](synthetic),
        ),
        Contender(
            "mixture",
            "U-Net on synthetic images, photographs and labels, mixed",
            "factory",
            _mixture,
            frozenset[Need](photographs),
        ),
    ]


def _first(bench: Bench, pool: str, is_deeplab: bool = False) -> Segmenter:
    """A segmenter trained on what the labeler labelled."""
    steps = bench.config.pretrain_steps
    if is_deeplab:
        settings = deeplab_settings(bench.config, bench.size, bench.seed, steps)
    else:
        settings = _unet_settings(bench, steps)
    name = f"deeplab-{pool}" if is_deeplab else pool
    return bench.student(name, [bench.taught_images(pool)], settings)


def _then_labels(bench: Bench, pool: str, is_deeplab: bool = False) -> Segmenter:
    """Trained on what the labeler labelled, finished on what a person drew."""
    first = _first(bench, pool, is_deeplab)
    name = f"deeplab-{pool}-labels" if is_deeplab else f"{pool}-labels"
    settings = finishing(bench.config, first.config)
    return bench.student(name, [bench.labels()], settings, init=first)


def _mixture(bench: Bench) -> Model:
    data = [bench.taught_images("synthetic"), bench.taught_images("photographs"), bench.labels()]
    settings = _unet_settings(bench, bench.config.pretrain_steps)
    shares: Sequence[float] = list(MIXTURE.values())
    return SegmenterModel(bench.student("mixture", data, settings, mix=shares))


def _rounds(config: CompareConfig) -> list[Contender]:
    def play(bench: Bench, number: int) -> Model:
        return SegmenterModel(rounds.learn(bench, number))

    return [
        Contender(
            f"round-{number}",
            f"from the generator: photographs, then the labels, round {number}",
            "factory",
            partial(play, number=number),
            frozenset({"generator", "photographs"}),
        )
        for number in range(1, config.rounds + 1)
    ]
