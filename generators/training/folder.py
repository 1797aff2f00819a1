"""The folder of a generator's training: its record, its checkpoint, and whether it may resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from factory_core.models import read_model
from factory_core.storage import write_json

CHECKPOINTS, LAST_NAME = "checkpoints", "last.ckpt"
RECORD_NAME = "training.json"
NAMED = 3  # images that an error names


class TrainingRecord(BaseModel):
    """Content of `training.json`; a finished training adds its steps and seconds.

    `images` holds the name and digest of each image, in order; older trainings have only their
    number, in `provenance`.
    """

    model_config = ConfigDict(frozen=True)

    config: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    images: dict[str, str] = {}
    steps: int = 0
    seconds: float = 0.0

    def save(self, file: Path) -> None:
        """Write what is set to `file`."""
        write_json(file, self.model_dump(mode="json", exclude_unset=True))


def read_record(out: Path) -> TrainingRecord:
    """The record in `out`; raises ValueError if it is damaged, OSError if there is none."""
    return read_model(out / RECORD_NAME, TrainingRecord, f"delete {out} to start over")


def check_readable(checkpoint: Path) -> None:
    """Raise ValueError if a checkpoint is damaged."""
    try:
        torch.load(checkpoint, map_location="meta", weights_only=True)
    except Exception as error:  # zip, pickle and OS errors of many types
        raise ValueError(f"{checkpoint} is damaged: delete it to start over") from error


def check_resumable(
    theirs: TrainingRecord, ours: TrainingRecord, out: Path, changeable: Sequence[str]
) -> None:
    """Raise ValueError if the training in `out` has different settings or images.

    Settings that are `changeable` may differ.
    """
    for before, now in ((theirs.config, ours.config), (theirs.provenance, ours.provenance)):
        for key, value in now.items():
            found = before.get(key)
            if found == value or key in changeable:
                continue
            if key == "images" and theirs.images:
                continue  # compared by content below
            if key == "steps" and isinstance(found, int) and value > found:
                raise ValueError(
                    f"{out} holds a training of {found} steps, not {value}, and its learning rate "
                    f"follows that number: to train longer, start from it with --init {out} and "
                    "another --out"
                )
            way_out = _continue_with(out) if key == "images" else "or another --out"
            raise ValueError(
                f"{out} holds a training with {key} {found}, not {value}: give the "
                f"original value to resume it, {way_out}"
            )
    if theirs.images and (difference := _difference(theirs.images, ours.images)):
        raise ValueError(
            f"{out} holds a training on other images ({difference}): restore them to resume it, "
            f"{_continue_with(out)}"
        )


def _continue_with(out: Path) -> str:
    return f"or continue on these with --init {out} and another --out"


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """How two sets of images differ, by name; empty if they have the same content and order."""
    if list(before.values()) == list(now.values()):  # files may have been renamed
        return ""
    groups = {
        "missing or damaged": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
        "changed": [n for n in now if n in before and now[n] != before[n]],
    }
    parts = [f"{len(names)} {what}: {_some(names)}" for what, names in groups.items() if names]
    return "; ".join(parts) or "the same, in a different order"


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def interrupted(folder: str, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Settings and averaged weights of the unfinished training in `folder`; None if it is none.

    The weights are the tensors of its last checkpoint whose names start with `prefix`, which is
    removed. Raises ValueError if a file is damaged.
    """
    out = Path(folder)
    last = out / CHECKPOINTS / LAST_NAME
    if not last.is_file() or not (out / RECORD_NAME).is_file():
        return None
    record = read_record(out)
    if record.steps:
        return None
    check_readable(last)
    state = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
    kept = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
    return record.config, kept
