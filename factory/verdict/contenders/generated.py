"""Contenders with the generator: labelers, and segmenters that learn from what these label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

from factory.recipe.schema import SelectionPolicy
from factory.verdict import rounds
from factory.verdict.bench import Bench, Kind
from factory.verdict.contenders.base import Contender, Need
from factory.verdict.models import LabelerModel, Model, SegmenterModel
from factory.verdict.settings import CompareConfig
from factory.verdict.students import deeplab_settings, finishing, unet_settings
from train_seg.network.segmenter import Segmenter

PHOTOGRAPHS: frozenset[Need] = frozenset({"generator", "photographs"})
SYNTHETIC: frozenset[Need] = frozenset({"generator", "samples"})
MIXTURE = {"synthetic": 0.4, "photographs": 0.4, "labels": 0.2}


def labelers() -> list[Contender]:
    about: list[tuple[Kind, str, frozenset[Need]]] = [
        ("ensemble", "labeler: pixel classifiers", frozenset({"generator"})),
        ("network", "labeler: the generator's U-Net", frozenset({"generator", "unet"})),
        ("both", "labeler: both", frozenset({"generator", "unet"})),
    ]
    return [
        Contender(f"labeler-{kind}", text, "factory", partial(_labeler, kind=kind), needs, False)
        for kind, text, needs in about
    ]


def fine_tuned() -> list[Contender]:
    one, two = "the generator's U-Net, fine-tuned on the labels", "mean of two such U-Nets"
    return [
        Contender(
            name,
            f"{text}, {'strong' if is_strong else 'light'} augmentation",
            "factory",
            partial(make, is_strong=is_strong),
            frozenset({"generator", "unet"}),
        )
        for name, text, make, is_strong in (
            ("generator-unet", one, _fine_tuned, False),
            ("generator-unet-strong", one, _fine_tuned, True),
            ("generator-mean", two, _mean, True),
            ("generator-mean-light", two, _mean, False),
        )
    ]


def _mean(bench: Bench, is_strong: bool) -> Model:
    return SegmenterModel(rounds.mean_fine_tuned(bench, is_strong))


def _fine_tuned(bench: Bench, is_strong: bool) -> Model:
    return SegmenterModel(rounds.fine_tuned(bench, is_strong))


def _labeler(bench: Bench, kind: Kind) -> Model:
    return LabelerModel(bench.teacher(kind))


def taught() -> list[Contender]:
    return [
        Contender(
            "photographs",
            "U-Net on labelled photographs",
            "factory",
            lambda bench: SegmenterModel(_first(bench, "photographs")),
            PHOTOGRAPHS,
        ),
        Contender(
            "photographs-labels",
            "U-Net on labelled photographs, then the labels",
            "factory",
            lambda bench: SegmenterModel(_then_labels(bench, "photographs")),
            PHOTOGRAPHS,
        ),
        Contender(
            "deeplab-photographs-labels",
            "DeepLabV3 on labelled photographs, then the labels",
            "factory",
            lambda bench: SegmenterModel(_then_labels(bench, "photographs", is_deeplab=True)),
            PHOTOGRAPHS,
            is_last=True,
        ),
        Contender(
            "synthetic",
            "U-Net on synthetic images",
            "factory",
            lambda bench: SegmenterModel(_first(bench, "synthetic")),
            SYNTHETIC,
            is_last=True,
        ),
        Contender(
            "synthetic-labels",
            "U-Net on synthetic images, then the labels",
            "factory",
            lambda bench: SegmenterModel(_then_labels(bench, "synthetic")),
            SYNTHETIC,
            is_last=True,
        ),
        Contender(
            "mixture",
            "U-Net on synthetic images, photographs and labels, mixed",
            "factory",
            _mixture,
            PHOTOGRAPHS | SYNTHETIC,
            is_last=True,
        ),
    ]


def _first(bench: Bench, pool: str, is_deeplab: bool = False) -> Segmenter:
    """A segmenter trained on what the labeler labelled."""
    steps = bench.config.pretrain_steps
    if is_deeplab:
        settings = deeplab_settings(bench.config, bench.size, bench.seed, steps)
    else:
        settings = unet_settings(bench.config, bench.size, bench.seed, steps)
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
    steps = bench.config.pretrain_steps
    settings = unet_settings(bench.config, bench.size, bench.seed, steps)
    shares: Sequence[float] = list(MIXTURE.values())
    return SegmenterModel(bench.student("mixture", data, settings, mix=shares))


def later_rounds(config: CompareConfig) -> list[Contender]:
    """Rounds, of which those with light augmentation end after the first unless asked for."""
    about: list[tuple[rounds.Source, str, frozenset[Need]]] = [
        ("photographs", "photographs", PHOTOGRAPHS),
        ("synthetic", "synthetic images", SYNTHETIC),
        ("both", "photographs and synthetic images", PHOTOGRAPHS | SYNTHETIC),
    ]
    found = []
    for (source, text, needs), is_strong in product(about, (True, False)):
        variant = rounds.Variant(source, is_strong)
        how = f"{text} with the labels, {'strong' if is_strong else 'light'} augmentation"
        for number in range(1, config.rounds + 1):
            is_extra = source == "both" or (not is_strong and number > 1)
            contender = Contender(
                variant.name(number),
                f"from the generator: {how}, round {number}",
                "factory",
                partial(_play, number=number, variant=variant),
                needs,
                is_extra=is_extra,
                instead_of="photographs" if source == "synthetic" and not is_extra else None,
                is_last=number > 1,
            )
            found.append(contender)
    return found


def _play(bench: Bench, number: int, variant: rounds.Variant) -> Model:
    return SegmenterModel(rounds.learn(bench, number, variant))


def policies() -> list[Contender]:
    """What dropping costs: the same photographs with another selection."""
    policies: list[tuple[SelectionPolicy, str]] = [
        ("per_class", "U-Net on labelled photographs, dropped per class"),
        ("none", "U-Net on labelled photographs, none dropped"),
    ]
    return [
        Contender(
            f"photographs-{policy}",
            text,
            "factory",
            partial(_selected, policy=policy),
            PHOTOGRAPHS,
            is_extra=True,
        )
        for policy, text in policies
    ]


def _selected(bench: Bench, policy: SelectionPolicy) -> Model:
    data = bench.taught_images("photographs", policy)
    steps = bench.config.pretrain_steps
    settings = unet_settings(bench.config, bench.size, bench.seed, steps)
    return SegmenterModel(bench.student(f"photographs-{policy}", [data], settings))
