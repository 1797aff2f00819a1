"""StyleGAN2 networks as rosinality/stylegan2-pytorch writes them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from generators.encoders.files import read_checkpoint
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.rosinality import as_stylegan2
from tests.cases.checkpoints.case import GOLDEN, Bench, Case

FILE = GOLDEN / "encoders" / "e4e" / "e4e_tiny_encode.pt"
PROJECT = "rosinality/stylegan2-pytorch"


def state() -> dict[str, Tensor]:
    """The state dict of the network that every case holds: the decoder of a published e4e."""
    tensors = read_checkpoint(FILE).tensors
    return {n[len("decoder.") :]: t for n, t in tensors.items() if n.startswith("decoder.")}


def average() -> Tensor:
    """The mean of its w."""
    return read_checkpoint(FILE).tensors["latent_avg"][0].clone()


def network() -> StyleGAN2:
    """The network that every case holds."""
    return as_stylegan2(state(), PROJECT, average())


def expected() -> dict[str, Tensor]:
    """What it made of codes `ws`: activations and image."""
    return load_file(FILE.parent / "expected.safetensors")


def saved(bench: Bench, content: dict[str, Any]) -> Path:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return bench.file("550000.pt", buffer.getvalue())


def converted(bench: Bench) -> Path:
    """A file of its converter, or a training's."""
    return saved(bench, {"g_ema": state(), "latent_avg": average()})


CASES = (Case(PROJECT, "`.pt`", True, "g_ema (averaged)", converted),)
