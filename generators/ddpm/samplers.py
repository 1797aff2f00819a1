"""Samplers on the noise schedule of training, each starting from pure noise.

`ddpm` is Ho et al. 2020, Algorithm 2, with the learned variance of Nichol & Dhariwal 2021 if there
is one; `ddim` is Song et al. 2021, Eq. 12; `dpmsolver++` is DPM-Solver++(2M) of Lu et al. 2022 and
`unipc` is UniPC of Zhao et al. 2023, both by diffusers.

A sampler sees the network as a function of (x_t, t), so the caller can watch the trajectory.
ᾱ_t is the schedule's `alphas_cumprod`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from generators.ddpm.config import DDPMConfig

# (x_t `[N, 3, H, W]`, t) -> output of the network `[N, 3 or 6, H, W]`, float32
Denoise = Callable[[Tensor, float], Tensor]
# -> noise for the batch, `[N, 3, H, W]`, float32
DrawNoise = Callable[[], Tensor]

VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}


def sample(
    denoise: Denoise, schedule: DDPMScheduler, config: DDPMConfig, draw: DrawNoise
) -> Tensor:
    """x_0 `[N, 3, H, W]`, float32, in [-1, 1] if `config.clip_x0`; the first draw is x_T."""
    if config.sampler in ("dpmsolver++", "unipc"):
        return _multistep(denoise, schedule, config, draw())
    if config.sampler == "ddim":
        return _ddim(denoise, schedule, config, draw)
    return _ancestral(denoise, schedule, config, draw)


def timesteps(schedule: DDPMScheduler, config: DDPMConfig) -> list[int]:
    """The `config.steps` timesteps at which the network is evaluated, noisiest first.

    They are distinct, except those nearest to Karras' noise levels. Expects at most as many steps
    as the schedule has timesteps.
    """
    if config.karras:
        return _multistep_scheduler(schedule, config).timesteps.tolist()
    T, n = schedule.config.num_train_timesteps, config.steps
    assert n <= T, f"{n} steps on {T} timesteps"
    if config.spacing == "trailing":
        # Not by a stride of T/n: its rounding errors add up to a step too many for n = 61, 103, ...
        return ((np.arange(n, 0, -1) * T / n).round().astype(int) - 1).tolist()
    if config.spacing == "leading":
        return (np.arange(n) * (T // n))[::-1].tolist()
    return np.linspace(0, T - 1, n).round().astype(int)[::-1].tolist()


def q_sample(x_0: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """x_t of a clean image (Ho et al. 2020, Eq. 4); arguments broadcast."""
    return abar.sqrt() * x_0 + (1 - abar).sqrt() * eps


def predict_x_0(
    output: Tensor, x: Tensor, abar: Tensor, schedule: DDPMScheduler, clip: bool
) -> Tensor:
    """The clean image that the network's `output` for `x` = x_t implies, at ᾱ_t = `abar`."""
    output = output[:, : x.shape[1]]  # without the channels of a learned variance
    prediction = schedule.config.prediction_type
    if prediction == "epsilon":
        x_0 = (x - (1 - abar).sqrt() * output) / abar.sqrt()
    elif prediction == "v_prediction":
        x_0 = abar.sqrt() * x - (1 - abar).sqrt() * output
    else:
        assert prediction == "sample"
        x_0 = output
    return x_0.clamp(-1, 1) if clip else x_0


def _ddim(denoise: Denoise, schedule: DDPMScheduler, config: DDPMConfig, draw: DrawNoise) -> Tensor:
    """Song et al. 2021, Eq. 12, with ε recomputed from the clipped x_0.

    Our own, because diffusers' step takes the root of -6e-8 at zero terminal SNR with η = 1, and
    assumes equal strides where the number of steps does not divide that of training.
    """
    x = draw()
    steps = timesteps(schedule, config)
    abar = torch.cat([schedule.alphas_cumprod[steps], torch.ones(1)])
    for i, t in enumerate(steps):
        a, a_prev = abar[i], abar[i + 1]
        x_0 = predict_x_0(denoise(x, t), x, a, schedule, config.clip_x0)
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        variance = config.eta**2 * (1 - a_prev) / (1 - a) * (1 - a / a_prev)  # Eq. 16
        x = a_prev.sqrt() * x_0 + (1 - a_prev - variance).clamp(min=0).sqrt() * eps
        if variance > 0:
            x = x + variance.sqrt() * draw()
    return x


def _ancestral(
    denoise: Denoise, schedule: DDPMScheduler, config: DDPMConfig, draw: DrawNoise
) -> Tensor:
    """Ho et al. 2020, Algorithm 2, along the visited timesteps."""
    x = draw()
    steps = timesteps(schedule, config)
    posterior = Posterior(schedule, steps[::-1])
    for i, t in zip(reversed(range(len(steps))), steps, strict=True):
        output = denoise(x, t)
        x_0 = predict_x_0(output, x, posterior.abar[i], schedule, config.clip_x0)
        x = posterior.mean(x_0, x, i)
        if i > 0:
            x = x + (posterior.log_variance(output, i) / 2).exp() * draw()
    return x


class Posterior:
    """p(x_{t-1} | x_t) where t - 1 stands for the visited timestep before t."""

    def __init__(self, schedule: DDPMScheduler, steps: list[int]):
        """`steps` are the visited timesteps, ascending."""
        variance = schedule.config.variance_type
        if variance not in VARIANCES:
            raise ValueError(f"found variance_type {variance}, expected one of {list(VARIANCES)}")
        self.kind = VARIANCES[variance]
        self.abar = schedule.alphas_cumprod[steps]
        self.abar_prev = torch.cat([torch.ones(1), self.abar[:-1]])
        self.beta = 1 - self.abar / self.abar_prev
        self.beta_tilde = self.beta * (1 - self.abar_prev) / (1 - self.abar)  # Ho, Eq. 7
        # The last step has no variance, but its logarithm is needed: ADM takes the step before.
        self.beta_tilde[0] = self.beta_tilde[min(1, len(steps) - 1)]
        self.beta_tilde.clamp_(min=1e-20)

    def mean(self, x_0: Tensor, x: Tensor, i: int) -> Tensor:
        """Mean of x_{t-1} given x_t and x_0 at step `i` (Ho, Eq. 7)."""
        abar, abar_prev = self.abar[i], self.abar_prev[i]
        alpha = abar / abar_prev
        from_x_0 = abar_prev.sqrt() * self.beta[i] / (1 - abar)
        from_x_t = alpha.sqrt() * (1 - abar_prev) / (1 - abar)
        return from_x_0 * x_0 + from_x_t * x

    def log_variance(self, output: Tensor, i: int) -> Tensor:
        """Its log variance: a number, or `[N, 3, H, W]` from the last channels of `output`."""
        log_beta, log_beta_tilde = self.beta[i].log(), self.beta_tilde[i].log()
        if self.kind == "small":
            return log_beta_tilde
        if self.kind == "large":
            return log_beta
        v = (output.chunk(2, dim=1)[1] + 1) / 2
        return v * log_beta + (1 - v) * log_beta_tilde  # Nichol & Dhariwal 2021, Eq. 15


def _multistep(denoise: Denoise, schedule: DDPMScheduler, config: DDPMConfig, x: Tensor) -> Tensor:
    scheduler = _multistep_scheduler(schedule, config)
    for t, sigma in zip(scheduler.timesteps.tolist(), scheduler.sigmas, strict=False):
        abar = 1 / (sigma**2 + 1)  # at Karras spacing between those of whole timesteps
        x_0 = predict_x_0(denoise(x, t), x, abar, schedule, config.clip_x0)
        x = scheduler.step(x_0, t, x, return_dict=False)[0]
    return x


def _multistep_scheduler(
    schedule: DDPMScheduler, config: DDPMConfig
) -> DPMSolverMultistepScheduler | UniPCMultistepScheduler:
    """diffusers' solver, fed with x_0: its own clipping sorts all pixels in every step.

    It also gets our timesteps: for some numbers of steps, its own are one too many or repeat.
    """
    settings = {
        "use_karras_sigmas": config.karras,
        "prediction_type": "sample",
        "thresholding": False,
        "solver_order": 2,
    }
    if schedule.config.beta_schedule in ("sigmoid", "laplace"):  # which the solvers do not know
        settings |= {"beta_schedule": "linear", "trained_betas": schedule.betas.tolist()}
    if config.sampler == "unipc":
        scheduler = UniPCMultistepScheduler.from_config(schedule.config, **settings)
    else:
        scheduler = DPMSolverMultistepScheduler.from_config(
            schedule.config, algorithm_type="dpmsolver++", **settings
        )
    scheduler.set_timesteps(config.steps)
    if not config.karras:
        steps = timesteps(schedule, config)
        abar = scheduler.alphas_cumprod[steps]  # its own: a little above 0 at zero terminal SNR
        scheduler.timesteps = torch.tensor(steps)
        scheduler.sigmas = torch.cat([((1 - abar) / abar) ** 0.5, scheduler.sigmas[-1:]])
        scheduler.num_inference_steps = len(steps)
    scheduler.set_begin_index(0)  # else it looks for the first timestep, which may occur twice
    return scheduler
