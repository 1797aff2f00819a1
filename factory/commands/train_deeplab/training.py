"""Training a segmenter, in this process or by a crew of workers, and reporting the result."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from factory.commands.train_deeplab.job import Crew, SegmenterJob
from factory.commands.train_deeplab.start import read_start
from factory.terminal.notes import print_notes
from factory.terminal.progress import quiet_libraries
from factory_core.pictures import remember

if TYPE_CHECKING:
    from train_seg.network.segmenter import Segmenter


def train_deeplab(job: SegmenterJob, crew: Crew | None, console: Console) -> None:
    """Train a segmenter by `crew`, or in this process if None; print the result.

    Raises as `train_here` and `train_on_ray`.
    """
    if crew is None:
        segmenter = train_here(job, console)
    else:
        from factory.commands.train_deeplab.on_ray import train_on_ray

        segmenter = train_on_ray(job, crew, console)
    remember(job.out, job.scaled)
    scores, skipped = segmenter.scores, segmenter.skipped
    if skipped:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
        console.print(f"skipped {sum(skipped.values())} damaged samples ({reasons})")
    found = f", validation mIoU {scores['miou']:.4f}" if scores else ""
    if job.config.encoder_weights is not None and segmenter.encoder_start is not None:
        console.print(f"the encoder started from {segmenter.encoder_start} weights")
    console.print(f"segmenter in {job.out}{found}")


def train_here(job: SegmenterJob, console: Console) -> Segmenter:
    """Train in this process; raises as `train_seg.training.train.train`."""
    from factory.terminal.training_progress import TrainingProgress
    from factory_core.device import naming_memory
    from train_seg.training.train import train

    quiet_libraries()
    data, then, val = job.read(partial(print_notes, console))
    with naming_memory("--set batch_size=", job.config.batch_size):
        return train(
            data,
            job.out,
            job.config,
            val,
            then=then,
            mix=job.mix,
            init=read_start(job.init),
            device=job.device,
            wandb=job.wandb,
            callbacks=[TrainingProgress("training", console, job.out)],
        )
