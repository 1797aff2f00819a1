"""A diffusion model as a `Generator`: samples or real images, with their decoder activations.

Features follow Baranchuk et al. (ICLR 2022): q_sample the finished image to timestep t, run the
U-Net once, keep the activations of the decoder blocks B.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from factory_core.device import pick_device, pick_dtype, send
from factory_core.segmentation_unet import SegmentationUNet, UNetDescription
from generators.base import (
    FeatureMaps,
    FeatureMapSpec,
    batches,
    check_batch,
    sample_generators,
)
from generators.colours import grey_digest, makes_grey, to_grey
from generators.ddpm import samplers
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.checks import check_class, check_timesteps
from generators.ddpm.config import NORM_GROUPS, DDPMConfig, Parametrisation
from generators.ddpm.diffusers_folder import pipeline_of
from generators.ddpm.guided_settings import GivenSettings
from generators.ddpm.network import LARGE_NETWORK, Network, activations
from generators.ddpm.noise import NoiseModel
from generators.ddpm.unet import check_blocks, default_blocks, num_decoder_blocks

# Feature noise and class of image i have their own random streams, independent of sampling.
FEATURE_STREAM = 1
CLASS_STREAM = 2


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8 0..255, rounded."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def weights_digest(
    unet: UNet2DModel,
    schedule: DDPMScheduler,
    noise: NoiseModel,
    parametrisation: Parametrisation | None = None,
) -> str:
    """sha256 over the tensors in name order, the attention heads, the noise schedule and the noise.

    Networks with equal tensors but different numbers of heads compute different things.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(unet.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    settings = {k: v for k, v in schedule.config.items() if not k.startswith("_")}
    settings["offset_std"] = noise.offset_std
    settings["heads"] = _heads(unet)
    if parametrisation is not None:
        settings["parametrisation"] = parametrisation
    sha.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return sha.hexdigest()


def _heads(unet: UNet2DModel) -> list[int]:
    """The number of heads of each attention."""
    return [m.heads for m in unet.modules() if isinstance(m, Attention)]


class DDPMGenerator:
    """Samples images with a U-Net and records its decoder activations at chosen timesteps."""

    def __init__(
        self,
        unet: UNet2DModel,
        schedule: DDPMScheduler,
        noise: NoiseModel,
        config: DDPMConfig,
        device: str = "auto",
        is_grey: bool = False,
    ):
        """`schedule` and `noise` are those of training, `config` is the recipe's section.

        `is_grey` averages the channels of samples, see `generators.colours`. Takes over `unet`, see
        `Network`. Raises ValueError if `config` does not fit the network.
        """
        self.blocks = config.features.blocks or default_blocks(unet)
        check_blocks(unet, self.blocks)
        check_timesteps(schedule, config)
        check_class(unet, config)
        self.config, self.schedule, self.noise = config, schedule, noise
        digest = weights_digest(unet, schedule, noise, config.parametrisation)
        self.is_grey, self.digest = is_grey, grey_digest(digest) if is_grey else digest
        self.device = pick_device(device)
        self.dtype = pick_dtype(config.precision, self.device)
        self.network = self._prepared(unet)
        size = unet.config.sample_size or 256
        height, width = (size, size) if isinstance(size, int) else size
        self.image_size = (height, width)
        large = activations(unet, self.image_size) >= LARGE_NETWORK
        self._alone = large and self.device.type == "cpu"

    def _prepared(self, unet: UNet2DModel) -> Network:
        return Network(unet, self.device, self.dtype, self.config.compile)

    @classmethod
    def load(cls, config: DDPMConfig, device: str = "auto") -> DDPMGenerator:
        """Read the weights that `config` names (see `load_unet` for formats and errors)."""
        is_grey = makes_grey(pipeline_of(Path(config.weights)))
        return cls(*cls._read(config), config, device, is_grey=is_grey)

    @staticmethod
    def _read(config: DDPMConfig) -> tuple[UNet2DModel, DDPMScheduler, NoiseModel]:
        given = config.model_dump(include=set(GivenSettings.__annotations__))
        return load_unet(config.weights, **given)

    def _original(self) -> UNet2DModel:
        """The network as it is in its file."""
        return self._read(self.config)[0]

    @property
    def block_count(self) -> int:
        """Number of decoder blocks, numbered deep to shallow from 0."""
        return num_decoder_blocks(self.network.unet)

    @property
    def timestep_count(self) -> int:
        """Number of timesteps of the noise schedule."""
        return self.schedule.config.num_train_timesteps

    def recording(self, blocks: Sequence[int], timesteps: Sequence[int]) -> Self:
        """The same network, without a copy, whose features are these, re-noised.

        Raises ValueError for blocks or timesteps that it does not have.
        """
        check_blocks(self.network.unet, blocks)
        other = self._renoising(blocks=tuple(blocks), timesteps=tuple(timesteps))
        check_timesteps(self.schedule, other.config)
        other.blocks = tuple(blocks)
        other.__dict__.pop("feature_spec", None)  # cached, of the former features
        return other

    def with_noise(self, noise: str) -> Self:
        """The same network, without a copy, whose images are re-noised by another policy."""
        return self._renoising(noise=noise)

    def _renoising(self, **changes: Any) -> Self:
        """The same network with changed features, which are those of re-noised images."""
        features = self.config.features.model_copy(update={**changes, "record": "renoise"})
        other = copy.copy(self)
        other.config = self.config.model_copy(update={"features": features})
        return other

    @property
    def batch_size(self) -> int:
        """The largest number of images in a call."""
        return self.config.batch_size

    @property
    def pass_size(self) -> int:
        """Samples per network pass: `batch_size`, or one where a single sample fills the device.

        A function of network and device alone. Kernels are chosen by the shape of a pass, and those
        of bfloat16 differ, measured by up to two grey levels in a sample; so the shape must not
        depend on how many samples were asked for. Large networks on a CPU run one by one, because
        a request for one sample should not cost `batch_size` of them.
        """
        return 1 if self._alone else self.batch_size

    def sample(self, indices: Sequence[int]) -> tuple[Tensor, FeatureMaps]:
        """Images uint8 `[N, 3, H, W]` and features of one batch of sample `indices`.

        Renoised features are those of the quantised image, so that training on saved images and
        labelling new ones see the same thing. The bytes of a sample depend on its index, weights,
        settings and `pass_size`, never on the other samples.

        Raises ValueError for more than `batch_size` indices.
        """
        check_batch(len(indices), self.batch_size)
        passes = [self._sample_pass(part) for part in batches(indices, self.pass_size)]
        images, maps = zip(*passes, strict=True)
        return torch.cat(images), FeatureMaps.concat(maps)

    def _sample_pass(self, indices: Sequence[int]) -> tuple[Tensor, FeatureMaps]:
        """`sample` for at most `pass_size` indices."""
        filled, count = self._filled(indices), len(indices)
        if self.config.features.record == "renoise":
            images, _ = self._sample(filled)
            maps = self._encode(images, filled)
        else:
            images, maps = self._sample(filled, self.config.features.timesteps)
        return images[:count], maps.select(slice(count))

    def sample_images(self, indices: Sequence[int]) -> Tensor:
        """The images of `sample`, without features."""
        check_batch(len(indices), self.batch_size)
        parts = batches(indices, self.pass_size)
        return torch.cat([self._sample(self._filled(part))[0][: len(part)] for part in parts])

    def encode(self, images: Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """Features of one batch of images uint8 `[N, 3, H, W]`, on any device.

        `indices` (default 0..N-1) seed fresh noise. In low precision, the features of a sample
        equal those of `sample` only up to rounding: batches of real images are not padded, and may
        be as small as memory demands.

        Raises ValueError for images of a different size, or more than `batch_size`.
        """
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])}, the generator works at {self.image_size}"
            )
        check_batch(len(images), self.batch_size)
        numbered = list(range(len(images)) if indices is None else indices)
        rows = batches(range(len(images)), self.pass_size)
        parts = [self._encode(images[r.start : r.stop], numbered[r.start : r.stop]) for r in rows]
        return FeatureMaps.concat(parts)

    def _filled(self, indices: Sequence[int]) -> list[int]:
        """The samples of one pass; in low precision, padded to `pass_size` with the last."""
        missing = 0 if self.dtype is torch.float32 else self.pass_size - len(indices)
        return [*indices, *[indices[-1]] * missing]

    @torch.inference_mode()
    def _sample(
        self, indices: Sequence[int], record_at: Sequence[int] = ()
    ) -> tuple[Tensor, FeatureMaps]:
        """Images, and the maps of the sampler's own passes at timesteps `record_at`."""
        streams = sample_generators(self.config.seed, indices)
        classes = self._classes_of_samples(indices)
        recorded: dict[str, Tensor] = {}

        def draw() -> Tensor:
            noise = self.noise.draw(streams, (3, *self.image_size))
            # Use the layout of the network's output: mixed layouts make the sampler's sums slow.
            return send(noise.to(memory_format=torch.channels_last), self.device)

        def denoise(x: Tensor, t: float) -> Tensor:
            blocks = self.blocks if t in record_at else ()
            output, maps = self.network(x, torch.tensor([t]), classes, blocks)
            recorded.update({map_name(int(t), block): h for block, h in maps.items()})
            assert output is not None
            return output

        x_0 = self._solve(denoise, draw)
        if not x_0.isfinite().all():
            raise ValueError(
                f"sampling gave values that are not finite: the weights of {self.config.weights} "
                f"are broken, or overflow in {self.dtype}; try generator.precision=float32"
            )
        if self.is_grey:
            x_0 = to_grey(x_0)
        names = [map_name(t, block) for t in record_at for block in self.blocks]
        return to_uint8(x_0), FeatureMaps({name: recorded[name] for name in names})

    def _solve(self, denoise: samplers.Denoise, draw: samplers.DrawNoise) -> Tensor:
        """x_0 `[N, 3, H, W]`, see `samplers.sample`."""
        return samplers.sample(denoise, self.schedule, self.config, draw)

    @torch.inference_mode()
    def _encode(self, images: Tensor, indices: Sequence[int]) -> FeatureMaps:
        """Features of one batch; one pass for all timesteps."""
        timesteps = torch.tensor(self.config.features.timesteps)
        x_0 = to_unit_range(send(images, self.device))
        eps = self._feature_noise(indices)
        x_t, t = self._noised(x_0, eps, timesteps)
        x_t = x_t.flatten(0, 1)  # [T, N, ...] -> [TN, 3, H, W]
        t = t.repeat_interleave(len(images))
        classes = self._class_of_features()
        _, maps = self.network(x_t, t, classes, self.blocks, to_output=False)
        per_t = {block: h.unflatten(0, (len(timesteps), -1)) for block, h in maps.items()}
        return FeatureMaps(
            {
                map_name(t, block): per_t[block][i]
                for i, t in enumerate(timesteps.tolist())
                for block in self.blocks
            }
        )

    def _noised(self, x_0: Tensor, eps: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees of images `x_0` `[N, 3, H, W]` at timesteps `[T]`.

        Noisy images `[T, N, 3, H, W]`, and what it is given as time, `[T]`, on the CPU.
        """
        abar = send(self.schedule.alphas_cumprod[timesteps], self.device).view(-1, 1, 1, 1, 1)
        return samplers.q_sample(x_0, eps, abar), timesteps

    def _feature_noise(self, indices: Sequence[int]) -> Tensor:
        """epsilon broadcastable to `[T, N, 3, H, W]`, by the noise policy."""
        features, shape = self.config.features, (3, *self.image_size)
        T = len(features.timesteps)
        if features.noise == "fresh":
            streams = sample_generators(features.noise_seed, indices, FEATURE_STREAM)
            eps = torch.stack([torch.randn(T, *shape, generator=g) for g in streams], dim=1)
        else:
            fixed = torch.Generator().manual_seed(features.noise_seed)
            count = T if features.noise == "per_timestep" else 1
            eps = torch.randn(count, 1, *shape, generator=fixed)
        return send(eps, self.device)

    def _classes_of_samples(self, indices: Sequence[int]) -> Tensor | None:
        """Class vectors `[1, E]` or `[N, E]` to sample with; None for an unconditional network."""
        if self.config.class_id != "random":
            return self._class_of_features()
        table = self.network.unet.class_embedding.weight
        streams = sample_generators(self.config.seed, indices, CLASS_STREAM)
        ids = [int(torch.randint(len(table), (), generator=g)) for g in streams]
        return table[ids]

    def _class_of_features(self) -> Tensor | None:
        """Class vector `[1, E]` with which finished images are encoded.

        The class of a photograph is unknown. If classes are random, photographs are encoded with
        the average class, and so are samples, so that training and labelling see the same thing.
        Only features recorded on the trajectory use the sample's own class.
        """
        class_id = self.config.class_id
        if class_id is None:
            return None
        table = self.network.unet.class_embedding.weight
        return table.mean(0, keepdim=True) if class_id == "random" else table[class_id, None]

    def describe_unet(self) -> UNetDescription:
        """The U-Net as a start for segmentation networks (see `Finetunable`).

        Raises ValueError if diffusers cannot rebuild the network from its config, which is so for
        some converted guided-diffusion files.
        """
        # Ours may be rounded to bfloat16.
        unet = self.network.unet if self.dtype == torch.float32 else self._original()
        weights = {k: v.detach().cpu().float().clone() for k, v in unet.state_dict().items()}
        padding = unet.conv_in.padding_mode
        config = dict(unet.config) | ({} if padding == "zeros" else {"padding_mode": padding})
        description = UNetDescription(config, weights)
        with torch.random.fork_rng(devices=[]):
            rebuilt = SegmentationUNet(description, classes=2).unet
        if _heads(rebuilt) != _heads(unet):
            raise ValueError(
                f"the attention heads of {self.config.weights} are not those that its config "
                "gives: this network cannot be fine-tuned; use the ensemble (--kind ensemble)"
            )
        return description

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """The settings, besides blocks and timesteps, that decide the features of an image."""
        features = self.config.features.model_dump(include={"noise", "noise_seed", "record"})
        settings = {f"features.{key}": value for key, value in features.items()}
        return settings | {"class_id": self.config.class_id}

    @cached_property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes of the maps."""
        shapes = self.network.map_shapes(self.image_size, self.blocks)
        return tuple(
            FeatureMapSpec(map_name(t, block), *shapes[block])
            for t in self.config.features.timesteps
            for block in self.blocks
        )


def map_name(t: int, block: int) -> str:
    """Name of the activations of a decoder block at a timestep."""
    return f"t{t}.b{block}"


def map_place(name: str) -> tuple[int, int] | None:
    """(t, block) of a name that `map_name` gave; None for the name of another kind of map."""
    found = re.fullmatch(r"t(\d+)\.b(\d+)", name)
    return None if found is None else (int(found[1]), int(found[2]))


def build_unet(
    image_size: int,
    channels: Sequence[int],
    resnets_per_level: int,
    attention_levels: int,
    num_classes: int | None = None,
) -> UNet2DModel:
    """An untrained U-Net whose `attention_levels` coarsest levels attend.

    With `num_classes`, it is class-conditional: the class embedding is added to that of time.
    """
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
        norm_num_groups=NORM_GROUPS,
        num_class_embeds=num_classes,
    )
