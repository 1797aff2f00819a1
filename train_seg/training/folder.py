"""The folder of a training: whether a run may resume in it, and from which checkpoints."""

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
CHECKPOINTS_DIRS = ("checkpoints", "checkpoints-then")  # of each stage
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


def prepare_folder(out: Path, identity: Mapping[str, Any], stages: int = 1) -> None:
    """Make `out` ready to start or resume the training with this `identity`.

    Raises ValueError if it holds a different training, or a damaged one.
    """
    record, found = out / TRAINING_NAME, all_checkpoints(out)
    # A training that failed before its first checkpoint does not prevent a different one.
    if record.is_file() and (found or (out / INFO_NAME).is_file()):
        _check_same(record, identity)
        for last in found:
            _check_archive(last)
    else:
        for name in CHECKPOINTS_DIRS:
            if (out / name).is_dir():
                shutil.rmtree(out / name)
    for folder in (out, *(out / name for name in CHECKPOINTS_DIRS[:stages])):
        folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(folder)
    write_json(record, dict(identity))


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint in this folder to resume from, if there is one."""
    last = checkpoints / LAST_NAME
    return last if last.is_file() else None


def all_checkpoints(out: Path) -> list[Path]:
    """The last checkpoint of each stage that has one."""
    found = (last_checkpoint(out / name) for name in CHECKPOINTS_DIRS)
    return [last for last in found if last is not None]


def _check_same(record: Path, identity: Mapping[str, Any]) -> None:
    """Raise ValueError if `record` is of a training with other settings or data."""
    found = _with_defaults(read_model(record, Identity, "delete it to start over").root)
    others = {
        "data": "other data",
        "validation": "other validation data",
        "init": "another start",
        "unet": "another U-Net",
        "then.data": "other data in --then",
    }
    differing = [
        others.get(key) or f"{key} ({found.get(key)}, now {value})"
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
    with open(last, "rb") as file:  # outside `try`: an unreadable file is not a damaged one
        try:
            damaged = zipfile.ZipFile(file).testzip() is not None
            torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        except DAMAGE:
            damaged = True
    if damaged:
        raise ValueError(f"{last} is damaged: delete it to start over")
