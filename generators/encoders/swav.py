"""SwAV (Caron et al. 2020): ResNet-50 and its wider variants, such as RN50w2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, load_strictly
from generators.encoders.resnet import STAGES, ResidualNetwork
from generators.encoders.vit import count_blocks

WHAT = "a SwAV ResNet"
HEADS = ("projection_head.", "prototypes")  # of its training
TIMM_STEM = 64  # channels


def build(checkpoint: Checkpoint, config: EncoderConfig) -> ResidualNetwork:
    """A SwAV network of any width; by default, the inputs of blocks 0, 2, 4 of each stage."""
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(HEADS)}
    with torch.device("meta"):
        network = resnet(tensors)
    load_strictly(network, tensors, f"{WHAT} with {network.conv1.out_channels} channels")
    return ResidualNetwork(network, config)


def resnet(tensors: Mapping[str, Tensor]) -> Any:
    """The ResNet, not loaded yet, that `tensors` belong to.

    All of its widths follow that of the stem, which timm fixes at 64. Raises ValueError if they
    belong to no ResNet.
    """
    stem = tensors.get("conv1.weight")
    counts = tuple(count_blocks(tensors, f"layer{n}.") for n in range(1, 1 + STAGES))
    if stem is None or stem.ndim != 4 or not all(counts) or not 0 < len(stem) <= 1024:
        raise ValueError(f"not the weights of {WHAT}: expected conv1.weight, layer1 to layer4")
    width = len(stem)
    channels = tuple(width << n for n in range(STAGES))
    block: Any = Bottleneck  # which timm types as an instance
    network: Any = ResNet(block, counts, num_classes=0, channels=channels)
    if width != TIMM_STEM:
        first, out = network.layer1[0], 4 * width
        network.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        network.bn1 = nn.BatchNorm2d(width)
        first.conv1 = nn.Conv2d(width, width, 1, bias=False)
        first.downsample = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out))
    return network
