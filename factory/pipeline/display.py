"""A job as its user sees it: a progress line, failures by name, a summary."""

from __future__ import annotations

from rich.console import Console

from factory.pipeline.executors import Executor
from factory.pipeline.failures import ShardsFailed
from factory.pipeline.job import Job
from factory.pipeline.progress import Progress
from factory.pipeline.run import run
from factory.reports.class_shares import show_class_shares
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory.terminal.text import listing
from factory_core.dataset import PREVIEW_NAME, Manifest

STAGES = {"generate": "making", "commit": "selecting", "done": "finished"}


def run_shown(job: Job, executor: Executor, console: Console) -> None:
    """Run the job and print its progress and result; raises as `run`."""
    quiet_libraries()
    devices: set[str] = set()
    try:
        with ProgressLine("starting", "samples", 1, console, job.out) as line:

            def follow(progress: Progress) -> None:
                devices.update(progress.devices)
                show(progress, line)

            manifest = run(job, executor, follow)
    except ShardsFailed as failed:
        console.print("\n".join(listing(failed.failures)))
        raise
    _summarise(manifest, job, console)
    if devices:
        console.print(f"computed on {', '.join(sorted(devices))}")
    if len(devices) > 1:
        console.print(
            "note: different kinds of device round differently: the same recipe gives the same "
            "bytes on one kind only"
        )


def show(progress: Progress, line: ProgressLine) -> None:
    """Show where the job stands on `line`."""
    mean = progress.mean_uncertainty
    status = f"{progress.shards_done}/{progress.shards_total} shards"
    if progress.shards_failed:
        status += f"  {progress.shards_failed} failed"
    if mean is not None:
        status += f"  uncertainty {mean:.3f}"
    if progress.devices:
        status += f"  on {', '.join(progress.devices)}"
    line.describe(STAGES[progress.stage], progress.eta_sec)
    line.update(progress.samples_done, status, progress.samples_total)


def _summarise(manifest: Manifest, job: Job, console: Console) -> None:
    totals, shards = manifest.totals, len(manifest.shards)
    console.print(
        f"{totals.candidates} candidates, {totals.dropped} most uncertain dropped, "
        f"{totals.kept} kept in {shards} shard{'s' * (shards != 1)}"
    )
    show_class_shares(manifest, job.out, console)
    console.print(f"dataset in {job.out}; see {job.out / PREVIEW_NAME}")
