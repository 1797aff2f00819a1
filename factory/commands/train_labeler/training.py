"""Training one labeler on all annotated images."""

from __future__ import annotations

from factory.commands.train_labeler.folder import (
    CHECKPOINT_NAME,
    FEATURES_DIR,
    begin,
    clean,
    settings_of,
)
from factory.commands.train_labeler.preparation import LabelerJob, Preparation
from factory.locking.lock import exclusive


def train_one(job: LabelerJob) -> None:
    """Train the ensemble on an annotated folder and write it to `job.out`.

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
            checkpoint = job.out / CHECKPOINT_NAME
            labeler = prepared.fit(store, prepared.annotations, checkpoint, "training")
            labeler.save(job.out)
            info = labeler.info
        clean(job.out, prepared)
    job.console.print(
        f"labeler in {job.out} (training accuracy {info.scores['train_accuracy']:.3f}, "
        f"{info.scores['steps']:.0f} steps)"
    )
