"""`train-labeler --dry-run`: the cost of the training."""

from __future__ import annotations

import time

from factory.commands.train_labeler.preparation import LabelerJob, Preparation
from factory.terminal.text import duration
from factory_core.machine import GIB, disk_free_bytes, peak_memory_bytes


def dry_run(job: LabelerJob) -> None:
    """Encode one batch of images and print the cost of the job; write nothing."""
    prepared = Preparation(job)
    config, needed = prepared.info.config, prepared.budget()
    rows = range(min(prepared.encode_batch, prepared.images))
    for _ in range(2):  # the first batch includes the warm-up
        began = time.perf_counter()
        prepared.features(rows)
        encode_sec = (time.perf_counter() - began) / len(rows) * prepared.images
    peak_gib = peak_memory_bytes() / GIB
    channels = sum(m.channels for m in prepared.info.features)
    hidden = " and ".join(map(str, config.hidden_for(len(prepared.info.classes))))
    kept = "kept" if config.keep_features else "deleted afterwards"
    features_gib = needed.features_bytes / GIB
    job.console.print(
        f"{config.members} members, {channels} channels, {hidden} hidden units: "
        f"{needed.weights / 1e6:.1f} M weights, {config.training.kind} training\n"
        f"disk: {features_gib:.2f} GiB of features ({config.feature_dtype}, {kept}) and "
        f"{needed.checkpoint_bytes / GIB:.2f} GiB of checkpoint; "
        f"{disk_free_bytes(job.out) / GIB:.0f} GiB free\n"
        f"memory: {peak_gib:.1f} GiB while encoding (about {duration(encode_sec)}), then "
        f"{needed.working_bytes / GIB:.2f} GiB to train, and as much of the {features_gib:.2f} GiB "
        "of features as the system has room for"
    )
