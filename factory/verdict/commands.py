"""The commands that train a contender on all labels, with every setting that is not a default."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from factory.recipe.schema import DatasetConfig
from factory.verdict.contenders.generated import MIXTURE
from factory.verdict.rounds import MEMBERS, seed_of
from factory.verdict.settings import CompareConfig, changed_settings, differing
from factory.verdict.students import deeplab_settings, finishing, unet_settings
from labelers.config import FastTraining, LabelerConfig
from train_seg.config import PRESETS, SegmenterConfig

POLICIES = ("photographs-per_class", "photographs-none")
# Contender -> what it is the mean of, with the seed of each.
MEANS = {
    "labels-mean": [("unet-strong", 0), ("deeplab-strong", 0)],
    "labels-mean-light": [("unet", 0), ("deeplab", 0)],
    "generator-mean": [("generator-unet-strong", seed_of(member)) for member in range(MEMBERS)],
    "generator-mean-light": [("generator-unet", seed_of(member)) for member in range(MEMBERS)],
}
READING = ("train-deeplab", "train-labeler", "label", "rounds")  # these read pictures
OPTIONS = {"max_steps": "--steps", "encoder": "--encoder", "seed": "--seed"}  # of train-deeplab


@dataclass(frozen=True)
class Inputs:
    """What the user gave; `size` is (height, width) of training, `kind` the strongest labeler.

    `pictures` are the settings of how images are read.
    """

    labeled: str
    images: str | None = None
    generator: str | None = None
    size: tuple[int, int] = (64, 64)
    kind: str = "both"
    pictures: tuple[str, ...] = ()


def commands(name: str, inputs: Inputs, config: CompareConfig) -> list[str]:
    """The commands that train the contender `name` on all labels, in order."""
    read = _set(inputs.pictures)
    return [
        shlex.join(["factory", *words, *(read if words[0] in READING else [])])
        for words in _Commands(inputs, config).of(name)
    ]


@dataclass(frozen=True)
class _Commands:
    inputs: Inputs
    config: CompareConfig
    seed: int = 0

    def of(self, name: str, out: str = "model") -> list[list[str]]:
        """Words of each command, after `factory`."""
        labels = self.inputs.labeled
        if name.startswith("round-"):
            return [self._rounds(name, out)]
        if name.startswith("labeler-"):
            return [self._labeler(name.removeprefix("labeler-"))]
        if name in MEANS:
            return self._mean(name, out)
        pools = [pool for pool in ("synthetic", "photographs") if pool in name]
        if name == "mixture":
            pools = ["synthetic", "photographs"]
        if not pools:
            init = self._init(self.inputs.generator) if name.startswith("generator-") else []
            settings = self._settings(name, self.config.label_steps)
            return [self._train([labels], out, settings, init)]
        policy = name.rpartition("-")[2] if name in POLICIES else None
        lines = [self._labeler(self.inputs.kind), *(self._pool(pool, policy) for pool in pools)]
        first = self._settings(name, self.config.pretrain_steps)
        if name == "mixture":
            mix = ["--mix", ",".join(f"{share:g}" for share in MIXTURE.values())]
            return [*lines, self._train([*pools, labels], out, first, mix)]
        if not name.endswith("-labels"):
            return [*lines, self._train(pools, out, first)]
        second = finishing(self.config, first)
        return [
            *lines,
            self._train(pools, "taught", first),
            self._train([labels], out, second, self._init("taught")),
        ]

    def _rounds(self, name: str, out: str) -> list[str]:
        _, number, *variant = name.split("-")
        given = {
            "--labeled": self.inputs.labeled,
            "--images": None if "synthetic" in variant else self.inputs.images,
            "--generator": self.inputs.generator,
            "--learn-from": "both" if "both" in variant else None,
            "--augmentation": "light" if "light" in variant else "strong",
        }
        words = [word for key, value in given.items() if value for word in (key, value)]
        words += ["--rounds", number, "--out", out]
        return ["rounds", *words, *_set(changed_settings(self.config))]

    def _mean(self, name: str, out: str) -> list[list[str]]:
        lines, models = [], []
        for number, (member, seed) in enumerate(MEANS[name]):
            models.append(f"model_{number}")
            lines += replace(self, seed=seed).of(member, models[-1])
        return [*lines, ["average", *models, "--out", out]]

    def _labeler(self, kind: str) -> list[str]:
        wanted, has_ensemble = self.config.labeler, kind != "network"
        default = LabelerConfig()
        if is_fast := has_ensemble and isinstance(wanted.training, FastTraining):
            default = default.model_copy(update={"training": FastTraining()})
        if self.config.upright:
            network = wanted.network.model_copy(update={"flips": False, "quarter_turns": False})
            wanted = wanted.model_copy(update={"network": network})
        changed = differing(wanted, default, without={"kind", "weights"})
        # What the other kind needs does not matter.
        unused = {"ensemble": ("network.",), "network": ("training.", "training=")}.get(kind, ())
        changed = [f"labeler.{setting}" for setting in changed if not setting.startswith(unused)]
        fast = ["--fast"] if is_fast else []
        given = ["--generator", self.inputs.generator or "", "--labeled", self.inputs.labeled]
        return ["train-labeler", *given, "--out", "labeler", "--kind", kind, *fast, *_set(changed)]

    def _pool(self, pool: str, policy: str | None) -> list[str]:
        dropped = self.config.drop_fraction
        changed = [f"dataset.drop_fraction={dropped:g}"] if dropped != _DROPPED else []
        if policy is not None:
            changed.append(f"selection.policy={policy}")
        if pool == "synthetic":
            words = ["generate", "--labeler", "labeler", "--n", str(self.config.synthetic)]
        else:
            words = ["label", "--labeler", "labeler", "--images", self.inputs.images or ""]
        return [*words, "--out", pool, *_set(changed)]

    def _settings(self, name: str, steps: int) -> SegmenterConfig:
        """Those of the contender's student."""
        is_strong = name.endswith("-strong")
        config, size = self.config, self.inputs.size
        if not name.startswith("deeplab"):
            return unet_settings(config, size, self.seed, steps, is_strong)
        changes: dict[str, Any] = {"is_strong": is_strong}
        if name.endswith("-imagenet"):
            changes["encoder_weights"] = "imagenet"
        return deeplab_settings(config, size, self.seed, steps, **changes)

    @staticmethod
    def _init(start: str | None) -> list[str]:
        return ["--init", start or ""]

    def _train(
        self, data: Sequence[str], out: str, settings: SegmenterConfig, more: Sequence[str] = ()
    ) -> list[str]:
        preset = "modern" if settings.architecture == "DeepLabV3" else "unet"
        sized = settings.model_copy(
            update={"image_size": self.inputs.size, "validate_every": None}  # nothing to validate
        )
        default = SegmenterConfig.model_validate(PRESETS[preset])
        words = [word for folder in data for word in ("--data", folder)]
        words += [*more, "--out", out, "--preset", preset]
        rest = []
        for setting in differing(sized, default):
            key, _, value = setting.partition("=")
            if key in OPTIONS:
                words += [OPTIONS[key], value]
            else:
                rest.append(setting)
        return ["train-deeplab", *words, *_set(rest)]


_DROPPED: Any = DatasetConfig.model_fields["drop_fraction"].default


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]
