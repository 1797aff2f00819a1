"""The folder of a training: whether a run may resume in it, and from which checkpoint."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import RootModel

from factory_core.models import read_model
from factory_core.storage import sweep_temporaries, write_json
from train_seg.network.segmenter import INFO_NAME
from train_seg.training.module import LAST_NAME

TRAINING_NAME = "training.json"
CHECKPOINTS_DIR = "checkpoints"
LENGTH = ("max_steps", "epochs")
Continues = Callable[[Mapping[str, Any]], bool]
DAMAGE = (  # what zipfile and torch raise for an archive with wrong bytes
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)


class Identity(RootModel[dict[str, Any]]):
    """training.json: what decides the result of a training."""


def prepare_folder(out: Path, identity: Mapping[str, Any], continues: Continues) -> None:
    """Make `out` ready to start or resume the training with this `identity`.

    A training of another length in `out` is resumed if `continues` says so of its identity. Raises
    ValueError if it holds a different training, or a damaged one.
    """
    record, checkpoints = out / TRAINING_NAME, out / CHECKPOINTS_DIR
    last = checkpoints / LAST_NAME
    # A training that failed before its first checkpoint does not prevent a different one.
    if record.is_file() and (last.is_file() or (out / INFO_NAME).is_file()):
        _check_same(record, identity, continues)
        _check_archive(last)
    elif checkpoints.is_dir():
        shutil.rmtree(checkpoints)
    checkpoints.mkdir(parents=True, exist_ok=True)
    for folder in (out, checkpoints):
        sweep_temporaries(folder)
    write_json(record, dict(identity))


def last_checkpoint(out: Path) -> Path | None:
    """The checkpoint to resume from, if there is one."""
    last = out / CHECKPOINTS_DIR / LAST_NAME
    return last if last.is_file() else None


def _check_same(record: Path, identity: Mapping[str, Any], continues: Continues) -> None:
    """Raise ValueError if `record` is of a training with other settings or data."""
    found = read_model(record, Identity, "delete it to start over").root
    keys = [key for key, value in identity.items() if found.get(key) != value]
    if not keys:
        return
    is_length = all(key in LENGTH for key in keys)
    if is_length and continues(found):
        return
    digests = {"data": "other data", "validation": "other validation data"}
    differing = [
        digests.get(key) or f"{key} ({found.get(key)}, now {identity[key]})" for key in keys
    ]
    why = " (only a longer one with a constant learning rate continues it exactly)"
    raise ValueError(
        f"{record.parent} holds a different training: {', '.join(differing)}"
        f"{why if is_length else ''}; use another --out"
    )


def _check_archive(last: Path) -> None:
    """Raise ValueError if the checkpoint is damaged: torch does not verify checksums of its zip."""
    if not last.is_file():
        return
    with open(last, "rb") as file:  # outside `try`: an unreadable file is not a damaged one
        try:
            damaged = zipfile.ZipFile(file).testzip() is not None
            torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        except DAMAGE:
            damaged = True
    if damaged:
        raise ValueError(f"{last} is damaged: delete it to start over")
