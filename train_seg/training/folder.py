"""The folder of a training: whether a run may resume in it, and from which checkpoints."""

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
from train_seg.config import SegmenterConfig
from train_seg.network.segmenter import INFO_NAME
from train_seg.training.module import LAST_NAME

TRAINING_NAME = "training.json"
CHECKPOINTS_DIRS = ("checkpoints", "checkpoints-then")  # of each stage
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


def prepare_folder(
    out: Path, identity: Mapping[str, Any], continues: Continues, stages: int = 1
) -> None:
    """Make `out` ready to start or resume the training with this `identity`.

    A training of another length in `out` is resumed if `continues` says so of its identity. Raises
    ValueError if it holds a different training, or a damaged one.
    """
    record, found = out / TRAINING_NAME, all_checkpoints(out)
    # A training that failed before its first checkpoint does not prevent a different one.
    if record.is_file() and (found or (out / INFO_NAME).is_file()):
        _check_same(record, identity, continues)
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


def _check_same(record: Path, identity: Mapping[str, Any], continues: Continues) -> None:
    """Raise ValueError if `record` is of a training with other settings or data."""
    found = _with_defaults(read_model(record, Identity, "delete it to start over").root)
    keys = [key for key, value in identity.items() if found.get(key) != value]
    if not keys:
        return
    is_length = all(key in LENGTH for key in keys)
    if is_length and continues(found):
        return
    others = {
        "data": "other data",
        "validation": "other validation data",
        "init": "another start",
        "unet": "another U-Net",
        "then.data": "other data in --then",
    }
    differing = [
        others.get(key) or f"{key} ({found.get(key)}, now {identity[key]})" for key in keys
    ]
    why = " (only a longer one with a constant learning rate continues it exactly)"
    raise ValueError(
        f"{record.parent} holds a different training: {', '.join(differing)}"
        f"{why if is_length else ''}; use another --out, which may start from it with --init"
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
