"""A VDVAE from the weights of a checkpoint: its shape, which they give but for the blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from factory_core.models import first_fault
from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, load_strictly
from generators.encoders.vdvae_config import PRESETS, Preset, VDVAEShape, read_blocks
from generators.encoders.vdvae_network import VDVAE
from generators.files.own import COPY_AGAIN

OURS = ("preset", "encoder_blocks", "decoder_blocks")
FLAGS = "set generator.preset, or generator.encoder_blocks and generator.decoder_blocks"
DEFAULT = "ffhq256"  # whose normalisation is used with other blocks


def build(checkpoint: Checkpoint, config: EncoderConfig) -> VDVAE:
    """The network of `checkpoint`; see `generators.encoders.network.Build`."""
    shape = shape_of(checkpoint, config)
    with torch.device("meta"):  # no random weights first
        network = VDVAE(shape, config.layers)
    network = network.to_empty(device="cpu")
    load_strictly(network, checkpoint.tensors, "a VDVAE of these blocks")
    return network


def shape_of(checkpoint: Checkpoint, config: EncoderConfig) -> VDVAEShape:
    """The shape of the network of `checkpoint`; blocks and normalisation from `config`.

    Without a preset or blocks, the preset that has as many blocks. Raises ValueError if none fits.
    """
    tensors = checkpoint.tensors
    if checkpoint.settings:  # a folder of our own
        return _own_shape(checkpoint.settings, config)
    encoder, decoder = (_count(tensors, stem) for stem in ("encoder.enc", "decoder.dec"))
    preset = _preset(config, encoder, decoder)
    blocks = read_blocks(preset.encoder_blocks, "d"), read_blocks(preset.decoder_blocks, "m")
    for name, found, described in (
        ("encoder", encoder, len(blocks[0])),
        ("decoder", decoder, len(blocks[1])),
    ):
        if found != described:
            raise ValueError(f"its {name} has {found} blocks, the settings {described}: {FLAGS}")
    widths = {
        block.resolution: _dimension(tensors, f"decoder.dec_blocks.{number}.prior.c1.weight", 1)
        for number, block in enumerate(blocks[1])
    } | {
        block.resolution: _dimension(tensors, f"encoder.enc_blocks.{number}.c1.weight", 1)
        for number, block in enumerate(blocks[0])
    }
    inner = _dimension(tensors, "encoder.enc_blocks.0.c1.weight", 0)
    biases = [name for name in tensors if name.startswith("decoder.bias_xs.")]
    try:
        return VDVAEShape(
            **preset._asdict(),
            widths=widths,
            zdim=_dimension(tensors, "decoder.dec_blocks.0.z_proj.weight", 1),
            bottleneck=inner / widths[blocks[0][0].resolution],
            no_bias_above=max((_dimension(tensors, name, 2) for name in biases), default=0),
            mixtures=_dimension(tensors, "decoder.out_net.out_conv.weight", 0) // 10,
        )
    except ValidationError as error:
        raise ValueError(f"not the weights of a VDVAE: {first_fault(error)}") from None


def _own_shape(settings: Mapping[str, Any], config: EncoderConfig) -> VDVAEShape:
    """The shape that was written with the weights."""
    if given := [name for name in OURS if getattr(config, name) is not None]:
        raise ValueError(f"generator.{given[0]} is set, but the folder says it: leave it out")
    try:
        return VDVAEShape.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"its settings are damaged ({first_fault(error)}): {COPY_AGAIN}") from None


def _count(tensors: Mapping[str, Tensor], stem: str) -> int:
    """Number of the blocks whose names begin with `stem`."""
    pattern = re.compile(re.escape(stem) + r"_blocks\.(\d{1,9})\.")
    return len({found[1] for name in tensors if (found := pattern.match(name))})


def _preset(config: EncoderConfig, encoder: int, decoder: int) -> Preset:
    """The preset of `config` with its blocks, or the published one with these numbers of blocks."""
    given = {
        name: value
        for name in ("encoder_blocks", "decoder_blocks")
        if (value := getattr(config, name)) is not None
    }
    if config.preset is not None or len(given) == len(Preset._fields[:2]):
        return PRESETS[config.preset or DEFAULT]._replace(**given)
    if given:
        raise ValueError("set both generator.encoder_blocks and generator.decoder_blocks, or none")
    for preset in PRESETS.values():
        counts = (len(read_blocks(preset[0], "d")), len(read_blocks(preset[1], "m")))
        if counts == (encoder, decoder):
            return preset
    raise ValueError(
        f"found a VDVAE of {encoder} encoder and {decoder} decoder blocks, which no preset has: "
        f"{FLAGS}"
    )


def _dimension(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    """The size of a tensor along an axis; raises ValueError if it is missing or has no such."""
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim <= axis:
        raise ValueError(
            f"not the weights of a VDVAE: {name} {'is missing' if tensor is None else 'is flat'}: "
            "give the complete checkpoint, as it was published"
        )
    return tensor.shape[axis]
