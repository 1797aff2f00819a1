"""EDMs and consistency models of openai/consistency_models as a `Generator`.

Their U-Net is that of guided-diffusion, but it sees noise levels. Features are those of a diffusion
model: a timestep t of the recipe stands for the noise level with the same ratio of signal to noise,
σ = √((1-ᾱ_t)/ᾱ_t), on the schedule of the DDPM paper.
"""

from __future__ import annotations

from torch import Tensor

from factory_core.device import send
from generators.ddpm import preconditioning
from generators.ddpm.model import DDPMGenerator
from generators.ddpm.preconditioning import input_scaling, sigma_of, time_of
from generators.ddpm.samplers import Denoise, DrawNoise


class PreconditionedGenerator(DDPMGenerator):
    """Samples images with a network for which `config.parametrisation` is set."""

    def _solve(self, denoise: Denoise, draw: DrawNoise) -> Tensor:
        assert self.config.parametrisation is not None
        clean = preconditioning.preconditioned(
            denoise, self.config.parametrisation, self.config.clip_x0
        )
        return preconditioning.sample(clean, self.config, draw)

    def _noised(self, x_0: Tensor, eps: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        sigma = sigma_of(self.schedule.alphas_cumprod[timesteps])
        column = send(sigma, self.device).view(-1, 1, 1, 1, 1)
        return input_scaling(column) * (x_0 + column * eps), time_of(sigma)
