"""The folder of a training: whether a run may resume in it, and from which checkpoint."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import RootModel

from factory_core.models import read_model
from factory_core.storage import sweep_temporaries, write_json
from train_seg.config import SegmenterConfig
from train_seg.network.segmenter import INFO_NAME
from train_seg.training.module import LAST_NAME

TRAINING_NAME = "training.json"
CHECKPOINTS_DIR = "checkpoints"
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


def prepare_folder(out: Path, identity: Mapping[str, Any]) -> None:
    """Make `out` ready to start or resume the training with this `identity`.

    Raises ValueError if it holds a different training, or a damaged one.
    """
    record, checkpoints = out / TRAINING_NAME, out / CHECKPOINTS_DIR
    last = checkpoints / LAST_NAME
    # A training that failed before its first checkpoint does not prevent a different one.
    if record.is_file() and (last.is_file() or (out / INFO_NAME).is_file()):
        _check_same(record, identity)
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


def _check_same(record: Path, identity: Mapping[str, Any]) -> None:
    """Raise ValueError if `record` is of a training with other settings or data."""
    found = _with_defaults(read_model(record, Identity, "delete it to start over").root)
    digests = {
        "data": "other data",
        "validation": "other validation data",
        "init": "another start",
    }
    differing = [
        digests.get(key) or f"{key} ({found.get(key)}, now {value})"
        for key, value in identity.items()
        if found.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{record.parent} holds a different training: {', '.join(differing)}; use another --out"
        )


def _with_defaults(found: dict[str, Any]) -> dict[str, Any]:
    """`found` with the settings that earlier versions did not have yet."""
    defaults = SegmenterConfig().model_dump(mode="json")
    augment = {**defaults["augment"], **found.get("augment", {})}
    return {**defaults, **found, "augment": augment}


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
