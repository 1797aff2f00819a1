"""Settings that must fit the noise schedule and the network of a diffusion model."""

from __future__ import annotations

from diffusers import DDPMScheduler, UNet2DModel

from generators.ddpm import samplers
from generators.ddpm.config import DDPMConfig


def check_timesteps(schedule: DDPMScheduler, config: DDPMConfig) -> None:
    """Raise ValueError unless the schedule has the timesteps to sample and to record features."""
    asked, T = config.features.timesteps, schedule.config.num_train_timesteps
    if config.steps > T:
        raise ValueError(
            f"generator.steps is {config.steps}, but the noise schedule has {T} timesteps: set "
            f"{T} or fewer"
        )
    if late := [t for t in asked if t >= T]:
        raise ValueError(
            f"feature timesteps {late} do not exist: the noise schedule has 0 to {T - 1}; "
            f"set generator.features.timesteps"
        )
    if config.features.record == "trajectory":
        visited = samplers.timesteps(schedule, config)
        if missed := [t for t in asked if t not in visited]:
            near = sorted({min(visited, key=lambda v: abs(v - t)) for t in asked})
            raise ValueError(
                f"{config.sampler} in {config.steps} steps does not visit the feature timesteps "
                f"{missed}: set generator.features.timesteps={near} (the nearest it visits), or "
                f"generator.features.record=renoise"
            )


def check_class(unet: UNet2DModel, config: DDPMConfig) -> None:
    """Raise ValueError unless `class_id` is set if, and only if, the network has classes."""
    count, found = unet.config.num_class_embeds, config.class_id
    if count is None and found is not None:
        raise ValueError(
            f"generator.class_id is {found}, but the network of {config.weights} has no classes: "
            f"remove it"
        )
    if count is not None and (found is None or (found != "random" and found >= count)):
        raise ValueError(
            f"generator.class_id is {found}, but the network of {config.weights} has classes 0 to "
            f"{count - 1}: set it to one of them, or to random"
        )
