"""Samplers on the noise schedule of training, each starting at pure noise.

`ddpm` Ho et al. 2020, Algorithm 2; `ddim` Song et al. 2021, Eq. 12; `dpmsolver++` Lu et al. 2022,
DPM-Solver++(2M), by diffusers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor

from generators.config import DDPMConfig
from generators.ddpm.noise import NoiseModel

# "trailing" visits t = T-1 first (Lin et al. 2024): other spacings start from less noise than they
# are given, which pulls every sample towards the mean colour.
SPACING = "trailing"

DrawNoise = Callable[[], Tensor]


def sample(
    unet: UNet2DModel,
    schedule: DDPMScheduler,
    noise: NoiseModel,
    config: DDPMConfig,
    generators: list[torch.Generator],
    size: tuple[int, int],
) -> Tensor:
    """x_0 `[N, 3, H, W]` in [-1, 1] on the network's device; one CPU generator a sample."""

    def draw() -> Tensor:
        return noise.draw(generators, (3, *size)).to(unet.device)

    x_T = draw().to(memory_format=torch.channels_last)
    if config.sampler == "dpmsolver++":
        return _dpmsolver(unet, schedule, config, x_T)
    if config.sampler == "ddpm" and schedule.config.variance_type in ("learned", "learned_range"):
        return _ddpm_learned_variance(unet, schedule, config, x_T, generators)
    # Ancestral sampling is DDIM with eta = 1 (Song et al. 2021, Sec. 4.1).
    eta = 1.0 if config.sampler == "ddpm" else config.eta
    return _ddim(unet, schedule, config, x_T, eta, draw)


def _predict(unet: UNet2DModel, x: Tensor, t: Tensor) -> Tensor:
    """The network's output without the channels of a learned variance."""
    return unet(x, t.to(x.device), return_dict=False)[0][:, : x.shape[1]].float()


def _ddim(
    unet: UNet2DModel,
    schedule: DDPMScheduler,
    config: DDPMConfig,
    x: Tensor,
    eta: float,
    draw: DrawNoise,
) -> Tensor:
    """Song et al. 2021, Eq. 12, with ε recomputed from the clipped x_0.

    Our own, because diffusers' step takes the root of -6e-8 at zero terminal SNR with eta = 1, and
    assumes equal strides where the number of steps does not divide that of training.
    """
    scheduler = DDPMScheduler.from_config(schedule.config, timestep_spacing=SPACING)
    scheduler.set_timesteps(config.steps)
    abar = schedule.alphas_cumprod
    for i, t in enumerate(scheduler.timesteps):
        a = abar[t]
        last = i + 1 == len(scheduler.timesteps)
        a_prev = torch.ones(()) if last else abar[scheduler.timesteps[i + 1]]
        output = _predict(unet, x, t)
        if schedule.config.prediction_type == "v_prediction":
            x_0 = a.sqrt() * x - (1 - a).sqrt() * output
        else:
            x_0 = (x - (1 - a).sqrt() * output) / a.sqrt()
        if config.clip_x0:
            x_0 = x_0.clamp(-1, 1)
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        variance = eta**2 * (1 - a_prev) / (1 - a) * (1 - a / a_prev)  # Eq. 16
        x = a_prev.sqrt() * x_0 + (1 - a_prev - variance).clamp(min=0).sqrt() * eps
        if variance > 0:
            x = x + variance.sqrt() * draw()
    return x


def _dpmsolver(unet: UNet2DModel, schedule: DDPMScheduler, config: DDPMConfig, x: Tensor) -> Tensor:
    scheduler = DPMSolverMultistepScheduler.from_config(
        schedule.config,
        timestep_spacing=SPACING,
        algorithm_type="dpmsolver++",
        solver_order=2,
        # Dynamic thresholding with a largest value of 1 is a plain clip of x_0 to [-1, 1].
        thresholding=config.clip_x0,
        sample_max_value=1.0,
    )
    scheduler.set_timesteps(config.steps)
    for t in scheduler.timesteps:
        x = scheduler.step(_predict(unet, x, t), t, x, return_dict=False)[0]
    return x


def _ddpm_learned_variance(
    unet: UNet2DModel,
    schedule: DDPMScheduler,
    config: DDPMConfig,
    x: Tensor,
    generators: list[torch.Generator],
) -> Tensor:
    """Algorithm 2 with the variance that the network predicts (Nichol & Dhariwal 2021)."""
    scheduler = DDPMScheduler.from_config(
        schedule.config, timestep_spacing=SPACING, clip_sample=config.clip_x0
    )
    scheduler.set_timesteps(config.steps)
    for t in scheduler.timesteps:
        output = unet(x, t.to(x.device), return_dict=False)[0].float()
        x = scheduler.step(output, t, x, generator=generators, return_dict=False)[0]
    return x
