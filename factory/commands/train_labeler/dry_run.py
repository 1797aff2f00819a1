"""`train-labeler --dry-run`: the cost of the training."""

from __future__ import annotations

import time

from factory.commands.train_labeler.preparation import LabelerJob, Preparation
from factory.terminal.text import duration
from factory_core.machine import GIB, disk_free_bytes, peak_memory_bytes

STEPS = 2  # of a network, timed after a first one


def dry_run(job: LabelerJob) -> None:
    """Encode one batch of images, or take a few steps, and print the cost; write nothing."""
    prepared = Preparation(job)
    config, needed = prepared.info.config, prepared.budget()
    lines = []
    if config.has_ensemble:
        lines += _of_ensemble(prepared)
    if config.has_network:
        lines += _of_networks(prepared)
    lines.append(
        f"disk: {needed.checkpoint_bytes / GIB:.2f} GiB of checkpoints; "
        f"{disk_free_bytes(job.out) / GIB:.0f} GiB free"
    )
    job.console.print("\n".join(lines))


def _of_ensemble(prepared: Preparation) -> list[str]:
    config, needed = prepared.info.config, prepared.ensemble_budget()
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
    return [
        f"{config.members} members, {channels} channels, {hidden} hidden units: "
        f"{needed.weights / 1e6:.1f} M weights, {config.training.kind} training",
        f"disk: {features_gib:.2f} GiB of features ({config.feature_dtype}, {kept})",
        f"memory: {peak_gib:.1f} GiB while encoding (about {duration(encode_sec)}), then "
        f"{needed.working_bytes / GIB:.2f} GiB to train, and as much of the {features_gib:.2f} GiB "
        "of features as the system has room for",
    ]


def _of_networks(prepared: Preparation) -> list[str]:
    network, needed = prepared.info.config.network, prepared.network_budget()
    trainer = prepared.network_trainer()
    trainer.learn()  # includes the warm-up
    began = time.perf_counter()
    for _ in range(STEPS):
        trainer.learn()
    train_sec = (time.perf_counter() - began) / STEPS * trainer.total
    plural = "s" * (network.members != 1)
    weights = needed.weights / network.members / 1e6
    return [
        f"{network.members} network{plural} of {weights:.1f} M weights, "
        f"{network.steps} steps each: about {duration(train_sec)} to train",
        f"memory: {peak_memory_bytes() / GIB:.1f} GiB while they train",
    ]
