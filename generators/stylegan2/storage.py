"""Our own format of a StyleGAN2 generator: a folder of safetensors and JSON.

`generator.json` holds the shape of the network, `generator.safetensors` its tensors under the
names of StyleGAN2-ADA state dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save as serialise
from torch import Tensor

from factory_core.storage import write_bytes
from generators.files.own import read_own
from generators.stylegan2.config import INFO_FILE, NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.resample import fir_filter

WEIGHTS_FILE = "generator.safetensors"
FILTER = "resample_filter"  # beside the weights of a layer


class GeneratorFile(BaseModel):
    """Content of `generator.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["stylegan2"] = "stylegan2"
    format_version: Literal[1] = 1
    network: NetworkConfig


def check_shapes(config: NetworkConfig, found: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise ValueError unless `found`, shapes by name, are those of a network of shape `config`.

    It needs hardly any memory, so it runs before tensors of these shapes are read. Resampling
    filters, which published files carry with every layer, are optional.
    """
    with torch.device("meta"):
        network = StyleGAN2(config)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    filters = {f"{name}.{FILTER}": tuple(fir_filter().shape) for name, _ in network.named_modules()}
    if missing := [name for name in expected if name not in found]:
        raise ValueError(f"{source}: found no tensor {missing[0]} ({len(missing)} are missing)")
    for name, shape in found.items():
        wanted = expected.get(name, filters.get(name))
        if wanted is None:
            unknown = [name for name in found if name not in expected | filters]
            raise ValueError(f"{source}: found {len(unknown)} unknown tensors, such as {name}")
        if tuple(shape) != wanted:
            raise ValueError(f"{source}: {name} is {list(shape)}, expected {list(wanted)}")


def _is_filter(name: str) -> bool:
    return name.endswith(f".{FILTER}")


def assemble(config: NetworkConfig, tensors: Mapping[str, Tensor], source: str) -> StyleGAN2:
    """The network of shape `config` with `tensors` as its state, in float32, for inference.

    Raises:
        ValueError: a tensor is missing, unknown, not finite, or of a different shape or type, or a
            resampling filter is not StyleGAN2's; `source` names the file.
    """
    check_shapes(config, {name: t.shape for name, t in tensors.items()}, source)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"{source}: {name} is {tensor.dtype}, expected finite floats")
        if _is_filter(name) and not torch.allclose(tensor.float(), fir_filter()):
            raise ValueError(f"{source}: {name} is not the filter [1, 3, 3, 1] of StyleGAN2")
    with torch.device("meta"):
        network = StyleGAN2(config)
    state = {name: t.float() for name, t in tensors.items() if not _is_filter(name)}
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()


def save(network: StyleGAN2, folder: Path) -> None:
    """Write the network into `folder`, created if needed; `generator.json` is the last file."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    info = GeneratorFile(network=network.config).model_dump_json(indent=1) + "\n"
    write_bytes(folder / WEIGHTS_FILE, serialise(tensors))
    write_bytes(folder / INFO_FILE, info.encode())


def load(folder: Path) -> StyleGAN2:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: `folder` holds no StyleGAN2 generator.
        ValueError: a file is damaged.
    """
    weights_file = folder / WEIGHTS_FILE
    writer = "train-generator and convert write it, or a .pkl file"
    info, tensors = read_own(
        folder / INFO_FILE, weights_file, GeneratorFile, "StyleGAN2 generator", writer
    )
    return assemble(info.network, tensors, str(weights_file))
