"""Distilling a diffusion model into one that needs few steps (Salimans & Ho 2022, Algorithm 2).

In each stage a student learns to do in one step of DDIM what its teacher does in two, and then
becomes the teacher: 16 -> 8 -> 4 steps. With t -> t' -> t'' the two steps of the teacher, which end
at x_t'', the student's x̂_0 has to be

    x̃_0 = (x_t'' - √((1-ᾱ_t'')/(1-ᾱ_t)) x_t) / (√ᾱ_t'' - √((1-ᾱ_t'')/(1-ᾱ_t)) √ᾱ_t)
    L   = max(SNR_t, 1) ‖x̂_0 - x̃_0‖²

The student stays a network of timesteps that predicts what the teacher predicts, so its folder is
that of any diffusion model.
"""

from __future__ import annotations

import copy
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
from generators.kind import kind_of
from generators.training.images import TrainingImages
from generators.training.loop import run


class Distillation(DiffusionTraining):
    """Minimises L of this module, stage after stage."""

    config: DistillationConfig

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
        self.period = config.stage_steps
        self.preview = DDPMConfig(weights="", sampler="ddim", steps=config.sampling_steps)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        config = self.config
        stage, step = divmod(self.global_step, self.period)
        if stage and not step:
            self._promote()
        rng = torch.Generator().manual_seed(sample_seed(config.seed, self.global_step, stream=1))
        x_0 = to_unit_range(augment(batch, config.flips, config.quarter_turns, rng))
        loss = self.loss(x_0, config.teacher_steps >> stage, rng)
        self.show(self.global_step, loss=loss.detach(), steps=config.teacher_steps >> (stage + 1))
        return loss

    def _promote(self) -> None:
        """The averaged student becomes the teacher, and the start of the next student."""
        state = self.ema.module.state_dict()
        self.teacher.load_state_dict(state)
        self.unet.load_state_dict(state)

    def loss(self, x_0: Tensor, teacher_steps: int, rng: torch.Generator) -> Tensor:
        """L of images `[N, 3, H, W]` in [-1, 1], on the CPU; noise and timesteps are random."""
        schedule = self.noise_schedule
        steps = samplers.timesteps(schedule, DDPMConfig(weights="", steps=teacher_steps))
        visited, abar = (
            torch.tensor(steps),
            torch.cat([schedule.alphas_cumprod[steps], torch.ones(1)]),
        )
        eps = self.noise.draw([rng] * len(x_0), x_0.shape[1:])
        i = 2 * torch.randint(0, teacher_steps // 2, (len(x_0),), generator=rng)
        a, a_1, a_2 = (send(abar[i + k].view(-1, 1, 1, 1), self.device) for k in range(3))
        t, t_1 = (send(visited[i + k], self.device) for k in range(2))
        x = q_sample(send(x_0, self.device), send(eps, self.device), a)
        x = x.contiguous(memory_format=training_format(self.device))
        with torch.no_grad():
            x_1 = _ddim(x, self._clean(self.teacher, x, t, a, clip=True), a, a_1)
            x_2 = _ddim(x_1, self._clean(self.teacher, x_1, t_1, a_1, clip=True), a_1, a_2)
            ratio = ((1 - a_2) / (1 - a)).sqrt()
            target = (x_2 - ratio * x) / (a_2.sqrt() - ratio * a.sqrt())
        error = (self._clean(self.unet, x, t, a, clip=False) - target).square()
        return ((a / (1 - a)).clamp(min=1) * error).mean()

    def _clean(self, net: nn.Module, x: Tensor, t: Tensor, abar: Tensor, clip: bool) -> Tensor:
        """x̂_0 `[N, 3, H, W]` of noisy images at timesteps `[N]`."""
        output = self.pass_through(net, x, t, None)
        return predict_x_0(output, x, abar, self.noise_schedule, clip)


def _ddim(x: Tensor, x_0: Tensor, abar: Tensor, following: Tensor) -> Tensor:
    """x at ᾱ = `following`, by a step of DDIM (η = 0) from `x` at `abar`."""
    return q_sample(x_0, (x - abar.sqrt() * x_0) / (1 - abar).sqrt(), following)


def load_teacher(
    config: DistillationConfig, source: str
) -> tuple[UNet2DModel, DDPMScheduler, NoiseModel]:
    """The diffusion model `source`; raises ValueError if it does not fit `config`."""
    if (kind := kind_of(Path(source))) not in ("ddpm", None):
        raise ValueError(f"{source} is of kind {kind}: only diffusion models (ddpm) are distilled")
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
    if config.teacher_steps > T:
        raise ValueError(f"teacher_steps is {config.teacher_steps}, but {source} has {T} timesteps")
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
