"""Training a DDPM on a folder of images, with Lightning."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.utils import make_grid

from factory_core.device import pick_device, send
from factory_core.segmentation_unet import training_format
from factory_core.storage import TEMPORARY_PREFIX, atomic_path
from factory_core.symmetries import augment
from generators.base import sample_generators, sample_seed
from generators.colours import to_grey
from generators.ddpm import samplers
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.config import DDPMConfig, DDPMTrainingConfig, DiffusionTrainingConfig
from generators.ddpm.model import build_unet, to_uint8, to_unit_range
from generators.ddpm.noise import NoiseModel
from generators.training.averaging import update_average
from generators.training.folder import interrupted
from generators.training.images import TrainingImages
from generators.training.loop import GRID_SAMPLES, GeneratorTraining, run, scheduled

Net = TypeVar("Net", bound=nn.Module)

NUM_TIMESTEPS = 1000
CLIP = 1.0  # norm of the gradient, at most
INDEX_NAME = "model_index.json"


def noise_schedule(prediction: str) -> DDPMScheduler:
    """Linear schedule of the DDPM paper, rescaled to zero terminal SNR for v-prediction.

    A 64x64 image still shows its mean colour at the plain schedule's last step (the mean of 4096
    pixels has 4096 times the SNR of one), so the network learns to infer the colour from x_T, while
    sampling starts from noise that has none: every sample then gets the average colour. With zero
    terminal SNR (Lin et al. 2024, Algorithm 1), x_T reveals no colour. There, epsilon says nothing
    about x_0, so the epsilon objective keeps the plain schedule.
    """
    return DDPMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_schedule="linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction == "v_prediction",
    )


def loss_weight(abar: Tensor, prediction: str, gamma: float | None) -> Tensor:
    """Weight of the squared error at cumulative signal level `abar` (ᾱ_t).

    In terms of x_0 the weight is min(SNR, γ) for epsilon (Hang et al. 2023, Eq. 8) and
    min(SNR + 1, γ) for v: the "SNR + 1" of Salimans & Ho 2022, truncated in the same way.
    Plain min-SNR would vanish at the noisiest steps, which is where the colours of the whole image
    are decided. Without γ, the error itself weighs the same at all of them.
    """
    if gamma is None:
        return torch.ones_like(abar)
    snr = abar / (1 - abar)
    if prediction == "epsilon":
        return snr.clamp(max=gamma) / snr
    return (snr + 1).clamp(max=gamma) / (snr + 1)


class DiffusionTraining(GeneratorTraining):
    """Trains a network of timesteps by some loss, and keeps an EMA of its weights."""

    config: DiffusionTrainingConfig
    ema: AveragedModel

    def __init__(
        self,
        config: DiffusionTrainingConfig,
        images: TrainingImages,
        unet: nn.Module,
        schedule: DDPMScheduler,
        noise: NoiseModel,
    ):
        super().__init__(config, images)
        self.unet = unet
        self.ema = AveragedModel(unet)
        self.ema.requires_grad_(False)
        self.noise_schedule, self.noise = schedule, noise
        self.period = config.steps  # of the learning rate
        self.preview = DDPMConfig(weights="")  # how the sheets are sampled

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(self.unet.parameters(), lr=config.lr, weight_decay=0.0)

        def factor(step: int) -> float:  # linear warm-up, then cosine to a fiftieth
            step %= self.period
            warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
            return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.period)))

        return scheduled(optimizer, factor)

    def pass_through(self, net: nn.Module, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Output float32 `[N, 3, H, W]` of the network or its average, at timesteps `[N]`.

        `labels` are class numbers `[N]`, of a class-conditional network.
        """
        return net(x_t, t, class_labels=labels, return_dict=False)[0].float()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        update_average(self.ema, self.unet, self.global_step, self.config.ema_decay)

    @torch.inference_mode()
    def sample_grid(self) -> Tensor:
        """Samples of the EMA network, float `[3, H, W]` in [0, 1]."""
        shape = (3, self.config.image_size, self.config.image_size)
        streams = sample_generators(0, range(GRID_SAMPLES))

        def draw() -> Tensor:
            noise = self.noise.draw(streams, shape)
            return noise.to(self.device, memory_format=torch.channels_last)

        labels = None
        if self.images.classes:  # in turn
            numbers = torch.arange(GRID_SAMPLES) % len(self.images.classes)
            labels = send(numbers, self.device)

        def denoise(x: Tensor, t: float) -> Tensor:
            times = torch.full((len(x),), t, device=x.device)
            return self.pass_through(self.ema.module, x, times, labels)

        x_0 = samplers.sample(denoise, self.noise_schedule, self.preview, draw)
        if self.images.is_grey:
            x_0 = to_grey(x_0)
        return make_grid(to_uint8(x_0).float() / 255, nrow=4)

    def write(self, out: Path) -> None:
        """Save the EMA network as a diffusers pipeline folder, which `generators.load` reads.

        Files move into place once all are written: weights, then their descriptions, and
        `model_index.json`, the table of contents, last.
        """
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=out) as folder:
            DDPMPipeline(self.ema.module, self.noise_schedule).save_pretrained(folder)
            self.noise.save(Path(folder))
            files = [file for file in Path(folder).rglob("*") if file.is_file()]
            for file in sorted(files, key=lambda f: (f.name == INDEX_NAME, f.suffix == ".json")):
                target = out / file.relative_to(folder)
                target.parent.mkdir(exist_ok=True)
                with atomic_path(target) as temporary:
                    os.replace(file, temporary)


class DDPMTraining(DiffusionTraining):
    """Minimises the weighted squared error of v or epsilon."""

    config: DDPMTrainingConfig

    def __init__(self, config: DDPMTrainingConfig, images: TrainingImages, unet: nn.Module):
        schedule, noise = noise_schedule(config.prediction), NoiseModel(config.offset_noise_std)
        super().__init__(config, images, unet, schedule, noise)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        config = self.config
        pixels, labels = (batch, None) if isinstance(batch, Tensor) else batch
        rng = torch.Generator().manual_seed(sample_seed(config.seed, self.global_step, stream=1))
        images = augment(pixels, config.flips, config.quarter_turns, rng)
        x_0 = to_unit_range(images)
        eps = self.noise.draw([rng] * len(x_0), x_0.shape[1:])
        t = torch.randint(0, NUM_TIMESTEPS, (len(x_0),), generator=rng)
        x_t = self.noise_schedule.add_noise(x_0, eps, t)
        target = eps
        if config.prediction == "v_prediction":
            target = self.noise_schedule.get_velocity(x_0, eps, t)
        x_t = send(x_t.contiguous(memory_format=training_format(self.device)), self.device)
        labels = None if labels is None else send(labels, self.device)
        output = self.pass_through(self.unet, x_t, send(t, self.device), labels)
        abar = self.noise_schedule.alphas_cumprod[t]
        weight = loss_weight(abar, config.prediction, config.min_snr_gamma)
        error = (output - send(target, self.device)).square().mean(dim=(1, 2, 3))
        loss = (send(weight, self.device) * error).mean()
        self.show(self.global_step, loss=loss.detach())
        return loss


def start_network(
    config: DDPMTrainingConfig, init: str | None, num_classes: int | None = None
) -> UNet2DModel:
    """An untrained U-Net, or that of the generator `init` to continue from.

    A generator without classes may start one of `num_classes`, whose embeddings are then untrained.
    Raises ValueError if `init` has a different objective, or different channels or classes.
    """
    torch.manual_seed(config.seed)
    fresh = _unet(config, num_classes)
    if init is None:
        return fresh
    unet, found = _read_init(init)
    if found != config.prediction:
        raise ValueError(
            f"{init} predicts {found}, expected {config.prediction}: set prediction={found}, or "
            f"start from one that was trained with prediction={config.prediction}"
        )
    theirs = unet.config.num_class_embeds
    if theirs not in (None, num_classes):
        raise ValueError(
            f"{init} has {theirs} classes, expected {num_classes or 'none'}: set labels to the same"
        )
    shapes = [
        {n: p.shape for n, p in net.named_parameters() if not n.startswith("class_embedding.")}
        for net in (fresh, unet)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{init} has channels {list(unet.config.block_out_channels)} and "
            f"{unet.config.layers_per_block} resnets per level, expected {list(config.channels)} "
            f"and {config.resnets_per_level}: set channels, resnets_per_level and attention_levels"
        )
    fresh.load_state_dict({**fresh.state_dict(), **unet.state_dict()})
    return fresh


def _unet(config: DDPMTrainingConfig, num_classes: int | None) -> UNet2DModel:
    about = (config.image_size, config.channels, config.resnets_per_level, config.attention_levels)
    return build_unet(*about, num_classes)


def _read_init(init: str) -> tuple[UNet2DModel, str]:
    """The U-Net of a generator, finished or still in training, and what it predicts."""
    unfinished = interrupted(init, "ema.module.")
    if unfinished is None:
        unet, schedule, _ = load_unet(init)
        return unet, schedule.config.prediction_type
    config, state = DDPMTrainingConfig(**unfinished[0]), unfinished[1]
    table = state.get("class_embedding.weight")
    unet = _unet(config, None if table is None else len(table))
    unet.load_state_dict(state)
    return unet, config.prediction


def train(
    images: TrainingImages,
    out: Path,
    config: DDPMTrainingConfig,
    init: str | None = None,
    device: str = "auto",
    progress: list[Callback] | None = None,
) -> None:
    """Train on `images`, of `config.image_size`, and write `out`.

    `out` gets a diffusers pipeline folder and what `generators.training.loop.run` adds; see
    there for resumption.
    """
    classes = len(images.classes) or None
    run(
        lambda: DDPMTraining(
            config, images, laid_out(start_network(config, init, classes), device)
        ),
        config,
        images,
        out,
        init,
        device,
        progress,
        gradient_clip_val=CLIP,
    )


def laid_out(net: Net, device: str) -> Net:
    """The network in the memory format in which it trains fastest on `device`."""
    return net.to(memory_format=training_format(pick_device(device)))
