"""Samplers: diffusers' schedulers, configured so that every one starts at pure noise.

`ddpm` Ho et al. 2020, Algorithm 2; `ddim` Song et al. 2021, Eq. 12; `dpmsolver++` Lu et al. 2022,
DPM-Solver++(2M).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor

from generators.config import DDPMConfig
from generators.ddpm.noise import NoiseModel

Scheduler: TypeAlias = DDPMScheduler | DDIMScheduler | DPMSolverMultistepScheduler


def learns_variance(schedule: DDPMScheduler) -> bool:
    """Whether the network also predicts the variance of the ancestral step (ADM)."""
    return schedule.config.variance_type in ("learned", "learned_range")


def make_scheduler(schedule: DDPMScheduler, config: DDPMConfig) -> Scheduler:
    """The sampler of `config` on the training noise schedule."""
    # "trailing" visits t = T-1 first (Lin et al. 2024): other spacings start from less noise than
    # they are given, which pulls every sample towards the mean colour.
    common: dict[str, Any] = {"timestep_spacing": "trailing"}
    scheduler: Scheduler
    if config.sampler == "dpmsolver++":
        scheduler = DPMSolverMultistepScheduler.from_config(
            schedule.config,
            **common,
            algorithm_type="dpmsolver++",
            solver_order=2,
            # Dynamic thresholding with a largest value of 1 is a plain clip of x0 to [-1, 1].
            thresholding=config.clip_x0,
            sample_max_value=1.0,
        )
    elif config.sampler == "ddpm" and learns_variance(schedule):
        scheduler = DDPMScheduler.from_config(schedule.config, **common, clip_sample=config.clip_x0)
    else:
        scheduler = DDIMScheduler.from_config(
            schedule.config, **common, clip_sample=config.clip_x0, set_alpha_to_one=True
        )
    scheduler.set_timesteps(config.steps)
    return scheduler


def sample(
    unet: UNet2DModel,
    schedule: DDPMScheduler,
    noise: NoiseModel,
    config: DDPMConfig,
    generators: list[torch.Generator],
    size: tuple[int, int],
) -> Tensor:
    """x_0 `[N, 3, H, W]` in [-1, 1] on the network's device; one CPU generator a sample."""
    shape = (3, *size)
    x = noise.draw(generators, shape)
    x = x.to(unet.device, memory_format=torch.channels_last)
    scheduler = make_scheduler(schedule, config)
    # Ancestral sampling is DDIM with eta = 1 (Song et al. 2021, Sec. 4.1).
    eta = 1.0 if config.sampler == "ddpm" else config.eta
    for t in scheduler.timesteps:
        output = unet(x, t.to(x.device), return_dict=False)[0].float()
        if isinstance(scheduler, DDPMScheduler):
            x = scheduler.step(output, t, x, generator=generators, return_dict=False)[0]
            continue
        extra: dict[str, Any] = {}
        if isinstance(scheduler, DDIMScheduler) and eta > 0:
            extra = {"eta": eta, "variance_noise": noise.draw(generators, shape).to(x.device)}
        # A learned variance is of no use here: the first three channels are the prediction.
        x = scheduler.step(output[:, :3], t, x, **extra, return_dict=False)[0]
    return x
