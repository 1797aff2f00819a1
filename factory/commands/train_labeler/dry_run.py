"""`train-labeler --dry-run`: the cost of the training."""

from __future__ import annotations

import time

from factory.commands.train_labeler.preparation import LabelerJob, Preparation
from factory.terminal.text import byte_size, duration
from factory_core.machine import disk_free_bytes, peak_memory_bytes


def dry_run(job: LabelerJob) -> None:
    """Encode one batch of images and print the cost of the job; write nothing."""
    prepared = Preparation(job)
    config, needed = prepared.info.config, prepared.budget()
    rows = range(min(prepared.encode_batch, prepared.images))
    for _ in range(2):  # the first batch includes the warm-up
        began = time.perf_counter()
        prepared.features(rows)
        encode_sec = (time.perf_counter() - began) / len(rows) * prepared.images
    peak = byte_size(peak_memory_bytes())
    channels = sum(m.channels for m in prepared.info.features)
    hidden = " and ".join(map(str, config.hidden_for(len(prepared.info.classes))))
    kept = "kept" if config.keep_features else "deleted afterwards"
    features = byte_size(needed.features_bytes)
    job.console.print(
        f"{config.members} members, {channels} channels, {hidden} hidden units: "
        f"{needed.weights / 1e6:.1f} M weights, {config.training.kind} training\n"
        f"disk: {features} of features ({config.feature_dtype}, {kept}) and "
        f"{byte_size(needed.checkpoint_bytes)} of checkpoint; "
        f"{byte_size(disk_free_bytes(job.out))} free\n"
        f"memory: {peak} while encoding (about {duration(encode_sec)}), then "
        f"{byte_size(needed.working_bytes)} to train, and as much of the {features} "
        "of features as the system has room for"
    )
