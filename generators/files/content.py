"""What a file of weights holds, in the format of PyTorch or of safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from generators.files.modules import plain
from generators.files.survey import survey
from generators.files.torch_file import TorchFile


def read_content(path: Path) -> Any:
    """Nested dictionaries and lists, with tensors; nothing in the file is executed.

    Raises ValueError in one line, without the path, if it is damaged.
    """
    if survey(path).form != "safetensors":
        return plain(TorchFile(path))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"it is a truncated or damaged safetensors file ({error}): download or copy it again"
        ) from error
