"""The state dict of a guided-diffusion network, read from a file of any format that holds one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from generators.ddpm.config import Parametrisation
from generators.ddpm.wrappers import Found, find_state
from generators.files.content import read_content
from generators.files.unsupported import describe, describe_parts


def read_state(path: Path, parametrisation: Parametrisation | None = None) -> Found:
    """The network's tensors in a file of PyTorch or safetensors; code in it is never run.

    Tensors of a plain file stay mapped to it.

    Raises ValueError in one line, without the path, if there are none or if the file is damaged or
    of a known, unsupported kind, or if its network has another `parametrisation`.
    """
    try:
        found = find_state(read_content(path))
    except ValueError as error:
        raise ValueError(describe(path) or str(error)) from error
    what = describe_parts(path) if found.recognised else describe(path)
    if what := what or _different(found.state, parametrisation):
        raise ValueError(what)
    return found


def _different(state: Mapping[str, Tensor], parametrisation: Parametrisation | None) -> str | None:
    """What a network is whose tensors have guided-diffusion's names, but not their shapes."""
    qkv, first = state.get("middle_block.1.qkv.weight"), state.get("input_blocks.0.0.weight")
    of_consistency_models = qkv is not None and qkv.ndim == 4
    if of_consistency_models and parametrisation is None:
        return (
            "this is an EDM or a consistency model of openai/consistency_models: set "
            "generator.parametrisation=edm (files named edm_*) or consistency (cd_*, ct_*); "
            "for `convert`, --parametrisation"
        )
    if qkv is not None and not of_consistency_models and parametrisation is not None:
        return (
            f"this network sees timesteps, but parametrisation is {parametrisation}, which is for "
            "networks of openai/consistency_models: remove it"
        )
    if first is not None and first.ndim == 4 and first.shape[1] == 6:
        return (
            "this is an upsampler of guided-diffusion, which enlarges images: give the diffusion "
            "model that makes the small ones"
        )
    return None
