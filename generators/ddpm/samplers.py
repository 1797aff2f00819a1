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

Scheduler: TypeAlias = DDPMScheduler | DDIMScheduler | DPMSolverMultistepScheduler  # noqa: UP040


def make_scheduler(base: DDPMScheduler, config: DDPMConfig) -> Scheduler:
    """The sampler of `config` on the training noise schedule `base`."""
    # "trailing" visits t = T-1 first (Lin et al. 2024): other spacings start from less noise than
    # they are given, which pulls every sample towards the mean colour.
    common: dict[str, Any] = {"timestep_spacing": "trailing"}
    if config.sampler == "ddpm":
        scheduler: Scheduler = DDPMScheduler.from_config(
            base.config, **common, clip_sample=config.clip_x0
        )
    elif config.sampler == "ddim":
        scheduler = DDIMScheduler.from_config(
            base.config, **common, clip_sample=config.clip_x0, set_alpha_to_one=True
        )
    else:
        # Dynamic thresholding with a largest value of 1 is a plain clip of x0 to [-1, 1].
        scheduler = DPMSolverMultistepScheduler.from_config(
            base.config,
            **common,
            algorithm_type="dpmsolver++",
            solver_order=2,
            thresholding=config.clip_x0,
            sample_max_value=1.0,
        )
    scheduler.set_timesteps(config.steps)
    return scheduler


def sample(
    unet: UNet2DModel,
    scheduler: Scheduler,
    x: Tensor,
    noise: list[torch.Generator],
    eta: float = 0.0,
) -> Tensor:
    """Denoise `x` (pure noise `[N, 3, H, W]`) to x0; `noise` holds one CPU generator a sample."""
    extra: dict[str, Any] = {}
    if isinstance(scheduler, DDIMScheduler):
        extra = {"eta": eta, "generator": noise}
    elif isinstance(scheduler, DDPMScheduler):
        extra = {"generator": noise}
    learned_variance = isinstance(scheduler, DDPMScheduler) and scheduler.variance_type in (
        "learned",
        "learned_range",
    )
    for t in scheduler.timesteps:
        output = unet(x, t.to(x.device), return_dict=False)[0].float()
        if not learned_variance:
            output = output[:, : x.shape[1]]
        x = scheduler.step(output, t, x, **extra, return_dict=False)[0]
    return x
