"""An encoder's network from its file or folder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

import torch
from torch import nn

from generators.encoders import storage
from generators.encoders.config import EncoderConfig, NetworkName
from generators.encoders.files import read_checkpoint
from generators.encoders.kinds import network_of
from generators.encoders.network import Build, Checkpoint, EncoderNetwork

MODULES = {"timm": "timm_model"}  # the others have the name of their network
VIT_KEY, RESNET_KEY = "patch_embed.proj.weight", "layer4.0.conv1.weight"


def load_network(config: EncoderConfig) -> tuple[NetworkName, EncoderNetwork, bool]:
    """The network that `config` names, its name, and whether its weights were published.

    On the CPU, in float32. Raises FileNotFoundError if nothing is there, ValueError in one line if
    it is no encoder, or if the settings do not fit it.
    """
    path = Path(config.weights)
    if path.is_dir():
        info, checkpoint = storage.load(path)
        name, is_published = info.network, False
        if config.network not in (None, name):
            raise ValueError(
                f"generator.network is {config.network}, but {path} holds a {name}: leave it out"
            )
    else:
        if not path.is_file():
            raise FileNotFoundError(f"no encoder at {path}: expected a checkpoint, or a folder")
        is_published = True
    try:
        if path.is_file():
            checkpoint = read_checkpoint(path)
            name = config.network or _told(checkpoint)
        module = importlib.import_module(f"generators.encoders.{MODULES.get(name, name)}")
        network = cast(Build, module.build)(checkpoint, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if config.random_weights is not None:
        randomise(network, config.random_weights)
    return name, cast(EncoderNetwork, network), is_published


def _told(checkpoint: Checkpoint) -> NetworkName:
    """The network by the names of the tensors; raises ValueError if they may be of several."""
    names = checkpoint.tensors
    if (found := network_of(names)) is not None:
        return found
    if VIT_KEY in names:
        raise ValueError(
            "its tensors are of a vision transformer, but do not say which: give "
            "--set generator.network=mae (also a MAE without its decoder), or "
            "--set generator.network=timm --set generator.timm_model=NAME"
        )
    if RESNET_KEY in names:
        raise ValueError(
            "its tensors are of a ResNet, but do not say which: give --set generator.network=swav, "
            "or --set generator.network=timm --set generator.timm_model=NAME"
        )
    raise ValueError(
        "found no encoder by the names of its tensors, expected MAE, SwAV, DINOv2, DINOv3, VDVAE, "
        "ALAE, e4e or pSp: give one, or --set generator.network=timm and timm_model"
    )


@torch.no_grad()
def randomise(network: nn.Module, seed: int) -> None:
    """Replace all weights by random ones: matrices and kernels of variance 1 / inputs.

    Vectors (biases, norms) get their usual first values, so that activations keep their scale.
    """
    stream = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(network.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        if tensor.ndim > 1:
            fan_in = tensor[0].numel() if tensor.ndim > 1 and len(tensor) > 1 else tensor.shape[-1]
            values = torch.randn(tensor.shape, generator=stream) * fan_in**-0.5
        else:
            is_scale = name.endswith(("weight", "running_var", "gamma", "gamma_1", "gamma_2"))
            values = torch.full(tensor.shape, 1.0 if is_scale else 0.0)
        tensor.copy_(values)
