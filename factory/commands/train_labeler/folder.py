"""The output folder of `train-labeler`: claimed by one set of settings, cleaned when done.

    DIR/labeler.safetensors, labeler.json   the result
        folds.json, split_*/                the result with `--folds`
        unfinished.json                     until there is a result: the settings of the run
        features/                           features of the annotated images, complete or not
        checkpoint.safetensors, networks.checkpoint.safetensors
                                            where the training resumes

A folder that holds a run with other settings is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.commands.train_labeler.preparation import Preparation, remove_checkpoints
from factory.recipe import diff
from factory_core.output_folder import contents
from factory_core.storage import write_json

if TYPE_CHECKING:
    from labelers.labeler import LabelerInfo

FEATURES_DIR = "features"
UNFINISHED_NAME = "unfinished.json"
FOLDS_NAME = "folds.json"


def settings_of(info: LabelerInfo, folds: dict[str, int] | None = None) -> dict[str, Any]:
    """The settings that two runs in one folder must share, under the names that users know."""
    content = info.model_dump(mode="json")
    generator = content["generator"]
    return {
        "folds": folds,
        "annotations": info.data_digest,
        "classes": content["classes"],
        "palette": content["palette"],
        "features": content["features"],
        # The content of the weights matters, not their path.
        "generator": {**generator["config"], "weights": generator["digest"]},
        "labeler": content["config"],
    }


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object that an earlier run wrote to `path`; raises ValueError if it is damaged."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise ValueError(f"{path} is damaged: delete its folder to start over") from None


def begin(folder: Path, settings: dict[str, Any]) -> None:
    """Claim `folder` for a run with these settings.

    Raises ValueError, naming what differs, if it holds a run with other settings.
    """
    from labelers.labeler import INFO_FILE, Labeler

    if (folder / INFO_FILE).is_file():
        found = settings_of(Labeler.load(folder).info)
    elif (folder / FOLDS_NAME).is_file():
        found = read_record(folder / FOLDS_NAME)["settings"]
    elif (folder / UNFINISHED_NAME).is_file():
        found = read_record(folder / UNFINISHED_NAME)
    elif others := contents(folder):
        raise ValueError(
            f"--out {folder} holds no labeler but {others[0]}: give a new or empty folder"
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / UNFINISHED_NAME, settings)
        return
    if different := diff(found, settings):
        raise ValueError(
            f"{folder} holds a labeler with other settings ({', '.join(different)}): give a "
            "different --out, or delete it to start over"
        )


def clean(folder: Path, prepared: Preparation) -> None:
    """Remove what a finished run no longer needs; idempotent."""
    features = folder / FEATURES_DIR
    if features.is_dir() and not prepared.info.config.keep_features:
        prepared.store(features).delete()
    remove_checkpoints(folder)
    (folder / UNFINISHED_NAME).unlink(missing_ok=True)
