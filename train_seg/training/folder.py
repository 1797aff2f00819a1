"""The folder of a training: what binds a resumption, and the checkpoint it goes on from."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from factory_core.storage import sweep_temporaries, write_json
from train_seg.network.segmenter import ABOUT_NAME
from train_seg.training.module import LAST_NAME

TRAINING_NAME = "training.json"
CHECKPOINTS_DIR = "checkpoints"
DAMAGE = (  # what zipfile and torch make of an archive with wrong bytes
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)


def prepare_folder(out: Path, identity: Mapping[str, Any]) -> None:
    """Make `out` ready for a training of this `identity`, or for its resumption.

    Raises ValueError if it holds another training, or a damaged one.
    """
    record, checkpoints = out / TRAINING_NAME, out / CHECKPOINTS_DIR
    last = checkpoints / LAST_NAME
    # A training that failed before its first checkpoint leaves nothing that binds the next one.
    if record.is_file() and (last.is_file() or (out / ABOUT_NAME).is_file()):
        _check_same(record, identity)
        _check_archive(last)
    elif checkpoints.is_dir():
        shutil.rmtree(checkpoints)
    checkpoints.mkdir(parents=True, exist_ok=True)
    for folder in (out, checkpoints):
        sweep_temporaries(folder)
    write_json(record, dict(identity))


def last_checkpoint(out: Path) -> Path | None:
    """The checkpoint to go on from, if there is one."""
    last = out / CHECKPOINTS_DIR / LAST_NAME
    return last if last.is_file() else None


def _check_same(record: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings or data than those of `record`."""
    try:
        found = dict(json.loads(record.read_bytes()))
    except (ValueError, TypeError):
        raise ValueError(f"{record} is damaged: delete it to start anew") from None
    names = {"data": "other data", "validation": "other validation data"}
    differing = [
        names.get(key) or f"{key} ({found.get(key)}, now {value})"
        for key, value in identity.items()
        if found.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{record.parent} holds another training: {', '.join(differing)}; use another --out"
        )


def _check_archive(last: Path) -> None:
    """Refuse a damaged checkpoint: a zip archive, whose checksums torch does not look at."""
    if not last.is_file():
        return
    with open(last, "rb") as file:  # outside: a file that may not be read is not damaged
        try:
            damaged = zipfile.ZipFile(file).testzip() is not None
            torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        except DAMAGE:
            damaged = True
    if damaged:
        raise ValueError(f"{last} is damaged: delete it to start anew")
