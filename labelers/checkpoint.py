"""Where an interrupted training goes on: one file of tensors and numbers, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any], run: str
) -> None:
    """Write tensors and numbers (anything JSON holds) of the training `run`; raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    content = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
    save_file(content, temporary, {"numbers": json.dumps(numbers), "run": run})
    os.replace(temporary, path)


def load_checkpoint(path: Path, run: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """What was saved in `path`; None if there is no such file.

    Raises ValueError if the file is damaged or of another training than `run`.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to train anew") from None
    if notes.get("run") != run:
        raise ValueError(
            f"{path} belongs to a training with other settings or number format: delete it to train"
            " anew, or give another folder"
        )
    return tensors, json.loads(notes["numbers"])
