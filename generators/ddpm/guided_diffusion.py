"""guided-diffusion (ADM) networks: from a plain state dict to a diffusers U-Net.

Dhariwal & Nichol 2021. Such a file holds tensors and no settings. Nearly all settings can be read
from the names and shapes of its tensors (`Architecture`); the rest (`Settings`) can be given, and
defaults to the settings of the published networks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor

AttentionOrder = Literal["legacy", "new"]

NORM_GROUPS = 32  # of every group normalisation in ADM
COARSEST_PX = 8  # side of the coarsest level in each size of network that ADM defines
# Tensors that distinguish such a network from any other file.
LANDMARKS = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "middle_block.1.qkv.weight",
    "output_blocks.0.0.in_layers.2.weight",
    "out.2.weight",
)
UPSAMPLER_WEIGHT = re.compile(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.2)\.weight")
# Layers of residual blocks, resamplers and attentions: diffusers' name -> the file's.
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
DOWNSAMPLER = RESNET | {"conv": "op"}
UPSAMPLER = RESNET | {"conv": "conv"}
QKV = ("to_q", "to_k", "to_v")
ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out"} | dict.fromkeys(QKV, "qkv")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What names and shapes of tensors reveal. Levels run from fine to coarse."""

    time_channels: int  # of the sinusoidal time embedding: the base width of the network
    channels: tuple[int, ...]  # per level
    resnets_per_level: int  # of the encoder; the decoder has one more
    attends: tuple[bool, ...]  # per level; the middle block always does
    scale_shift: bool = True  # the time embedding scales activations, not only shifts them
    resnet_resampling: bool = True  # by residual blocks, else by convolutions
    learns_sigma: bool = True  # it predicts the variance too, in three more channels
    num_classes: int | None = None

    @property
    def attention_channels(self) -> list[int]:
        """Widths at which the network attends, ascending."""
        levels = zip(self.channels, self.attends, strict=True)
        return sorted({self.channels[-1], *(width for width, on in levels if on)})

    @classmethod
    def read(cls, state: Mapping[str, Tensor]) -> Architecture:
        """Read the architecture from the tensors of a file.

        Raises ValueError if they are not those of a guided-diffusion U-Net.
        """
        if absent := [name for name in LANDMARKS if name not in state]:
            raise ValueError(
                f"not a guided-diffusion U-Net: found {_some(state)}, but no {_some(absent)}"
            )
        # Each level has `stride` consecutive blocks in the encoder (the first convolution, or the
        # downsampler of the level before, and its resnets) and as many in the decoder, of which
        # the last ends in an upsampler.
        num_blocks = len({n.split(".")[1] for n in state if n.startswith("output_blocks.")})
        upsamplers = [m[1] for name in state if (m := UPSAMPLER_WEIGHT.fullmatch(name))]
        levels = 1 + len(upsamplers)
        stride, rest = divmod(num_blocks, levels)
        if rest or stride < 2:
            raise ValueError(
                f"damaged U-Net: found {num_blocks} output_blocks and {levels - 1} upsamplers, "
                f"expected a multiple of {levels} blocks"
            )

        def width(name: str, dim: int = 0) -> int:
            shape = state[name].shape if name in state else ()
            if len(shape) <= dim:
                raise ValueError(f"damaged U-Net: found no {name} of {dim + 1} or more dimensions")
            return shape[dim]

        firsts = [f"input_blocks.{level * stride + 1}" for level in range(levels)]
        channels = tuple(width(f"{first}.0.out_layers.3.weight") for first in firsts)
        if any(width < 1 or width % NORM_GROUPS for width in channels):
            raise ValueError(
                f"found levels of {channels} channels, expected multiples of {NORM_GROUPS}"
            )
        channels_in, channels_out = width("input_blocks.0.0.weight", 1), width("out.2.weight")
        if channels_in != 3 or channels_out not in (3, 6):
            raise ValueError(
                f"found {channels_in} channels in and {channels_out} out, expected 3 in and 3 or "
                f"6 out: networks that enlarge images or work on latents are not generators"
            )
        return cls(
            learns_sigma=channels_out == 6,
            time_channels=width("time_embed.0.weight", 1),
            channels=channels,
            resnets_per_level=stride - 1,
            attends=tuple(f"{first}.1.qkv.weight" in state for first in firsts),
            scale_shift=width(f"{firsts[0]}.0.emb_layers.1.weight") == 2 * channels[0],
            resnet_resampling="conv" not in upsamplers,
            num_classes=width("label_emb.weight") if "label_emb.weight" in state else None,
        )


@dataclass(frozen=True)
class Settings:
    """What names and shapes hide. Exactly one of `channels_per_head` and `heads` is set."""

    image_size: int
    channels_per_head: int | None = 64
    heads: int | None = None  # the same number at every width
    attention_order: AttentionOrder = "legacy"  # heads, then q, k, v in each; new: the reverse
    beta_schedule: str = "linear"  # by diffusers' name

    @classmethod
    def choose(
        cls,
        net: Architecture,
        image_size: int | None = None,
        channels_per_head: int | None = None,
        heads: int | None = None,
        attention_order: AttentionOrder | None = None,
    ) -> Settings:
        """The given settings, completed by those of the published networks.

        Raises ValueError if a number does not fit the network.
        """
        coarsest = 2 ** (len(net.channels) - 1)
        default = PUBLISHED.get(net) or cls(COARSEST_PX * coarsest)
        image_size = image_size or default.image_size
        if image_size % coarsest:
            raise ValueError(
                f"image_size is {image_size}, expected a multiple of {coarsest}: the network has "
                f"{len(net.channels)} levels"
            )
        if channels_per_head and heads:
            raise ValueError("found both channels_per_head and heads, expected one of them")
        if not (channels_per_head or heads):
            channels_per_head, heads = default.channels_per_head, default.heads
        key, divisor = ("heads", heads) if heads else ("channels_per_head", channels_per_head)
        assert divisor
        if unfit := [width for width in net.attention_channels if width % divisor]:
            raise ValueError(
                f"found attention over {unfit} channels, expected multiples of {divisor}: set "
                f"{key} to what the network was trained with"
            )
        if heads and len(net.attention_channels) == 1:
            channels_per_head, heads = net.channels[-1] // heads, None
        order = attention_order or default.attention_order
        return cls(image_size, channels_per_head, heads, order, default.beta_schedule)


# The published networks that differ from the others in what cannot be read from the file:
# https://github.com/openai/guided-diffusion#classifier-guidance
IMAGENET_64 = Architecture(
    time_channels=192,
    channels=(192, 384, 576, 768),
    resnets_per_level=3,
    attends=(False, True, True, True),
    num_classes=1000,
)
IMAGENET_128 = Architecture(
    time_channels=256,
    channels=(256, 256, 512, 768, 1024),
    resnets_per_level=2,
    attends=(False, False, True, True, True),
    num_classes=1000,
)
PUBLISHED = {
    IMAGENET_64: Settings(64, attention_order="new", beta_schedule="squaredcos_cap_v2"),
    IMAGENET_128: Settings(128, channels_per_head=None, heads=4),
}


def noise_schedule(net: Architecture, settings: Settings) -> DDPMScheduler:
    """The schedule of training: 1000 steps, predicting epsilon."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule=settings.beta_schedule,
        variance_type="learned_range" if net.learns_sigma else "fixed_large",
    )


def build_unet(net: Architecture, settings: Settings) -> UNet2DModel:
    """The network in diffusers' form, on the meta device: shapes without values."""
    levels = len(net.channels)
    with torch.device("meta"):
        unet = UNet2DModel(
            sample_size=settings.image_size,
            in_channels=3,
            out_channels=6 if net.learns_sigma else 3,
            time_embedding_dim=4 * net.time_channels,
            flip_sin_to_cos=True,
            freq_shift=0,
            block_out_channels=net.channels,
            layers_per_block=net.resnets_per_level,
            down_block_types=tuple(_block_type("Down", net, level) for level in range(levels)),
            up_block_types=tuple(_block_type("Up", net, level) for level in range(levels)[::-1]),
            downsample_type="resnet" if net.resnet_resampling else "conv",
            upsample_type="resnet" if net.resnet_resampling else "conv",
            attention_head_dim=settings.channels_per_head or math.gcd(*net.attention_channels),
            norm_num_groups=NORM_GROUPS,
            attn_norm_num_groups=NORM_GROUPS,
            resnet_time_scale_shift="scale_shift" if net.scale_shift else "default",
            num_class_embeds=net.num_classes,
        )
        # diffusers has no settings for what follows, see `check_saveable`.
        if net.time_channels != net.channels[0]:
            width = net.time_channels
            unet.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
            unet.time_embedding = TimestepEmbedding(width, time_embed_dim=4 * width)
    if settings.heads:
        for module in unet.modules():
            if isinstance(module, Attention):
                module.heads = settings.heads
    return unet


def check_saveable(net: Architecture, settings: Settings) -> None:
    """Raise ValueError if the settings of diffusers' U-Net cannot describe this network.

    They have one number of channels per head, and the finest level's width is the base width.
    """
    if settings.heads:
        heads = [width // settings.heads for width in net.attention_channels]
        found = f"{settings.heads} heads of {heads} channels"
    elif net.time_channels != net.channels[0]:
        found = f"a time embedding of {net.time_channels} channels over {net.channels[0]}"
    else:
        return
    raise ValueError(f"found {found}, which no diffusers folder can express: use the file itself")


def _block_type(way: Literal["Down", "Up"], net: Architecture, level: int) -> str:
    if net.attends[level]:
        return f"Attn{way}Block2D"
    return f"Resnet{way}sampleBlock2D" if net.resnet_resampling else f"{way}Block2D"


def convert(state: Mapping[str, Tensor], net: Architecture, settings: Settings) -> UNet2DModel:
    """The network with the values of `state`, in float32; tensors are shared where possible.

    Raises ValueError, naming them, if tensors are missing, unknown or of different shapes.
    """
    unet = build_unet(net, settings)
    layers = _layer_names(net)
    sources: dict[str, str] = {}
    expected: dict[str, tuple[int, ...]] = {}
    for name, tensor in unet.state_dict().items():
        layer, _, kind = name.rpartition(".")
        source = sources[name] = f"{layers[layer]}.{kind}"
        out, *rest = tensor.shape
        expected[source] = (3 * out if layer.endswith(QKV) else out, *rest)
    _check(state, expected)
    tensors = {}
    for name, source in sources.items():
        tensor = state[source].reshape(expected[source]).float()
        layer = name.rpartition(".")[0]
        if layer.endswith(QKV):
            attention, _, part = layer.rpartition(".")
            heads = unet.get_submodule(attention).heads
            tensor = _part_of_qkv(tensor, QKV.index(part), heads, settings.attention_order)
        tensors[name] = tensor
    unet.load_state_dict(tensors, assign=True)
    return unet.eval()


def _layer_names(net: Architecture) -> dict[str, str]:
    """diffusers' name of each layer -> its name in the file; some do not exist in this network."""
    stride = net.resnets_per_level + 1
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "class_embedding": "label_emb",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }

    def add(block: str, source: str, layers: Mapping[str, str]) -> None:
        names.update({f"{block}.{ours}": f"{source}.{theirs}" for ours, theirs in layers.items()})

    add("mid_block.resnets.0", "middle_block.0", RESNET)
    add("mid_block.attentions.0", "middle_block.1", ATTENTION)
    add("mid_block.resnets.1", "middle_block.2", RESNET)
    for level in range(len(net.channels)):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"  # up: coarse to fine
        for i in range(stride):
            source = f"input_blocks.{level * stride + 1 + i}"
            if i < stride - 1:
                add(f"{down}.resnets.{i}", f"{source}.0", RESNET)
                add(f"{down}.attentions.{i}", f"{source}.1", ATTENTION)
            else:
                add(f"{down}.downsamplers.0", f"{source}.0", DOWNSAMPLER)
            source = f"output_blocks.{level * stride + i}"
            add(f"{up}.resnets.{i}", f"{source}.0", RESNET)
            add(f"{up}.attentions.{i}", f"{source}.1", ATTENTION)
        add(f"{up}.upsamplers.0", f"{source}.{2 if net.attends[-1 - level] else 1}", UPSAMPLER)
    return names


def _check(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the tensors are those `expected`; ignores trailing ones in shapes."""
    problems = {
        "missing": [name for name in expected if name not in state],
        "unknown": [name for name in state if name not in expected],
        "of a different shape": [
            f"{name} (found {list(state[name].shape)}, expected {list(shape)})"
            for name, shape in expected.items()
            if name in state and _squeezed(state[name].shape) != _squeezed(shape)
        ],
        "not of floating point": [n for n in state if not state[n].is_floating_point()],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        raise ValueError(f"damaged or modified U-Net: {listed}")


def _squeezed(shape: Iterable[int]) -> list[int]:
    """`shape` without trailing ones: a linear layer may be stored as a 1-wide convolution."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _part_of_qkv(tensor: Tensor, part: int, heads: int, order: AttentionOrder) -> Tensor:
    """Query, key or value (`part` 0, 1, 2) `[C, ...]`, head by head, of the three `[3C, ...]`."""
    if order == "new":
        return tensor.unflatten(0, (3, -1))[part]
    return tensor.unflatten(0, (heads, 3, -1))[:, part].flatten(0, 1)


def _some(names: Iterable[str], most: int = 3) -> str:
    """The first few names and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
