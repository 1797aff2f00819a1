"""StyleGAN2 networks of rosinality/stylegan2-pytorch, and of what is built on it, as ours.

They are the same networks under different names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from factory_core.models import first_fault
from generators.files.modules import plain
from generators.files.torch_file import TorchFile
from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.resample import fir_filter
from generators.stylegan2.storage import assemble

W_AVG = "mapping.w_avg"
# Networks in a file of rosinality/stylegan2-pytorch; the first is averaged over training.
NETWORKS = ("g_ema", "g")
AVERAGE = "latent_avg"  # the mean of w, beside them
SAMPLES = 4096  # of w, where a file does not have its mean
FILTERS = re.compile(r"(convs\.\d+\.conv\.blur|to_rgbs\.\d+\.upsample)\.kernel")


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _first(tensor: Tensor) -> Tensor:
    """Without the leading dimension of size 1."""
    return tensor[0]


# Of a convolution and of a toRGB: their names, ours, and what is done to the tensor.
CONVOLUTION: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "conv.weight": ("weight", _first),
    "conv.modulation.weight": ("affine.weight", _same),
    "conv.modulation.bias": ("affine.bias", _same),
    "noise.weight": ("noise_strength", _first),
    "activate.bias": ("bias", _same),
}
TO_RGB: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "conv.weight": ("weight", _first),
    "conv.modulation.weight": ("affine.weight", _same),
    "conv.modulation.bias": ("affine.bias", _same),
    "bias": ("bias", lambda tensor: tensor.reshape(-1)),
}


def read_rosinality(path: Path) -> tuple[StyleGAN2, str]:
    """The network in a file of rosinality/stylegan2-pytorch that makes its images, and its name.

    Raises ValueError in one line, without the path, if there is none, or if it is damaged.
    """
    content = plain(TorchFile(path))
    found = [n for n in NETWORKS if isinstance(content, dict) and isinstance(content.get(n), dict)]
    if not found:
        raise ValueError(f"it holds no network {NETWORKS[0]}: give the complete checkpoint")
    name = found[0]
    tensors = {str(key): t for key, t in content[name].items() if isinstance(t, Tensor)}
    if len(tensors) < len(content[name]):
        raise ValueError(f"{name} holds more than tensors: expected a state dict")
    # Tensors may repeat one storage, so their shapes alone could fill the memory.
    if sum(t.numel() * t.itemsize for t in tensors.values()) > path.stat().st_size:
        raise ValueError("its tensors are larger than the file")
    average = content.get(AVERAGE)
    network = as_stylegan2(tensors, name, average if isinstance(average, Tensor) else None)
    if average is None:
        z = torch.randn(SAMPLES, network.config.z_dim, generator=torch.Generator().manual_seed(0))
        network.mapping.w_avg.copy_(network.mapping(z).mean(dim=0))
    return network, name


def as_stylegan2(
    tensors: Mapping[str, Tensor], source: str, average: Tensor | None = None
) -> StyleGAN2:
    """The network with these tensors as its state.

    `average` `[w_dim]` is the mean of w, which the state does not hold; without it, 0.

    Raises ValueError in one line if they are not such a network; `source` names them there.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if FILTERS.fullmatch(name):
            _check_filter(name, tensor, source)
            continue
        renamed = _renamed(name)
        if renamed is None:
            raise ValueError(
                f"{source}: {name[:60]} belongs to no StyleGAN2 of rosinality/stylegan2-pytorch"
            )
        ours, change = renamed
        if not tensor.ndim:
            raise ValueError(f"{source}: {name} is a single number")
        found[ours] = change(tensor)
    config = _config(found, source)
    found[W_AVG] = torch.zeros(config.w_dim) if average is None else average
    return assemble(config, found, source)


def _renamed(name: str) -> tuple[str, Callable[[Tensor], Tensor]] | None:
    """Our name of a tensor, and what is done to it; None if there is none."""
    if name == "input.input":
        return "synthesis.b4.const", _first
    parts = name.split(".")
    number = int(parts[1]) if re.fullmatch(r"\w+\.\d{1,2}\..+", name) else -1
    if found := re.fullmatch(r"noises\.noise_(\d{1,2})", name):
        layer = int(found[1])
        place = "b4.conv1" if not layer else _convolution(layer - 1)
        return f"synthesis.{place}.noise_const", lambda tensor: tensor.reshape(tensor.shape[-2:])
    if parts[0] == "style" and number > 0 and parts[2:] in (["weight"], ["bias"]):
        return f"mapping.fc{number - 1}.{parts[2]}", _same
    places = {"conv1": "b4.conv1", "to_rgb1": "b4.torgb"}
    if number >= 0:
        places = {"convs": _convolution(number), "to_rgbs": f"b{8 << number}.torgb"}
    place = places.get(parts[0], "")
    kinds = CONVOLUTION if "conv" in place else TO_RGB
    rest = ".".join(parts[2 if number >= 0 else 1 :])
    if not place or rest not in kinds:
        return None
    ours, change = kinds[rest]
    return f"synthesis.{place}.{ours}", change


def _convolution(number: int) -> str:
    """Our name of `convs.NUMBER`: two at each resolution from 8 pixels on."""
    return f"b{8 << number // 2}.conv{number % 2}"


def _check_filter(name: str, kernel: Tensor, source: str) -> None:
    """Raise ValueError unless a kernel is a multiple of the filter that our network has."""
    same = kernel.shape == fir_filter().shape
    if not same or not torch.allclose(kernel.float() / kernel.sum(), fir_filter(), atol=1e-6):
        raise ValueError(f"{source}: {name} is not the filter [1, 3, 3, 1] of StyleGAN2")


def _config(found: Mapping[str, Tensor], source: str) -> NetworkConfig:
    """The shape of the network, from the shapes of its tensors under our names."""

    def width(name: str, axis: int) -> int:
        tensor = found.get(name)
        if tensor is None or tensor.ndim <= axis:
            raise ValueError(f"{source}: found no tensor {name} of a StyleGAN2")
        return tensor.shape[axis]

    numbers = [int(m[1]) for name in found if (m := re.match(r"synthesis\.b(\d+)\.", name))]
    resolution = max(numbers, default=4)
    layers = {name for name in found if re.fullmatch(r"mapping\.fc\d+\.weight", name)}
    try:
        return NetworkConfig(
            resolution=resolution,
            z_dim=width("mapping.fc0.weight", 1),
            w_dim=width("mapping.fc0.weight", 0),
            mapping_layers=len(layers),
            channel_base=width(f"synthesis.b{resolution}.conv1.weight", 0) * resolution,
            channel_max=width("synthesis.b4.conv1.weight", 0),
        )
    except ValidationError as error:
        raise ValueError(f"{source}: no StyleGAN2 has {first_fault(error)}") from None
