"""Training one labeler on all annotated images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from factory.commands.train_labeler.folder import (
    FEATURES_DIR,
    begin,
    clean,
    settings_of,
)
from factory.commands.train_labeler.preparation import LabelerJob, Preparation
from factory.locking.lock import exclusive
from factory_core.pictures import remember

if TYPE_CHECKING:
    from labelers.labeler import LabelerInfo


def train_one(job: LabelerJob) -> None:
    """Train a labeler on an annotated folder and write it to `job.out`.

    Resumes. Raises ValueError, naming what differs, if the folder holds a run with other settings.
    """
    from labelers.labeler import INFO_FILE, Labeler

    prepared = Preparation(job)
    with exclusive(job.out):
        begin(job.out, settings_of(prepared.info))
        if (job.out / INFO_FILE).is_file():
            info = Labeler.load(job.out).info
        else:
            store = prepared.encode(job.out / FEATURES_DIR)
            labeler = prepared.fit(store, prepared.annotations, job.out, "training")
            remember(job.out, prepared.annotations.pictures)
            labeler.save(job.out)
            info = labeler.info
        clean(job.out, prepared)
    about = _trained(info.scores) if info.regions is None else _named(info)
    job.console.print(f"labeler in {job.out} ({'; '.join(about)})")


def _named(info: LabelerInfo) -> Iterator[str]:
    """What the regions of the generator are."""
    assert info.regions is not None
    yield ", ".join(f"region {k} is {info.classes[c]}" for k, c in enumerate(info.regions))
    yield f"{info.scores['train_accuracy']:.1%} of the pixels agree"


def _trained(scores: Mapping[str, float]) -> Iterator[str]:
    """How well, and for how long, each kind of member was trained."""
    for prefix, whose in (("", ""), ("network_", "networks: ")):
        if (steps := scores.get(f"{prefix}steps")) is not None:
            accuracy = scores[f"{prefix}train_accuracy"]
            yield f"{whose}training accuracy {accuracy:.3f}, {steps:.0f} steps"
