"""The noise that images are mixed with: white, plus a random shift of each whole channel.

White noise hardly changes the mean colour of an image: over 64x64 pixels, its mean has a standard
deviation of 1/64. The network has to infer the colour of a sample from this faint signal, and until
it has learned to, all samples have the average colour. A shift of each channel with standard
deviation `offset_std` ("offset noise") makes colour as noisy as everything else. This is exact:
x_t = √ᾱ x_0 + √(1-ᾱ) ε is a diffusion for any Gaussian ε, if sampling draws the same ε.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from factory_core.models import read_model
from factory_core.storage import write_bytes

NOISE_FILE = "noise.json"


class NoiseFile(BaseModel):
    """Content of `noise.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offset_std: float = Field(default=0.0, ge=0, allow_inf_nan=False)


@dataclass(frozen=True)
class NoiseModel:
    """Gaussian noise with covariance 1 + offset_std² between pixels of one channel."""

    offset_std: float = 0.0

    def draw(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
        """One sample `[3, H, W]` = `shape` from each generator: `[N, 3, H, W]`."""
        return torch.stack([self._draw_one(g, shape) for g in generators])

    def _draw_one(self, generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        white = torch.randn(*shape, generator=generator)
        if not self.offset_std:
            return white
        return white + self.offset_std * torch.randn(shape[0], 1, 1, generator=generator)

    def save(self, folder: Path) -> None:
        """Write the noise model beside the network that was trained with it."""
        content = json.dumps({"offset_std": self.offset_std}) + "\n"
        write_bytes(folder / NOISE_FILE, content.encode())

    @classmethod
    def load(cls, folder: Path) -> NoiseModel:
        """The noise model of a generator's folder; without `noise.json`, white noise.

        Raises ValueError if the file is damaged.
        """
        file = folder / NOISE_FILE
        if not file.is_file():
            return cls()
        return cls(read_model(file, NoiseFile, "copy the folder again").offset_std)
