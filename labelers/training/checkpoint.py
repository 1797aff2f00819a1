"""Checkpoints of a training: tensors and numbers in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from factory_core.storage import write_bytes


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any], run: str
) -> None:
    """Write tensors and numbers (anything JSON holds) of the training `run`; raises OSError."""
    content = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
    # Not written by safetensors, which reports a full disk with its own error, not OSError.
    write_bytes(path, save(content, {"numbers": json.dumps(numbers), "run": run}))


def load_checkpoint(path: Path, run: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The tensors and numbers saved in `path`; None if there is no such file.

    Raises ValueError if the file is damaged or belongs to a different training.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to start over") from None
    if notes.get("run") != run:
        raise ValueError(
            f"{path} belongs to a training with different settings or a different number format: "
            "delete it to start over, or give another folder"
        )
    return tensors, json.loads(notes["numbers"])
