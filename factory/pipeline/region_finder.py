"""Segmenting photographs with a factorized generator alone: one pass, no labeler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factory_core.dataset import default_palette
from factory_core.pictures import Pictures, remembered

if TYPE_CHECKING:
    import torch

    from generators.config import GeneratorConfig
    from generators.factorized.model import FactorizedGenerator


@dataclass(frozen=True)
class RegionFinder:
    """The regions of images; `pictures` is how the images of the generator's training were read."""

    generator: FactorizedGenerator
    pictures: Pictures

    @classmethod
    def load(cls, weights: str, overrides: Sequence[str], device: str) -> RegionFinder:
        """The generator at `weights`; `overrides` are settings `KEY=VALUE` of a recipe.

        Raises FileNotFoundError if nothing is there, ValueError for a generator without regions,
        each in one line; else as `generator_recipe`.
        """
        from factory.annotation.samples import load_generator
        from factory.recipe import find_weights, generator_recipe
        from generators.factorized.model import FactorizedGenerator

        found = find_weights("--generator", weights)
        recipe = generator_recipe(None, weights, overrides)
        check_has_regions("--generator " + weights, recipe.generator)
        generator, _ = load_generator("--generator", recipe.generator, device)
        assert isinstance(generator, FactorizedGenerator)
        return cls(generator, recipe.pictures.over(remembered(found)))

    @property
    def classes(self) -> list[str]:
        """`region 0` to `region K-1`."""
        return [f"region {k}" for k in range(self.generator.regions)]

    @property
    def palette(self) -> list[list[int]]:
        """A colour per region."""
        return default_palette(self.generator.regions)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) at which regions are found."""
        return self.generator.image_size

    def class_ids(self, listing: Path, stems: Sequence[str]) -> list[int]:
        """The class numbers of images by a CSV of file names and classes.

        Raises ValueError, in one line, for an image without a class, or one that the generator does
        not know.
        """
        from generators.training.labels import class_numbers, known_classes, read_classes_csv

        expected = f"--image-classes {listing}: expected file names and classes"
        class_of = {Path(k).stem: v for k, v in read_classes_csv(listing, expected).items()}
        return class_numbers(stems, class_of, known_classes(Path(self.generator.config.weights)))

    def predict(self, images: torch.Tensor, class_ids: Sequence[int] | None = None) -> torch.Tensor:
        """Region ids uint8 `[N, h, w]` of images uint8 `[N, 3, h, w]` of any size.

        Images are resized to that of the generator, and their masks m back to `h` x `w`.
        `class_ids` are their classes, of a class-conditional generator; by default its setting
        `class_id`.
        """
        import torch
        import torch.nn.functional as F

        from generators.ddpm.model import to_uint8, to_unit_range

        found, size = [], tuple(images.shape[-2:])
        step = self.generator.batch_size
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            if size != self.image_size:
                x = to_unit_range(batch)
                x = F.interpolate(x, self.image_size, mode="bilinear", antialias=True)
                batch = to_uint8(x)
            ids = None if class_ids is None else class_ids[start : start + step]
            m = self.generator.find_regions(batch, ids)
            if size != self.image_size:
                m = F.interpolate(m, size, mode="bilinear")
            found.append(m.argmax(1).to(torch.uint8).cpu())
        return torch.cat(found)


def check_has_regions(flag: str, config: GeneratorConfig) -> None:
    """Raise ValueError, naming `flag`, unless the generator is a factorized one."""
    if config.kind != "factorized":
        raise ValueError(
            f"{flag}: found a generator of kind '{config.kind}', which has no regions; "
            "expected one of `train-generator --kind factorized`"
        )
