"""Whether a diffusion model denoises: a test of the settings that its file does not say.

A wrong schedule, prediction or number of heads raises no error; the images are just bad. But a
trained network with the right settings removes the noise from its own samples far better than a
filter that sees one pixel at a time, and any other network does not: noise of other levels than it
was trained on, or what it predicts taken for something else, leaves more error than that filter.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from factory_core.device import pick_device, pick_dtype, send
from generators.base import sample_generators
from generators.ddpm import samplers
from generators.ddpm.architecture import Architecture
from generators.ddpm.config import DDPMConfig
from generators.ddpm.guided_settings import Prediction, Schedule, Settings, noise_schedule
from generators.ddpm.network import LARGE_NETWORK, Network, activations
from generators.ddpm.noise import NoiseModel

# Measured on the embedded network, made to answer as one trained for each schedule, prediction and
# number of steps would: 0.13 to 0.15 with its settings, 0.38 to 5.8 with others. Micrographs midway
# through a training: 0.29. Random weights: 0.77 and more.
TRAINED = 0.35
STEPS = 10  # of DDIM
LEVELS = (0.9, 0.7, 0.4)  # ᾱ of the noise to remove
SMALLEST_VARIANCE = 1e-4  # of a sample, in squares of half its range: of a blank one


@dataclass(frozen=True)
class SelfCheck:
    """A network on a device, tried with one noise schedule or another.

    Four samples are tried, or one of a network that is large: 13 passes each.
    """

    network: Network
    image_size: int
    samples: int
    noise: NoiseModel = field(default_factory=NoiseModel)

    @classmethod
    def of(cls, unet: UNet2DModel, device: str = "auto") -> SelfCheck:
        """Takes over `unet`, see `Network`."""
        where = pick_device(device)
        size = unet.config.sample_size
        samples = 1 if activations(unet, (size, size)) >= LARGE_NETWORK else 4
        return cls(Network(unet, where, pick_dtype("auto", where)), size, samples)

    @torch.inference_mode()
    def error(self, schedule: DDPMScheduler) -> float:
        """Squared error of the images denoised with `schedule`, as a share of the filter's.

        The geometric mean over noise levels. Below `TRAINED` for a trained network with its own
        schedule; infinite if it gives values that are not finite.
        """
        steps = min(STEPS, schedule.config.num_train_timesteps)
        config = DDPMConfig(weights="", sampler="ddim", steps=steps)
        streams = sample_generators(0, range(self.samples))

        def draw() -> Tensor:
            noise = self.noise.draw(streams, (3, self.image_size, self.image_size))
            return send(noise.to(memory_format=torch.channels_last), self.network.device)

        x_0 = samplers.sample(self._denoise, schedule, config, draw)
        mean = x_0.mean((2, 3), keepdim=True)
        variance = (x_0 - mean).square().mean((1, 2, 3)).clamp(min=SMALLEST_VARIANCE)
        shares = []
        for level in LEVELS:
            t = int((schedule.alphas_cumprod - level).abs().argmin())
            abar = schedule.alphas_cumprod[t]
            x_t = samplers.q_sample(x_0, draw(), abar)
            found = samplers.predict_x_0(self._denoise(x_t, t), x_t, abar, schedule, clip=True)
            error = (found - x_0).square().mean((1, 2, 3))
            # Of the best linear estimate of a pixel from its noisy value (Wiener's filter).
            filtered = variance * (1 - abar) / (variance * abar + 1 - abar)
            shares.append(float(error.sum() / filtered.sum()))
        if not all(map(math.isfinite, shares)):
            return math.inf
        return math.prod(shares) ** (1 / len(shares))

    def better(self, net: Architecture, settings: Settings) -> tuple[Settings, float] | None:
        """Settings with another schedule or prediction, where these were assumed, and their error.

        The best ones; None if the network denoises with none of them.
        """
        choices: dict[str, tuple[str, ...]] = {
            "schedule": typing.get_args(Schedule),
            "predicts": typing.get_args(Prediction),
        }
        open_keys = [key for key in choices if key in settings.assumed]
        tried = []
        for values in product(*(choices[key] for key in open_keys)):
            changes: dict[str, Any] = dict(zip(open_keys, values, strict=True))
            other = replace(settings, **changes)
            if other != settings:
                tried.append((self.error(noise_schedule(net, other)), other))
        error, best = min(tried, key=lambda pair: pair[0], default=(math.inf, settings))
        return (best, error) if error < TRAINED else None

    def _denoise(self, x: Tensor, t: float) -> Tensor:
        table = self.network.unet.class_embedding
        classes = None if table is None else table.weight[:1]
        output, _ = self.network(x, torch.tensor([t]), classes)
        assert output is not None
        return output
