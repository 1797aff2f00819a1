"""The folder of a factorized diffusion model: `factorized.json` and `factorized.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save as serialise

from factory_core.storage import write_bytes
from generators.ddpm.noise import NoiseModel
from generators.factorized.config import INFO_FILE, NetworkConfig
from generators.factorized.network import FactorizedUNet, build
from generators.files.own import COPY_AGAIN, read_own

WEIGHTS_FILE = "factorized.safetensors"


class FactorizedFile(BaseModel):
    """Content of `factorized.json`; `schedule` is the config of diffusers' `DDPMScheduler`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["factorized"] = "factorized"
    format_version: Literal[1] = 1
    network: NetworkConfig
    schedule: dict[str, Any]
    offset_noise_std: float = Field(ge=0, allow_inf_nan=False)


def save(
    net: FactorizedUNet,
    config: NetworkConfig,
    schedule: DDPMScheduler,
    noise: NoiseModel,
    folder: Path,
) -> None:
    """Write the network into `folder`, created if needed; the description is the last file."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {k: v for k, v in schedule.config.items() if not k.startswith("_")}
    info = FactorizedFile(network=config, schedule=settings, offset_noise_std=noise.offset_std)
    tensors = {name: t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    write_bytes(folder / WEIGHTS_FILE, serialise(tensors))
    write_bytes(folder / INFO_FILE, (info.model_dump_json(indent=1) + "\n").encode())


def load(
    folder: Path,
) -> tuple[FactorizedUNet, NetworkConfig, DDPMScheduler, NoiseModel]:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: `folder` holds no factorized diffusion model.
        ValueError: a file is damaged.
    """
    weights_file = folder / WEIGHTS_FILE
    writer = "train-generator --kind factorized writes it"
    info, tensors = read_own(
        folder / INFO_FILE, weights_file, FactorizedFile, "factorized diffusion model", writer
    )
    with torch.device("meta"):
        net = build(info.network)
    _check(net, tensors, weights_file)
    net.load_state_dict(tensors, assign=True)
    net.requires_grad_(False).eval()
    schedule = DDPMScheduler.from_config(info.schedule)
    return net, info.network, schedule, NoiseModel(info.offset_noise_std)


def _check(net: FactorizedUNet, tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Raise ValueError unless the tensors are those of `net`, and finite."""
    expected = {name: t.shape for name, t in net.state_dict().items()}
    found = {name: t.shape for name, t in tensors.items()}
    if different := [n for n in {**expected, **found} if expected.get(n) != found.get(n)]:
        raise ValueError(
            f"{file} does not fit {INFO_FILE}: {len(different)} tensors differ, such as "
            f"{different[0]}: {COPY_AGAIN}"
        )
    if broken := [name for name, t in tensors.items() if not t.isfinite().all()]:
        raise ValueError(f"{file}: {broken[0]} is not finite: {COPY_AGAIN}")
