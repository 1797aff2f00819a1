"""Our own folder of an encoder: `encoder.json`, and `encoder.safetensors` if it has weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from safetensors.torch import save as serialise
from torch import Tensor

from factory_core.models import read_model
from factory_core.storage import write_bytes
from generators.encoders.config import NetworkName
from generators.encoders.kinds import INFO_FILE
from generators.encoders.network import Checkpoint
from generators.files.own import COPY_AGAIN, read_own

WEIGHTS_FILE = "encoder.safetensors"
WRITER = "train-generator --kind mae, vdvae or e4e writes it"


class EncoderFile(BaseModel):
    """Content of `encoder.json`: the network, and settings of it that its tensors do not show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["encoder"] = "encoder"
    format_version: Literal[1] = 1
    network: NetworkName
    settings: dict[str, Any] = {}


def save(folder: Path, info: EncoderFile, tensors: Mapping[str, Tensor]) -> None:
    """Write an encoder into `folder`, created if needed; the description is the last file."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / WEIGHTS_FILE, serialise(found))
    write_bytes(folder / INFO_FILE, (info.model_dump_json(indent=1) + "\n").encode())


def load(folder: Path) -> tuple[EncoderFile, Checkpoint]:
    """Read what `save` wrote, or a folder whose network has no weights.

    Raises FileNotFoundError if `folder` holds no encoder, ValueError if a file is damaged.
    """
    file, weights = folder / INFO_FILE, folder / WEIGHTS_FILE
    if file.is_file() and not weights.exists():
        info = read_model(file, EncoderFile, COPY_AGAIN)
        if info.network == "pixels":
            return info, Checkpoint({})
    info, tensors = read_own(file, weights, EncoderFile, "encoder", WRITER)
    return info, Checkpoint(tensors, info.settings)
