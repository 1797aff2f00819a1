"""`train-labeler --dry-run`: the cost of the training."""

from __future__ import annotations

import time

from factory.commands.train_labeler.preparation import LabelerJob, Preparation
from factory.terminal.text import byte_size, duration
from factory_core.machine import disk_free_bytes, peak_memory_bytes

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
        f"disk: {byte_size(needed.checkpoint_bytes)} of checkpoints; "
        f"{byte_size(disk_free_bytes(job.out))} free"
    )
    job.console.print("\n".join(lines))


def _of_ensemble(prepared: Preparation) -> list[str]:
    config, needed = prepared.info.config, prepared.ensemble_budget()
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
    return [
        f"{config.members} members, {channels} channels, {hidden} hidden units: "
        f"{needed.weights / 1e6:.1f} M weights, {config.training.kind} training",
        f"disk: {features} of features ({config.feature_dtype}, {kept})",
        f"memory: {peak} while encoding (about {duration(encode_sec)}), then "
        f"{byte_size(needed.working_bytes)} to train, and as much of the {features} of features "
        "as the system has room for",
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
        f"memory: {byte_size(peak_memory_bytes())} while they train",
    ]
