"""Segmenting photographs with a factorized generator alone: one pass, no labeler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

        Raises ValueError, in one line, for a generator without regions; else as `generator_recipe`.
        """
        from factory.annotation.samples import load_generator
        from factory.recipe import find_weights, generator_recipe
        from generators.factorized.model import FactorizedGenerator

        recipe = generator_recipe(None, weights, overrides)
        check_has_regions("--generator " + weights, recipe.generator)
        generator, _ = load_generator("--generator", recipe.generator, device)
        assert isinstance(generator, FactorizedGenerator)
        found = find_weights("--generator", weights)
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

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Region ids uint8 `[N, h, w]` of images uint8 `[N, 3, h, w]` of any size.

        Images are resized to that of the generator, and their masks m back to `h` x `w`.
        """
        import torch
        import torch.nn.functional as F

        from generators.ddpm.model import to_uint8, to_unit_range

        found, size = [], tuple(images.shape[-2:])
        for batch in images.split(self.generator.batch_size):
            if size != self.image_size:
                x = to_unit_range(batch)
                x = F.interpolate(x, self.image_size, mode="bilinear", antialias=True)
                batch = to_uint8(x)
            m = self.generator.find_regions(batch)
            if size != self.image_size:
                m = F.interpolate(m, size, mode="bilinear")
            found.append(m.argmax(1).to(torch.uint8).cpu())
        return torch.cat(found)


def check_has_regions(flag: str, config: GeneratorConfig) -> None:
    """Raise ValueError, naming `flag`, unless the generator is a factorized one."""
    if config.kind != "factorized":
        raise ValueError(
            f"{flag}: found a {config.kind} generator, which has no regions; expected one of "
            "`train-generator --kind factorized`"
        )
