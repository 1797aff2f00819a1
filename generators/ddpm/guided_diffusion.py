"""guided-diffusion (ADM) networks: from a plain state dict to a diffusers U-Net.

Dhariwal & Nichol 2021. Such a file holds tensors and no settings. Nearly all settings can be read
from the names and shapes of its tensors (`Architecture`); the rest is given or assumed
(`Settings`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps, get_timestep_embedding
from torch import Tensor, nn

from generators.ddpm.architecture import NORM_GROUPS, Architecture
from generators.ddpm.guided_settings import AttentionOrder, Settings
from generators.ddpm.tensors import check_tensors

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


def build_unet(net: Architecture, settings: Settings) -> UNet2DModel:
    """The network in diffusers' form, on the meta device: shapes without values."""
    levels = len(net.channels)
    width = net.time_channels
    tabulated = _rescales(settings)
    with torch.device("meta"):
        unet = UNet2DModel(
            sample_size=settings.image_size,
            in_channels=3,
            out_channels=6 if net.learns_sigma else 3,
            time_embedding_dim=4 * width,
            time_embedding_type="learned" if tabulated else "positional",
            num_train_timesteps=settings.train_steps if tabulated else None,
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
        if width != net.channels[0]:
            unet.time_proj = (
                nn.Embedding(settings.train_steps, width)
                if tabulated
                else Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
            )
            unet.time_embedding = TimestepEmbedding(width, time_embed_dim=4 * width)
    if settings.heads:
        upsample = settings.num_heads_upsample or settings.heads
        for name, module in unet.named_modules():
            if isinstance(module, Attention):
                module.heads = upsample if name.startswith("up_blocks") else settings.heads
    return unet


def check_saveable(net: Architecture, settings: Settings) -> None:
    """Raise ValueError if the settings of diffusers' U-Net cannot describe this network.

    They have one number of channels per head, and the finest level's width is the base width.
    """
    if settings.parametrisation == "edm":
        found = "an EDM whose network sees 250 ln(sigma)"
    elif settings.num_heads_upsample:
        found = f"{settings.heads} heads, and {settings.num_heads_upsample} in the decoder"
    elif settings.heads:
        heads = [width // settings.heads for width in net.attention_channels]
        assumed = " (assumed)" if "heads" in settings.assumed else ""
        found = f"{settings.heads} heads{assumed} of {heads} channels"
    elif net.time_channels != net.channels[0]:
        found = f"a time embedding of {net.time_channels} channels over {net.channels[0]}"
    else:
        return
    hint = ", or give --channels-per-head" if "heads" in settings.assumed else ""
    raise ValueError(
        f"found {found}, which no diffusers folder can express: use the file itself as "
        f"--generator{hint}"
    )


def _rescales(settings: Settings) -> bool:
    """Whether the network sees other numbers than the schedule's timesteps."""
    return settings.rescale_timesteps and settings.train_steps != 1000


def _time_table(net: Architecture, settings: Settings) -> Tensor:
    """Embeddings of all rescaled timesteps `[train_steps, time_channels]`, float32.

    diffusers rescales no timesteps, but it reads their embeddings from a table.
    """
    t = torch.arange(settings.train_steps) * (1000 / settings.train_steps)
    return get_timestep_embedding(
        t, net.time_channels, flip_sin_to_cos=True, downscale_freq_shift=0
    )


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
        if layer == "time_proj":
            continue
        source = sources[name] = f"{layers[layer]}.{kind}"
        out, *rest = tensor.shape
        expected[source] = (3 * out if layer.endswith(QKV) else out, *rest)
    check_tensors(state, expected)
    tensors = {"time_proj.weight": _time_table(net, settings)} if _rescales(settings) else {}
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


def _part_of_qkv(tensor: Tensor, part: int, heads: int, order: AttentionOrder) -> Tensor:
    """Query, key or value (`part` 0, 1, 2) `[C, ...]`, head by head, of the three `[3C, ...]`."""
    if order == "new":
        return tensor.unflatten(0, (3, -1))[part]
    return tensor.unflatten(0, (heads, 3, -1))[:, part].flatten(0, 1)
