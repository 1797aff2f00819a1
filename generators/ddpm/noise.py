"""The noise that images are mixed with: white, plus a random shift of each whole channel.

White noise hardly touches the mean colour of an image: its mean over 64x64 pixels has a standard
deviation of 1/64, so the network has to read the colour of a sample from a signal that faint, and
until it has learnt to, samples all come out in the average colour. A shift of standard deviation
`offset_std` a channel ("offset noise") makes colour as noisy as everything else. It is no
approximation: x_t = √ᾱ x_0 + √(1-ᾱ) ε is a diffusion for any Gaussian ε, if sampling draws the
same ε.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

NOISE_FILE = "noise.json"


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
        (folder / NOISE_FILE).write_text(json.dumps({"offset_std": self.offset_std}) + "\n")

    @classmethod
    def load(cls, folder: Path) -> NoiseModel:
        """The noise model of a generator's folder: white noise if it does not say."""
        file = folder / NOISE_FILE
        return cls(**json.loads(file.read_text())) if file.is_file() else cls()
