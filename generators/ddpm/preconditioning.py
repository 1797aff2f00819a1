"""Networks that see noise levels sigma instead of timesteps, and their samplers.

Karras et al. 2022 (EDM) wrap a network F in a denoiser of images x = x_0 + σ ε:

    D(x; σ) = c_skip(σ) x + c_out(σ) F(c_in(σ) x; c_noise(σ))

Consistency models (Song et al. 2023) do the same, with c_skip and c_out such that
D(x; σ_min) = x. In both, x_0 lies in [-1, 1] and σ between `SIGMA_MIN` and `SIGMA_MAX`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generators.ddpm.config import SIGMA_MAX, SIGMA_MIN, DDPMConfig, Parametrisation
from generators.ddpm.samplers import Denoise, DrawNoise

SIGMA_DATA = 0.5  # standard deviation of the images
RHO = 7.0  # how much denser small noise levels are

# (x `[N, 3, H, W]`, σ) -> D(x; σ), the clean images, float32
Clean = Callable[[Tensor, float], Tensor]


def scalings(sigma: Tensor, parametrisation: Parametrisation) -> tuple[Tensor, Tensor]:
    """c_skip and c_out, of the shape of `sigma`."""
    above = sigma - SIGMA_MIN if parametrisation == "consistency" else sigma
    skip = SIGMA_DATA**2 / (above**2 + SIGMA_DATA**2)
    return skip, above * SIGMA_DATA * input_scaling(sigma)


def input_scaling(sigma: Tensor) -> Tensor:
    """c_in, of the shape of `sigma`."""
    return (sigma**2 + SIGMA_DATA**2).rsqrt()


def time_of(sigma: Tensor) -> Tensor:
    """c_noise, of the shape of `sigma`: what consistency_models' networks embed as a timestep."""
    return 1000 / 4 * sigma.log()


def sigma_of(abar: Tensor) -> Tensor:
    """The noise level with the ratio of signal to noise that ᾱ = `abar` has, of its shape."""
    return ((1 - abar) / abar).sqrt()


def preconditioned(network: Denoise, parametrisation: Parametrisation, clip: bool) -> Clean:
    """D of the network F, given as a function of images and time; `clip` limits it to [-1, 1]."""

    def clean(x: Tensor, sigma: float) -> Tensor:
        level = torch.tensor(sigma, dtype=torch.float64)
        skip, out = map(float, scalings(level, parametrisation))
        output = network(float(input_scaling(level)) * x, float(time_of(level)))
        x_0 = skip * x + out * output[:, : x.shape[1]]  # without a learned variance
        return x_0.clamp(-1, 1) if clip else x_0

    return clean


def sample(clean: Clean, config: DDPMConfig, draw: DrawNoise) -> Tensor:
    """x_0 `[N, 3, H, W]`, float32, by `config.sampler`; the first draw is the initial noise."""
    if config.sampler == "multistep":
        return _multistep(clean, config, draw)
    return _probability_flow(clean, config, draw)


def noise_levels(config: DDPMConfig) -> list[float]:
    """The noise levels of the steps, descending.

    Evenly spaced in σ^(1/ρ) (Karras et al. 2022, Eq. 5). An EDM's last one is `SIGMA_MIN`. A
    consistency model's n are the first n of n + 1. The second of two is in the middle; those that
    Song et al. published lie 41 to 56 % of the way to `SIGMA_MIN`.
    """
    if config.noise_levels is not None:
        return list(config.noise_levels)
    intervals = config.steps - (config.sampler != "multistep")
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    steps = range(config.steps)
    return [(high + i / max(intervals, 1) * (low - high)) ** RHO for i in steps]


def _multistep(clean: Clean, config: DDPMConfig, draw: DrawNoise) -> Tensor:
    """Song et al. 2023, Algorithm 1."""
    first, *others = noise_levels(config)
    x_0 = clean(first * draw(), first)
    for sigma in others:
        x_0 = clean(x_0 + (sigma**2 - SIGMA_MIN**2) ** 0.5 * draw(), sigma)
    return x_0


def _probability_flow(clean: Clean, config: DDPMConfig, draw: DrawNoise) -> Tensor:
    """Karras et al. 2022, Algorithm 1, without the corrections (of Heun) for `euler`.

    A step ends at the next noise level; the last at none, where there is no correction.
    """
    levels = noise_levels(config)
    x = levels[0] * draw()
    for sigma, following in zip(levels, [*levels[1:], 0.0], strict=True):
        slope = (x - clean(x, sigma)) / sigma
        end = x + (following - sigma) * slope
        if config.sampler == "heun" and following > 0:
            slope = (slope + (end - clean(end, following)) / following) / 2
            end = x + (following - sigma) * slope
        x = end
    return x
