"""Training a DDPM on a folder of images, with Lightning.

Batches, flips, timesteps and noise of step k are pure functions of (seed, k), so a resumed run
repeats the interrupted one exactly.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.utils import make_grid, save_image

from generators.base import sample_generators, sample_seed
from generators.config import DDPMConfig, DDPMTrainingConfig
from generators.ddpm import samplers
from generators.ddpm.model import build_unet, load_unet, to_uint8, to_unit_range
from generators.ddpm.noise import NoiseModel
from generators.hardware import pick_device, pick_dtype

NUM_TIMESTEPS = 1000
GRID_SAMPLES = 16  # a 4 x 4 sheet, from the same noise each time
CHECKPOINTS = "checkpoints"
RECORD_NAME = "training.json"
UNIMPORTANT = ("preview_every",)  # for resuming: decides nothing about the weights


def noise_schedule(prediction: str) -> DDPMScheduler:
    """Linear schedule of the DDPM paper, rescaled to zero terminal SNR for v-prediction.

    A 64x64 image still shows its mean colour at the plain schedule's last step (the mean of 4096
    pixels has 4096 times the SNR of one), so the network learns to read the colour off x_T, while
    sampling starts from noise that has none: every sample then gets the average colour. With zero
    terminal SNR (Lin et al. 2024, Algorithm 1) there is nothing to read. epsilon says nothing
    about x0 there, so that objective keeps the plain schedule.
    """
    return DDPMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_schedule="linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction == "v_prediction",
    )


def loss_weight(abar: Tensor, prediction: str, gamma: float) -> Tensor:
    """Weight of the squared error at cumulative signal level `abar` (ᾱ_t).

    In terms of x0 the weight is min(SNR, γ) for epsilon (Hang et al. 2023, Eq. 8) and
    min(SNR + 1, γ) for v: the "SNR + 1" of Salimans & Ho 2022, truncated in the same way.
    Plain min-SNR would vanish at the noisiest steps, which is where the colours of the whole image
    are decided.
    """
    snr = abar / (1 - abar)
    if prediction == "epsilon":
        return snr.clamp(max=gamma) / snr
    return (snr + 1).clamp(max=gamma) / (snr + 1)


def augment(x: Tensor, flips: bool, quarter_turns: bool, rng: torch.Generator) -> Tensor:
    """Each image of `[N, 3, H, W]` flipped and turned at random."""
    if not (flips or quarter_turns):
        return x
    images = []
    for image in x:
        left_right, top_bottom, turns = torch.randint(0, 4, (3,), generator=rng).tolist()
        if flips and left_right % 2:
            image = image.flip(-1)
        if flips and top_bottom % 2:
            image = image.flip(-2)
        images.append(image.rot90(turns, (-2, -1)) if quarter_turns else image)
    return torch.stack(images)


class StepBatches(Sampler[list[int]]):
    """Index batches of the steps `first` .. `first + steps - 1`, each drawn from (seed, step).

    Consecutive batches walk through one permutation of the data after another.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, first: int, steps: int):
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.first, self.steps = first, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        orders: dict[int, list[int]] = {}
        for step in range(self.first, self.first + self.steps):
            batch = []
            for draw in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, position = divmod(draw, self.num_images)
                if epoch not in orders:
                    rng = torch.Generator().manual_seed(sample_seed(self.seed, epoch))
                    orders = {epoch: torch.randperm(self.num_images, generator=rng).tolist()}
                batch.append(orders[epoch][position])
            yield batch


class DDPMTraining(lightning.LightningModule):
    """Minimises the weighted squared error of v or epsilon and keeps an EMA of the weights."""

    def __init__(self, config: DDPMTrainingConfig, images: Dataset, unet: UNet2DModel):
        super().__init__()
        self.config, self.images = config, images
        self.unet = unet
        self.ema = AveragedModel(unet, multi_avg_fn=self._ema_update)
        self.ema.requires_grad_(False)
        self.noise_schedule = noise_schedule(config.prediction)
        self.noise = NoiseModel(config.offset_noise_std)
        self.started: tuple[float, int] | None = None
        self.seconds_before = 0.0  # of earlier sessions of a resumed training

    @torch.no_grad()
    def _ema_update(self, averaged: Any, current: Any, num_averaged: Any) -> None:
        # Warm-up: an average over the last tenth of the run until decay is reached.
        n = float(num_averaged)
        decay = min(self.config.ema_decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(self.unet.parameters(), lr=config.lr, weight_decay=0.0)

        def factor(step: int) -> float:  # linear warm-up, then cosine to a fiftieth
            warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
            return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def train_dataloader(self) -> DataLoader:
        """The next `checkpoint_every` steps; reloaded each Lightning epoch, so it resumes."""
        config, first = self.config, self.global_step
        steps = min(config.checkpoint_every, config.steps - first)
        batches = StepBatches(
            len(self.images),  # type: ignore[arg-type]
            config.batch_size,
            config.seed,
            first,
            steps,
        )
        return DataLoader(self.images, batch_sampler=batches)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        config = self.config
        rng = torch.Generator().manual_seed(sample_seed(config.seed, self.global_step, stream=1))
        images = augment(batch.cpu(), config.flips, config.quarter_turns, rng)
        x_0 = to_unit_range(images)
        eps = self.noise.draw([rng] * len(x_0), x_0.shape[1:])
        t = torch.randint(0, NUM_TIMESTEPS, (len(x_0),), generator=rng)
        x_t = self.noise_schedule.add_noise(x_0, eps, t)
        target = eps
        if config.prediction == "v_prediction":
            target = self.noise_schedule.get_velocity(x_0, eps, t)
        x_t = x_t.to(self.device, memory_format=torch.channels_last)
        output = self.unet(x_t, t.to(self.device), return_dict=False)[0].float()
        abar = self.noise_schedule.alphas_cumprod[t]
        weight = loss_weight(abar, config.prediction, config.min_snr_gamma).to(self.device)
        error = (output - target.to(self.device)).square().mean(dim=(1, 2, 3))
        loss = (weight * error).mean()
        self.log("loss", loss, prog_bar=True)
        self.log("images/s", self._images_per_sec(), prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ema.update_parameters(self.unet)

    @property
    def seconds(self) -> float:
        """Time spent in training steps, earlier sessions included."""
        now = 0.0 if self.started is None else time.perf_counter() - self.started[0]
        return self.seconds_before + now

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seconds_before = checkpoint["seconds"]

    def _images_per_sec(self) -> float:
        if self.started is None:
            self.started = (time.perf_counter(), self.global_step)
            return 0.0
        began, first = self.started
        return (self.global_step - first) * self.config.batch_size / (time.perf_counter() - began)

    @torch.inference_mode()
    def sample_grid(self) -> Tensor:
        """Samples of the EMA network, float `[3, H, W]` in [0, 1]."""
        sampling = DDPMConfig(weights="", sampler="dpmsolver++", steps=25)
        size = (self.config.image_size, self.config.image_size)
        generators = sample_generators(0, range(GRID_SAMPLES))
        x_0 = samplers.sample(
            self.ema.module, self.noise_schedule, self.noise, sampling, generators, size
        )
        return make_grid(to_uint8(x_0).float() / 255, nrow=4)


class KeepLast(Checkpoint):
    """Replaces the checkpoint after each round of steps, whole or not at all."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not all(p.isfinite().all() for p in module.ema.parameters()):
            raise ValueError(
                f"the training diverged before step {trainer.global_step}: the weights are not "
                f"finite; set a smaller lr (found {module.config.lr}) and another --out"
            )
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        try:
            trainer.save_checkpoint(temporary, weights_only=False)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)  # of a full disk: it would keep it full


def check_readable(checkpoint: Path) -> None:
    """Raise ValueError if a checkpoint is damaged."""
    try:
        torch.load(checkpoint, map_location="meta", weights_only=True)
    except Exception as error:  # zip, pickle and OS errors of many types
        raise ValueError(f"{checkpoint} is damaged: delete it to start anew") from error


class SampleGrids(Callback):
    """Writes a sheet of samples as PNG and to TensorBoard every so many steps."""

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every and step != module.config.steps:
            return
        grid = module.sample_grid()
        self.folder.mkdir(parents=True, exist_ok=True)
        save_image(grid, self.folder / f"step_{step:06d}.png")
        if trainer.logger is not None:
            trainer.logger.experiment.add_image("samples", grid, step)


def write_generator(module: DDPMTraining, out: Path) -> None:
    """Save the EMA network as a diffusers pipeline folder, which `generators.load` reads.

    Parts are moved into place once all are written; `model_index.json`, their table of contents,
    is the last.
    """
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out) as folder:
        DDPMPipeline(module.ema.module, module.noise_schedule).save_pretrained(folder)
        module.noise.save(Path(folder))
        parts = sorted(Path(folder).iterdir(), key=lambda part: part.name == "model_index.json")
        for part in parts:
            if (out / part.name).is_dir():
                shutil.rmtree(out / part.name)
            os.replace(part, out / part.name)


def start_network(config: DDPMTrainingConfig, init: str | None) -> UNet2DModel:
    """An untrained U-Net, or the one of the generator `init` to go on from.

    Raises ValueError if `init` was made for another objective or has other channels.
    """
    torch.manual_seed(config.seed)
    fresh = build_unet(
        config.image_size, config.channels, config.resnets_per_level, config.attention_levels
    )
    if init is None:
        return fresh
    unet, schedule, _ = load_unet(init)
    found = schedule.config.prediction_type
    if found != config.prediction:
        raise ValueError(f"{init} predicts {found}, expected {config.prediction}: set prediction")
    shapes = [{name: p.shape for name, p in net.named_parameters()} for net in (fresh, unet)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{init} has channels {list(unet.config.block_out_channels)} and "
            f"{unet.config.layers_per_block} resnets a level, expected {list(config.channels)} and "
            f"{config.resnets_per_level}: set channels (and resnets_per_level, attention_levels)"
        )
    fresh.load_state_dict(unet.state_dict())
    return fresh


def _check_resumable(record: Path, ours: Mapping[str, Any]) -> None:
    """Refuse to go on from a training with other settings or images, naming a difference."""
    theirs = json.loads(record.read_text())
    for part in ("config", "provenance"):
        for key, value in ours[part].items():
            found = theirs.get(part, {}).get(key)
            if found != value and key not in UNIMPORTANT:
                raise ValueError(
                    f"{record.parent} holds a training with {key} {found}, not {value}: give what "
                    f"it was started with to resume it, or another --out"
                )


def train(
    images: Dataset,
    out: Path,
    config: DDPMTrainingConfig,
    init: str | None = None,
    device: str = "auto",
    provenance: Mapping[str, Any] | None = None,
    progress: list[Callback] | None = None,
) -> None:
    """Train on `images` (uint8 `[3, H, W]` each, at `config.image_size`) and write `out`.

    `out` gets a diffusers pipeline folder, `samples/*.png`, TensorBoard `logs/`, `checkpoints/`
    and `training.json` (settings, `provenance`, seconds). An interrupted run in `out` is resumed, a
    finished one left alone.
    """
    record_file, last = out / RECORD_NAME, out / CHECKPOINTS / "last.ckpt"
    record: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "provenance": {"init": init, **(provenance or {})},
    }
    if last.is_file() and record_file.is_file():
        _check_resumable(record_file, record)
        if json.loads(record_file.read_text()).get("steps") == config.steps:
            return
        check_readable(last)
    last.parent.mkdir(parents=True, exist_ok=True)
    record_file.write_text(json.dumps(record, indent=1) + "\n")
    where = pick_device(device)
    bfloat16 = pick_dtype(config.precision, where) is torch.bfloat16
    unet = start_network(config, init).to(memory_format=torch.channels_last)
    module = DDPMTraining(config, images, unet)
    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(where.type, where.type),
        devices=[where.index] if where.index is not None else 1,
        precision="bf16-mixed" if bfloat16 else "32-true",
        max_steps=config.steps,
        gradient_clip_val=1.0,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[
            KeepLast(last),
            SampleGrids(out / "samples", config.preview_every),
            *(progress or []),
        ],
        logger=TensorBoardLogger(out, name="logs", version=""),
        log_every_n_steps=10,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    try:
        trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    write_generator(module, out)
    record |= {"steps": trainer.global_step, "seconds": round(module.seconds, 1)}
    record_file.write_text(json.dumps(record, indent=1) + "\n")
