"""Validated JSON: a file or its content as a pydantic model, errors in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def read_model(file: Path, model: type[Model], hint: str) -> Model:
    """The JSON file as a `model`.

    Raises FileNotFoundError (or another OSError) if it cannot be opened, and ValueError, ending in
    `hint` (what to do), if it is damaged.
    """
    return parse_model(file.read_bytes(), model, file, hint)


def parse_model(
    content: bytes | dict[str, Any], model: type[Model], file: Path, hint: str
) -> Model:
    """As `read_model`, of JSON text or decoded values that were read from `file`."""
    try:
        if isinstance(content, bytes):
            return model.model_validate_json(content)
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{file} is damaged ({first_fault(error)}): {hint}") from None


def first_fault(error: ValidationError) -> str:
    """The first fault of a validation: `'key.of.it': what is wrong`."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "content"
    return f"'{where}': {first['msg'].removeprefix('Value error, ')}"
