"""A diffusion model as a `Generator`: images and decoder activations of seeds or of real images.

Features follow Baranchuk et al. (ICLR 2022): q_sample the finished image to timestep t, run the
U-Net once, keep the activations of the decoder blocks B.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from generators.base import FeatureMaps, FeatureMapSpec, sample_generators
from generators.config import DDPMConfig
from generators.ddpm import samplers
from generators.ddpm.noise import NoiseModel
from generators.ddpm.unet import check_blocks, decoder_features, default_blocks
from generators.hardware import pick_device, pick_dtype

# Feature noise of image i is a stream of its own: sampling must not shift it.
FEATURE_STREAM = 1


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8 0..255, rounded."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load_unet(weights: str) -> tuple[UNet2DModel, DDPMScheduler, NoiseModel]:
    """Read a diffusers directory or hub id: a pipeline (`unet/`, `scheduler/`) or a bare U-Net.

    A bare U-Net carries no noise schedule: it gets that of the DDPM paper (linear, epsilon).
    Our own training adds `noise.json`; without it the noise is white.

    Raises FileNotFoundError if nothing is there, ValueError if it is not a U-Net.
    """
    path = Path(weights)
    looks_local = path.exists() or weights.startswith((".", "/", "~")) or weights.count("/") != 1
    if looks_local and not any((path / f).is_file() for f in ("unet/config.json", "config.json")):
        raise FileNotFoundError(
            f"no generator at {weights}: expected a diffusers folder with unet/config.json or "
            f"config.json; train one with `factory train-generator`, or give a hub id"
        )
    subfolder = None if (path / "config.json").is_file() else "unet"
    try:
        unet = UNet2DModel.from_pretrained(weights, subfolder=subfolder, low_cpu_mem_usage=False)
    except Exception as error:  # diffusers raises OSError, ValueError, RuntimeError, ...
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"cannot read the U-Net weights in {weights}: {reason}") from error
    schedule_at = path / "scheduler" / "scheduler_config.json"
    if schedule_at.is_file() or not path.exists():
        scheduler = DDPMScheduler.from_pretrained(weights, subfolder="scheduler")
    else:
        scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    return unet, scheduler, NoiseModel.load(path)


def weights_digest(unet: UNet2DModel, schedule: DDPMScheduler, noise: NoiseModel) -> str:
    """sha256 over the tensors in name order, the noise schedule and the noise."""
    sha = hashlib.sha256()
    for name, tensor in sorted(unet.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    settings = {k: v for k, v in schedule.config.items() if not k.startswith("_")}
    settings["offset_std"] = noise.offset_std
    sha.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return sha.hexdigest()


class DDPMGenerator:
    """Samples images with a U-Net and records its decoder activations at chosen timesteps."""

    def __init__(
        self,
        unet: UNet2DModel,
        schedule: DDPMScheduler,
        noise: NoiseModel,
        config: DDPMConfig,
        device: str = "auto",
    ):
        """`schedule` and `noise` are those of training, `config` is the recipe's section."""
        self.blocks = config.features.blocks or default_blocks(unet)
        check_blocks(unet, self.blocks)
        T = schedule.config.num_train_timesteps
        if late := [t for t in config.features.timesteps if t >= T]:
            raise ValueError(
                f"feature timesteps {late} do not exist: the noise schedule has 0 to {T - 1}; "
                f"set generator.features.timesteps"
            )
        self.config = config
        self.digest = weights_digest(unet, schedule, noise)
        self.device = pick_device(device)
        self.dtype = pick_dtype(config.precision, self.device)
        self.unet = unet.to(self.device, memory_format=torch.channels_last).eval()
        self.schedule, self.noise = schedule, noise
        size = unet.config.sample_size or 256
        height, width = (size, size) if isinstance(size, int) else size
        self.image_size = (height, width)

    @classmethod
    def load(cls, config: DDPMConfig, device: str = "auto") -> DDPMGenerator:
        """Read the weights that `config` names (see `load_unet` for formats and errors)."""
        return cls(*load_unet(config.weights), config, device)

    def _autocast(self) -> contextlib.AbstractContextManager:
        enabled = self.dtype is not torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)

    @torch.inference_mode()
    def sample_images(self, indices: Sequence[int]) -> Tensor:
        """Images uint8 `[N, 3, H, W]` of the sample `indices`, without features."""
        generators = sample_generators(self.config.seed, indices)
        with self._autocast():
            x_0 = samplers.sample(
                self.unet, self.schedule, self.noise, self.config, generators, self.image_size
            )
        if not x_0.isfinite().all():
            raise ValueError(
                f"sampling gave values that are not finite: the weights of {self.config.weights} "
                f"are broken, or overflow in {self.dtype}; try generator.precision=float32"
            )
        return to_uint8(x_0).cpu()

    def sample(self, indices: Sequence[int]) -> tuple[Tensor, FeatureMaps]:
        """Images uint8 `[N, 3, H, W]` and features of the sample `indices`.

        The features are those of the quantised image, so that training on saved images and
        labelling new ones see the same thing.
        """
        images = self.sample_images(indices)
        return images, self.encode(images, indices)

    @torch.inference_mode()
    def encode(self, images: Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """Features of images uint8 `[N, 3, H, W]`; `indices` (default 0..N-1) seed fresh noise."""
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])}, the generator works at {self.image_size}"
            )
        timesteps = self.config.features.timesteps
        t = torch.tensor(timesteps)
        x_0 = to_unit_range(images)
        abar = self.schedule.alphas_cumprod[t].view(-1, 1, 1, 1, 1)
        eps = self._feature_noise(range(len(images)) if indices is None else indices)
        x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps  # DDPM Eq. 4, [T, N, 3, H, W]
        # All timesteps of a batch are one pass.
        x_t = x_t.flatten(0, 1).to(self.device, memory_format=torch.channels_last)
        t_all = t.repeat_interleave(len(images)).to(self.device)
        with self._autocast():
            recorded = decoder_features(self.unet, x_t, t_all, self.blocks)
        maps: dict[str, Tensor] = {}
        for block, h in recorded.items():
            per_t = h.float().unflatten(0, (len(timesteps), -1))
            maps |= {f"t{ti}.b{block}": per_t[k] for k, ti in enumerate(timesteps)}
        order = [f"t{ti}.b{b}" for ti in timesteps for b in self.blocks]
        return FeatureMaps({name: maps[name] for name in order})

    def _feature_noise(self, indices: Sequence[int]) -> Tensor:
        """epsilon broadcastable to `[T, N, 3, H, W]`, by the noise policy."""
        features, shape = self.config.features, (3, *self.image_size)
        T = len(features.timesteps)
        if features.noise == "fresh":
            streams = sample_generators(features.noise_seed, indices, FEATURE_STREAM)
            return torch.stack([torch.randn(T, *shape, generator=g) for g in streams], dim=1)
        fixed = torch.Generator().manual_seed(features.noise_seed)
        count = T if features.noise == "per_timestep" else 1
        return torch.randn(count, 1, *shape, generator=fixed)

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """The noise that the features of an image are recorded under."""
        return self.config.features.model_dump(include={"noise", "noise_seed"})

    @cached_property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes of the maps, found by encoding one blank image."""
        return self.encode(torch.zeros(1, 3, *self.image_size, dtype=torch.uint8)).spec


def build_unet(
    image_size: int, channels: Sequence[int], resnets_per_level: int, attention_levels: int
) -> UNet2DModel:
    """An untrained U-Net whose `attention_levels` coarsest levels attend."""
    levels = len(channels)
    attends = [level >= levels - attention_levels for level in range(levels)]
    return UNet2DModel(
        sample_size=image_size,
        block_out_channels=tuple(channels),
        layers_per_block=resnets_per_level,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        # The middle block always attends, so its width counts too.
        attention_head_dim=math.gcd(32, *channels[levels - max(attention_levels, 1) :]),
        norm_num_groups=8,
    )
