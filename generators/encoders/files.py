"""Checkpoints of encoders as they are published, read as data: nothing in a file is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from generators.encoders.network import Checkpoint
from generators.files.content import read_content
from generators.files.modules import printable
from generators.files.unsupported import describe, describe_download

# Where programs put the state dict: MAE, SwAV and e4e, ALAE.
WRAPPERS = ("model", "state_dict", "models")
# Beside it, what a network may need: of MAE and e4e.
SETTINGS = ("args", "opts")
PARALLEL = "module."  # of networks that were trained on several GPUs
LATENT_AVERAGE = "latent_avg"


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors in a file of PyTorch or safetensors, mapped to it where its format allows.

    Raises ValueError in one line, without the path, if there are none, or if it is damaged.
    """
    try:
        content = read_content(path)
    except ValueError as error:
        raise ValueError(describe_download(path) or str(error)) from error
    state = content
    if isinstance(content, Mapping):
        wrapped = [k for k in WRAPPERS if isinstance(content.get(k), Mapping)]
        state = content[wrapped[0]] if wrapped else content
    tensors = _flat(state)
    if not tensors:
        what = describe(path) or "it holds no tensors by name"
        raise ValueError(f"{what}: expected the checkpoint of an encoder")
    settings: dict[str, Any] = {}
    if isinstance(content, Mapping) and state is not content:
        for key in SETTINGS:
            if isinstance(found := content.get(key), Mapping):
                settings |= {name: found[name] for name in found if isinstance(name, str)}
        if isinstance(average := content.get(LATENT_AVERAGE), Tensor):
            tensors[LATENT_AVERAGE] = average
    return Checkpoint(tensors, settings)


def _flat(state: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of several by name, by dotted names.

    Raises ValueError if something else is among them.
    """
    if not isinstance(state, Mapping):
        return {}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        inside = value if isinstance(value, Mapping) else {"": value}
        for rest, tensor in inside.items():
            path = ".".join(part for part in (name, rest) if part != "")
            if not isinstance(path, str) or not isinstance(tensor, Tensor):
                raise ValueError(
                    f"its state dict has {printable(path)}, which is no tensor: expected the "
                    "checkpoint of an encoder"
                )
            found[path.removeprefix(PARALLEL)] = tensor
    return found
