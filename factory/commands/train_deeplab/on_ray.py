"""Training a segmenter by several processes through Ray Train, here or on a cluster.

Every worker runs `train_seg.training.train.train` on its rows of each batch. If one is lost, its
successors resume from the checkpoints in OUT, so OUT and the data must have the same paths on every
node.
"""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy
from rich.console import Console

from factory.commands.train_deeplab.job import Crew, SegmenterJob
from factory.commands.train_deeplab.start import read_start
from factory.pipeline.executors.cluster import cluster
from factory.terminal.notes import print_notes
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory.terminal.training_progress import steps_done, training_status
from factory_core.device import DeviceFailed, naming_memory
from factory_core.machine import available_cpus
from train_seg.data.training_data import LabeledImages
from train_seg.network.pretrained import settle_encoder_weights
from train_seg.network.segmenter import Segmenter
from train_seg.training.folder import all_checkpoints
from train_seg.training.stage import Together
from train_seg.training.train import open_stages, train

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

RAY_DIR = ".ray"  # in OUT: Ray Train's own files, while it runs
ATTEMPTS = 3  # how often in a row workers may be lost without a new checkpoint
REPORT_SEC = 1.0


def train_on_ray(job: SegmenterJob, crew: Crew, console: Console) -> Segmenter:
    """Train as `train` does, with the workers of `crew`.

    Each batch is divided among them, so a step is the same for any number of workers up to
    rounding; one worker gives the same bytes as training without Ray. When a worker is lost, all
    resume from the last checkpoint.

    Raises:
        ValueError, OSError: as `train`, or the batch does not divide evenly among the workers, or
            there are fewer validation images than workers.
        ChildProcessError: workers were lost ATTEMPTS times in a row without any progress.
    """
    quiet_libraries()
    # Decided here, because which pretrained weights are cached may differ between nodes.
    job = replace(job.absolute(), config=settle_encoder_weights(job.config))
    data, then, val = job.read(partial(print_notes, console))
    _check(job, crew, val)
    stages = open_stages(data, then, job.config, val, job.mix, read_start(job.init))
    total = sum(stage.steps for stage in stages)
    with cluster(crew.address, max(crew.workers * crew.cpus, available_cpus())):
        gpus = _use_gpus(job.device, crew)
        with ProgressLine("training", "steps", total, console, job.out) as line:
            _run(job, crew, gpus, _Mail(line))
    return Segmenter.load(job.out, device="cpu")


def _check(job: SegmenterJob, crew: Crew, val: LabeledImages | None) -> None:
    if job.config.batch_size % crew.workers:
        raise ValueError(
            f"--workers {crew.workers}: batch_size {job.config.batch_size} is not divisible by "
            f"{crew.workers} workers: set batch_size to a multiple of {crew.workers}"
        )
    if val is not None and len(val.images) < crew.workers:
        raise ValueError(
            f"--workers {crew.workers}: found {len(val.images)} validation images in {val.name}, "
            "expected at least one per worker"
        )
    if job.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device {job.device}: with --workers, expected auto, cpu or cuda")


def _use_gpus(device: str, crew: Crew) -> bool:
    """Whether each worker gets a GPU: as requested, or for `auto` if there are GPUs.

    Raises ValueError if there are fewer than workers.
    """
    import ray

    found = int(ray.cluster_resources().get("GPU", 0))
    if device == "cpu" or (device == "auto" and not found):
        return False
    if found < crew.workers:
        raise ValueError(
            f"--workers {crew.workers}: found {found} GPUs, expected one per worker: give fewer "
            "workers, or --device cpu"
        )
    return True


def _run(job: SegmenterJob, crew: Crew, gpus: bool, mail: _Mail) -> None:
    """Start the crew; restart it when workers are lost, as long as it makes progress."""
    import ray.train
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "job": job,
            "device": "cuda" if gpus else "cpu",
            "threads": crew.cpus,
            "queue": mail.queue,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=crew.workers,
            use_gpu=gpus,
            resources_per_worker={"CPU": crew.cpus, **({"GPU": 1} if gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(job.out / RAY_DIR),
            # mypy sees the types of the first Ray Train, which `ray.train` replaces on import.
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),  # type: ignore[call-arg]
        ),
    )
    attempts, reached = 0, None
    try:
        while True:
            try:
                _fit(trainer, mail)
                return
            except ray.train.TrainingFailedError as error:
                # Ray's own retries (FailureConfig) would repeat a user's mistake too.
                if mail.error is not None:
                    raise mail.error from None
                before, reached = reached, _stamp(job.out)
                attempts = attempts + 1 if reached == before else 1
                if attempts == ATTEMPTS:
                    raise ChildProcessError(
                        f"the workers failed {ATTEMPTS} times: {error}"
                    ) from None
    finally:
        shutil.rmtree(job.out / RAY_DIR, ignore_errors=True)


def _fit(trainer: TorchTrainer, mail: _Mail) -> None:
    """`trainer.fit()` in a thread: it reports nothing until it ends, and catches Ctrl-C itself."""
    errors: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(REPORT_SEC)
        mail.read()
    mail.read()  # what arrived after the last read
    if errors:
        raise errors[0]


def _stamp(out: Path) -> int | None:
    """Identifies the newest checkpoint by its time, in ns; None if there is none."""
    return max((last.stat().st_mtime_ns for last in all_checkpoints(out)), default=None)


def _work(settings: dict[str, Any]) -> None:
    """One worker's training; runs in a process of Ray Train."""
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    quiet_libraries()
    torch.set_num_threads(settings["threads"])
    job, queue = settings["job"], settings["queue"]

    def strategy() -> Strategy:
        # Some encoders have parameters that no output depends on. Buffers need no broadcast: batch
        # normalisation sees the same batch in every worker.
        return RayDDPStrategy(find_unused_parameters=True, broadcast_buffers=False)

    try:
        data, then, val = job.read()
        with naming_memory("--set batch_size=", job.config.batch_size):
            train(
                data,
                job.out,
                job.config,
                val,
                then=then,
                mix=job.mix,
                init=read_start(job.init),
                device=settings["device"],
                wandb=job.wandb,
                callbacks=[_Reports(queue)],
                together=Together(strategy, RayLightningEnvironment),
            )
    except DeviceFailed:
        raise  # nobody's mistake: another process may go on
    except (ValueError, OSError) as error:
        queue.put(error)
        raise


class _Reports(Callback):
    """Sends the first worker's step and status to the driver every REPORT_SEC."""

    def __init__(self, queue: Queue):
        self._queue, self._reported = queue, 0.0

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.is_global_zero and time.monotonic() - self._reported > REPORT_SEC:
            self._reported = time.monotonic()
            self._queue.put((steps_done(trainer, module)[0], training_status(trainer)))


class _Mail:
    """What workers send: (step, status) for the progress line, and the user's mistakes."""

    def __init__(self, line: ProgressLine):
        from ray.util.queue import Queue

        self.queue = Queue(actor_options={"num_cpus": 0})
        self.error: Exception | None = None
        self._line = line

    def read(self) -> None:
        """Process what has arrived."""
        for message in self.queue.get_nowait_batch(self.queue.qsize()):
            if isinstance(message, Exception):
                self.error = message
            else:
                self._line.update(*message)
