"""Where one split is worked on: its labels, teachers and students, each made once.

PARTS/photographs/, annotated/, synthetic/   features, and the samples
      split-0003-9/                          split 3, 9 training images
          labeler-both/ ...                  labelers
          photographs.both.safetensors ...   labels of a pool by a labeler
          student-photographs/ ...           segmenters
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from factory.recipe.schema import SelectionPolicy
from factory.verdict.costs import Ledger
from factory.verdict.folds import Split, draw_splits
from factory.verdict.labels import Labels, label_pool
from factory.verdict.pools import Encoder, Pool, equal_to_none, sample_pool
from factory.verdict.settings import CompareConfig
from factory.verdict.students import train_once
from factory_core.dataset import IGNORE, default_palette
from factory_core.pictures import DEFAULT_PICTURES, Pictures
from factory_core.segmentation_unet import UNetDescription
from labelers.config import LabelerConfig
from labelers.labeler import INFO_FILE, GeneratorInfo, Labeler
from labelers.training.fit import fit
from labelers.training.pixel_order import learnable_classes
from train_seg.config import SegmenterConfig
from train_seg.data.training_data import LabeledImages
from train_seg.network.segmenter import Segmenter

Kind = Literal["ensemble", "network", "both"]


@dataclass(frozen=True)
class Materials:
    """What a comparison is given, and what all its splits share.

    `masks` uint8 `[N, H, W]` belong to the pool `annotated`, `also` is a second labelled set that
    only reports read. `groups` are what the annotated images belong to, None if each is alone.
    `start` is the generator's U-Net, None if it has none. `pictures` is how all images were read.
    """

    config: CompareConfig
    parts: Path
    annotated: Pool
    masks: torch.Tensor
    classes: list[str]
    palette: list[list[int]] | None = None
    groups: Sequence[str] | None = None
    photographs: Pool | None = None
    encoder: Encoder | None = None
    generator: GeneratorInfo | None = None
    start: UNetDescription | None = None
    also: tuple[Pool, torch.Tensor] | None = None
    device: str = "auto"
    pictures: Pictures = DEFAULT_PICTURES

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of all images."""
        return tuple(self.masks.shape[1:])  # type: ignore[return-value]

    @cached_property
    def splits(self) -> list[Split]:
        """The splits of the annotated images; raises ValueError if one cannot be worked on."""
        config = self.config
        drawn = draw_splits(self.masks.numpy(), config.folds, config.seeds, self.groups)
        for split in drawn:
            if not self.can_learn_from(split.train):
                raise ValueError(
                    f"without the images that split {split.number + 1} of {len(drawn)} scores, "
                    "there is only one class to learn: annotate more images that show the others"
                )
            if not (self.masks[list(split.test)] != IGNORE).any():
                raise ValueError(
                    f"the images that split {split.number + 1} of {len(drawn)} scores have no "
                    "labelled pixel (255 everywhere): leave such images out, or label them"
                )
            pool = self.photographs
            if pool is not None and not self.may_learn_from(pool.images, split.test).any():
                raise ValueError(
                    "no photograph is left to learn from: each equals an annotated image that "
                    f"split {split.number + 1} of {len(drawn)} scores, or one of the second "
                    "labelled set: give other --images, too"
                )
        return drawn

    def may_learn_from(self, images: torch.Tensor, held_out: Sequence[int]) -> torch.Tensor:
        """Which of the images uint8 `[N, 3, H, W]` may be learned from, unlabelled, bool `[N]`.

        Not those equal to the annotated images `held_out`, or to one of the second labelled set.
        """
        free = equal_to_none(images, self.annotated.images[list(held_out)])
        return free if self.also is None else free & equal_to_none(images, self.also[0].images)

    def can_learn_from(self, rows: Sequence[int]) -> bool:
        """Whether these annotated images show two classes, by the rule of the labelers if used."""
        least = 1 if self.generator is None else self.config.labeler.min_class_pixels
        return len(learnable_classes(self.masks[list(rows)], least)) > 1

    @cached_property
    def synthetic(self) -> Pool:
        """Samples of the generator, made at the first use."""
        assert self.encoder is not None
        return sample_pool(self.parts / "synthetic", self.encoder, self.config.synthetic)

    def pool(self, name: str) -> Pool:
        """The unlabelled pool `photographs` or `synthetic`."""
        if name == "synthetic":
            return self.synthetic
        assert self.photographs is not None
        return self.photographs


class Bench:
    """The training images `rows` of one split, and what is made of them, in a folder."""

    def __init__(
        self,
        materials: Materials,
        name: str,
        rows: Sequence[int],
        seed: int,
        held_out: Sequence[int] = (),
    ):
        """`held_out` are the annotated images to score."""
        self.materials, self.rows, self.seed = materials, list(rows), seed
        self.config, self.size = materials.config, materials.size
        self.folder = materials.parts / name
        self.costs = Ledger(self.folder / "costs.json")
        self.held_out = held_out

    @property
    def masks(self) -> torch.Tensor:
        """Masks of the training images uint8 `[N, H, W]`."""
        return self.materials.masks[self.rows]

    def labels(self, masks: torch.Tensor | None = None) -> LabeledImages:
        """The annotated images to train on; `masks` replaces theirs."""
        images = self.materials.annotated.images[self.rows]
        return self.labelled(images, self.masks if masks is None else masks, "annotated images")

    def labelled(self, images: torch.Tensor, masks: torch.Tensor, name: str) -> LabeledImages:
        """Images and masks with the comparison's classes."""
        m = self.materials
        palette = m.palette or default_palette(len(m.classes))
        return LabeledImages(images, masks, m.classes, palette, name)

    def teacher(self, kind: Kind) -> Labeler:
        """A labeler trained on the annotated images."""
        if kind == "both":
            return Labeler.both(self.teacher("ensemble"), self.teacher("network"))
        folder = self.folder / f"labeler-{kind}"
        with self.costs.part(f"teacher-{kind}"):
            if (folder / INFO_FILE).is_file():
                return Labeler.load(folder, self._device)
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint = folder / "checkpoint.safetensors"
            labeler = self._fit(kind, checkpoint)
            labeler.save(folder)
            checkpoint.unlink(missing_ok=True)
            return labeler

    def _fit(self, kind: Kind, checkpoint: Path) -> Labeler:
        m = self.materials
        assert m.generator is not None
        settings: LabelerConfig = self.config.labeler.model_copy(
            update={"kind": kind, "seed": self.seed}
        )
        if self.config.upright:
            network = settings.network.model_copy(update={"flips": False, "quarter_turns": False})
            settings = settings.model_copy(update={"network": network})
        about: dict[str, Any] = {
            "classes": m.classes,
            "generator": m.generator,
            "data_digest": m.annotated.digest,
            "palette": m.palette,
            "device": self._device,
            "checkpoint": checkpoint,
        }
        if kind == "network":
            from labelers.network.fit import fit_network

            assert m.start is not None
            images = m.annotated.images[self.rows]
            return fit_network(images, self.masks, m.start, settings, **about)
        blanked = torch.full_like(m.masks, IGNORE)  # the others are not trained on
        blanked[self.rows] = self.masks
        return fit(m.annotated.store, blanked, settings, **about)

    @property
    def _device(self) -> torch.device:
        from factory_core.device import pick_device

        return pick_device(self.materials.device)

    @property
    def best_kind(self) -> Kind:
        """The strongest labeler that the generator permits."""
        return "ensemble" if self.materials.start is None else "both"

    def taught(self, pool: str, kind: Kind | None = None) -> Labels:
        """The labels of all images of an unlabelled pool by a teacher."""
        kind = kind or self.best_kind
        path = self.folder / f"{pool}.{kind}.safetensors"
        with self.costs.part(path.stem):
            # Also if the labels exist: their cost includes that of the teacher.
            teacher = self.teacher(kind)
            return label_pool(path, self.materials.pool(pool), teacher)

    def taught_images(self, pool: str, policy: SelectionPolicy = "uncertain") -> LabeledImages:
        """A pool with the labels of the strongest labeler, without the images that are dropped."""
        labels, images = self.taught(pool), self.materials.pool(pool).images
        kept = labels.kept(self.config.drop_fraction, policy) & self.may_learn_from(images)
        return self.labelled(images[kept], labels.masks[kept], pool)

    def may_learn_from(self, images: torch.Tensor) -> torch.Tensor:
        """Which of the images uint8 `[N, 3, H, W]` are not scored, bool `[N]`."""
        return self.materials.may_learn_from(images, self.held_out)

    def student(
        self,
        name: str,
        data: Sequence[LabeledImages],
        settings: SegmenterConfig,
        init: Segmenter | UNetDescription | None = None,
        mix: Sequence[float] | None = None,
    ) -> Segmenter:
        """A segmenter trained on `data`; `name` identifies it within the split."""
        folder = self.folder / f"student-{name}"
        with self.costs.part(folder.name):
            return train_once(folder, data, settings, init, mix, self.materials.device)

    def delete(self) -> None:
        """Remove everything that was made, when all contenders have been scored."""
        shutil.rmtree(self.folder, ignore_errors=True)


def whole_bench(materials: Materials) -> Bench:
    """All annotated images, for the model to deliver."""
    return Bench(materials, "all", range(len(materials.masks)), seed=0)
