"""Reading a generator's folder in our own format: a description in JSON, and its safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from factory_core.models import read_model

COPY_AGAIN = "copy the folder again"
Info = TypeVar("Info", bound=BaseModel)


def read_own(
    info_file: Path, weights_file: Path, model: type[Info], what: str, writer: str
) -> tuple[Info, dict[str, Tensor]]:
    """The description and the tensors of `what`, which `writer` writes.

    Raises FileNotFoundError if a file is missing, ValueError if one is damaged.
    """
    if not info_file.is_file() or not weights_file.is_file():
        raise FileNotFoundError(
            f"no {what} at {info_file.parent}: expected a folder with {info_file.name} and "
            f"{weights_file.name}, as {writer}"
        )
    info = read_model(info_file, model, COPY_AGAIN)
    try:
        return info, load_file(weights_file)
    except SafetensorError as error:
        raise ValueError(f"{weights_file} is damaged ({error}): {COPY_AGAIN}") from None
