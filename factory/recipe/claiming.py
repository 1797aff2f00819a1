"""An output folder belongs to one set of inputs: whoever resumes it must have the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factory.recipe.comparing import diff
from factory_core.output_folder import contents
from factory_core.storage import write_json


def claim(folder: Path, record: str, identity: Mapping[str, Any], noun: str) -> None:
    """Claim `folder` for the inputs `identity` of a `noun`, in its file `record`; or resume there.

    Raises ValueError if it holds one with other inputs, naming what differs, or other files.
    """
    file = folder / record
    if file.is_file():
        if different := diff(_read(file), dict(identity)):
            raise ValueError(
                f"{folder} holds {noun} with other inputs ({', '.join(different)}): give a "
                "different --out, or delete it to start over"
            )
    elif others := contents(folder):
        bare = noun.removeprefix("a ").removeprefix("an ")
        raise ValueError(
            f"--out {folder} holds no {bare} but {others[0]}: give a new or empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, dict(identity))


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        raise ValueError(f"{file} is damaged: delete its folder to start over") from None
