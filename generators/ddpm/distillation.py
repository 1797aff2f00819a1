"""Distilling a diffusion model into one that needs 2 to 4 steps (consistency distillation).

The student starts as a copy of the teacher and learns to name the end of the teacher's trajectory
from any point of it (Song et al. 2023, Algorithm 2). With x̂_0(x_t, t) for the clean image that the
output of a network implies, and s the timestep after t on the trajectory of DDIM:

    x_s = √ᾱ_s x̂_0^teacher(x_t, t) + √(1-ᾱ_s) ε̂^teacher(x_t, t)
    L   = ρ(x̂_0^student(x_t, t) - x̂_0^student⁻(x_s, s)),  at the last t: - x̂_0^teacher(x_t, t)

student⁻ takes no gradient, and is not averaged; ρ is pseudo-Huber (Song & Dhariwal 2024, Secs. 3.2
and 3.3). The student stays a network of timesteps that predicts what the teacher predicts, so its
folder is that of any diffusion model, and its activations at a timestep are features as before.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from factory_core.device import send
from factory_core.segmentation_unet import training_format
from factory_core.symmetries import augment
from generators.base import sample_seed
from generators.ddpm import samplers
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.config import DDPMConfig, DistillationConfig
from generators.ddpm.model import to_unit_range
from generators.ddpm.noise import NoiseModel
from generators.ddpm.samplers import predict_x_0, q_sample
from generators.ddpm.training import CLIP, DiffusionTraining, laid_out
from generators.training.images import TrainingImages
from generators.training.loop import run

HUBER = 0.00054  # of ρ, times the root of the number of values in an image (ibid., Sec. 3.3)
STEPS = 4  # of the sheets


class Distillation(DiffusionTraining):
    """Minimises L of this module."""

    config: DistillationConfig
    preview = DDPMConfig(weights="", sampler="multistep", steps=STEPS)

    def __init__(
        self,
        config: DistillationConfig,
        images: TrainingImages,
        teacher: UNet2DModel,
        schedule: DDPMScheduler,
        noise: NoiseModel,
    ):
        """Takes over `teacher`; `schedule` and `noise` are those it was trained with."""
        super().__init__(config, images, copy.deepcopy(teacher), schedule, noise)
        self.teacher = teacher.requires_grad_(False).eval()
        trajectory = DDPMConfig(weights="", steps=config.intervals)
        visited = samplers.timesteps(schedule, trajectory)
        self.visited = torch.tensor(visited)
        # ᾱ of these, and of the image at the end.
        self.abar = torch.cat([schedule.alphas_cumprod[visited], torch.ones(1)])

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        config = self.config
        rng = torch.Generator().manual_seed(sample_seed(config.seed, self.global_step, stream=1))
        x_0 = to_unit_range(augment(batch, config.flips, config.quarter_turns, rng))
        loss = self.loss(x_0, rng)
        self.show(self.global_step, loss=loss.detach())
        return loss

    def loss(self, x_0: Tensor, rng: torch.Generator) -> Tensor:
        """L of images `[N, 3, H, W]` in [-1, 1], on the CPU; noise and timesteps are random."""
        eps = self.noise.draw([rng] * len(x_0), x_0.shape[1:])
        i = torch.randint(0, len(self.visited), (len(x_0),), generator=rng)
        a_t, a_s = (
            send(a.view(-1, 1, 1, 1), self.device) for a in (self.abar[i], self.abar[i + 1])
        )
        t = send(self.visited[i], self.device)
        s = send(self.visited[(i + 1).clamp(max=len(self.visited) - 1)], self.device)
        x_t = q_sample(send(x_0, self.device), send(eps, self.device), a_t)
        x_t = x_t.contiguous(memory_format=training_format(self.device))
        with torch.no_grad():
            end = self._clean(self.teacher, x_t, t, a_t, clip=True)
            slope = (x_t - a_t.sqrt() * end) / (1 - a_t).sqrt()
            x_s = q_sample(end, slope, a_s)
            target = torch.where(a_s == 1, end, self._clean(self.unet, x_s, s, a_s, clip=True))
        return pseudo_huber(self._clean(self.unet, x_t, t, a_t, clip=False) - target)

    def _clean(self, net: nn.Module, x: Tensor, t: Tensor, abar: Tensor, clip: bool) -> Tensor:
        """x̂_0 `[N, 3, H, W]` of noisy images at timesteps `[N]`."""
        output = self.pass_through(net, x, t, None)
        return predict_x_0(output, x, abar, self.noise_schedule, clip)


def pseudo_huber(difference: Tensor) -> Tensor:
    """Mean over images `[N, C, H, W]` of √(‖d‖² + c²) - c: the norm, but smooth at zero."""
    c = HUBER * math.sqrt(difference[0].numel())
    return ((difference.square().sum((1, 2, 3)) + c**2).sqrt() - c).mean()


def load_teacher(
    config: DistillationConfig, source: str
) -> tuple[UNet2DModel, DDPMScheduler, NoiseModel]:
    """The diffusion model `source`; raises ValueError if it does not fit `config`."""
    unet, schedule, noise = load_unet(source)
    size, T = unet.config.sample_size, schedule.config.num_train_timesteps
    if size != config.image_size:
        raise ValueError(
            f"{source} makes images of {size} pixels, not {config.image_size}: set "
            f"image_size={size}"
        )
    if unet.config.num_class_embeds is not None:
        raise ValueError(f"{source} has classes: only models without classes can be distilled")
    if (predicts := schedule.config.prediction_type) == "epsilon":
        # Errors of x̂_0 are 1/√ᾱ_t times those of ε, more than a hundredfold where sampling begins.
        raise ValueError(
            f"{source} predicts {predicts}, which says too little about the image where noise is "
            "strongest: expected v_prediction"
        )
    if config.intervals > T:
        raise ValueError(f"intervals is {config.intervals}, but {source} has {T} timesteps")
    return unet, schedule, noise


def train(
    images: TrainingImages,
    out: Path,
    config: DistillationConfig,
    init: str | None = None,
    device: str = "auto",
    progress: list[Callback] | None = None,
) -> None:
    """Distil the generator `init` on `images`, of `config.image_size`, and write `out`.

    `out` is as of `generators.ddpm.training.train`.
    """
    assert init is not None  # by the command

    def build() -> Distillation:
        unet, schedule, noise = load_teacher(config, init)
        return Distillation(config, images, laid_out(unet, device), schedule, noise)

    run(build, config, images, out, init, device, progress, gradient_clip_val=CLIP)
