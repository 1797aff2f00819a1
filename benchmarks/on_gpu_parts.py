"""The parts of `benchmarks.on_gpu`, each a function that reports its results as it gets them."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_commands import command_lines
from factory_core.storage import write_json

GIB = 2**30
MOST_IDLE = 0.05  # of the time, a GPU
STEPS = 30  # of a training, after a few to warm up
DEMO = ("--executor", "local")


@dataclass
class Report:
    """Results of a part, written to `file` whenever one is added."""

    file: Path
    found: dict[str, Any] = field(default_factory=dict)

    def add(self, **results: Any) -> None:
        """Keep `results`, even if the part is stopped later."""
        self.found |= results
        write_json(self.file, self.found)


@dataclass(frozen=True)
class Part:
    """A part and the longest that it may take, in seconds."""

    run: Callable[[Report, str, bool], None]
    limit_sec: float


# --- correctness -----------------------------------------------------------------------------


def commands(report: Report, device: str, tiny: bool) -> None:
    """Each command runs, in this process; lists those that do not, with their errors."""
    from typer.main import get_command

    from factory.cli import command_line
    from factory.demo.render import render_folder

    failed: dict[str, str] = {}
    program = get_command(command_line())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        render_folder(Path("annotated"), range(4), size=64)
        Path("photos").symlink_to(Path("annotated", "images"))
        for words in command_lines():
            try:
                program.main([*words, "--device", device], standalone_mode=False)
            except (Exception, SystemExit) as error:
                failed[" ".join(words)] = f"{type(error).__name__}: {error}"[:500]
            report.add(last=words[0], failed=failed)
    if failed:
        raise AssertionError(failed)


def same_images(report: Report, device: str, tiny: bool) -> None:
    """In float32, samples of the device are within one grey level of those of the CPU."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # convolutions in float32 throughout
    for name in ("demo", "demo-stylegan2"):
        levels = [_demo_images(name, where).int() for where in (device, "cpu")]
        apart = (levels[0] - levels[1]).abs()
        report.add(
            **{name: {"most": int(apart.max()), "equal": float((apart == 0).float().mean())}}
        )
        if apart.max() > 1:
            raise AssertionError(f"{name}: {int(apart.max())} grey levels apart")


def _demo_images(name: str, device: str) -> Any:
    import generators
    from factory.recipe import load_recipe, resolve

    recipe = resolve(load_recipe(name, ["generator.precision=float32", "generator.batch_size=4"]))
    return generators.load(recipe.generator, device).sample_images(range(4)).cpu()


def same_bytes(report: Report, device: str, tiny: bool) -> None:
    """`generate` gives the same bytes in two fresh processes."""
    digests = []
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(2):
            out = Path(folder) / str(attempt)
            command = [sys.executable, "-m", "factory", "generate", "--n", "8", "--out", str(out)]
            subprocess.run([*command, *DEMO, "--device", device], check=True, capture_output=True)
            shard = next((out / "shards").iterdir())
            digests.append(hashlib.sha256(shard.read_bytes()).hexdigest())
            report.add(sha256=digests)
    if len(set(digests)) > 1:
        raise AssertionError(f"different bytes: {digests}")


# --- speed -----------------------------------------------------------------------------------


def sampling(report: Report, device: str, tiny: bool) -> None:
    """The LSUN network: images/s with features, their share, memory, and the device's peaks."""
    import torch

    from benchmarks.contenders import results
    from benchmarks.counting import peak_bandwidth
    from benchmarks.sampling_ddpm import Diffusion

    where = torch.device(device)
    report.add(copy_gb_per_sec=peak_bandwidth(where) / 1e9)
    for compiled, batch_size in ((False, 16), (False, 8), (False, 32), (True, 16)):
        if tiny and (compiled or batch_size > 8):
            continue
        options = argparse.Namespace(
            network="lsun",
            reduced=tiny,
            steps=2 if tiny else 25,
            precision="auto",
            plain=False,
            compile="on" if compiled else "off",
            device=where,
        )
        _reset_memory(where)
        (run,) = Diffusion(options).runs(2 if tiny else batch_size)
        for repeat in range(3):
            run.once(where, keep=repeat > 0)
        (row,) = results([run], where)
        name = f"batch {batch_size}{', compiled' if compiled else ''}"
        report.add(**{name: {**row, "peak_gib": _peak_gib(where)}})
        del run


def labeler(report: Report, device: str, tiny: bool) -> None:
    """Labelling an image at the LSUN setting: plain code in both formats, and ours."""
    import torch

    from benchmarks.labeler import WAYS, label_by

    repeats = 1 if tiny else 5
    for way in WAYS:
        if tiny and way.startswith("plain"):
            continue  # minutes on a CPU
        label = label_by(way, device)
        seconds = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            with torch.inference_mode():
                [t.cpu() for t in label()]  # waits for the device
            seconds.append(time.perf_counter() - began)
        report.add(**{way: {"sec": min(seconds[1:])}})


def stylegan2(report: Report, device: str, tiny: bool) -> None:
    """StyleGAN2 alone, and from the first latent to finished shards."""
    with _gan_worker(device, tiny) as (worker, shards):
        generator = worker.models[0]
        batch = range(generator.batch_size)
        generator.sample_images(batch)
        began = time.perf_counter()
        for _ in range(4):
            generator.sample_images(batch).cpu()
        report.add(bare_images_per_sec=4 * len(batch) / (time.perf_counter() - began))
        worker(shards[0])
        began = time.perf_counter()
        for shard in shards[1:]:
            worker(shard)
        count = sum(len(shard.indices) for shard in shards[1:])
        report.add(end_to_end_images_per_sec=count / (time.perf_counter() - began))


def profile(report: Report, device: str, tiny: bool) -> None:
    """How long the GPU is idle while two shards are made."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity

    is_cuda = torch.device(device).type == "cuda"
    kind = DeviceType.CUDA if is_cuda else DeviceType.CPU
    activities = [ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]
    with _gan_worker(device, tiny) as (worker, shards):
        worker(shards[0])
        began = time.perf_counter()
        with torch.profiler.profile(activities=activities) as profiled:
            for shard in shards[1:]:
                worker(shard)
        wall_sec = time.perf_counter() - began
    # Without what the host does to start kernels and to wait for them.
    busy_sec = _busy_us(e for e in profiled.events() or () if e.device_type == kind) / 1e6
    idle = 1 - busy_sec / wall_sec
    report.add(wall_sec=wall_sec, busy_sec=busy_sec, idle=idle, goal_reached=idle <= MOST_IDLE)


def _busy_us(events: Iterable[Any]) -> float:
    """Microseconds in which at least one event ran."""
    spans = sorted((event.time_range.start, event.time_range.end) for event in events)
    busy, until = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy


@contextlib.contextmanager
def _gan_worker(device: str, tiny: bool) -> Iterator[tuple[Any, list[Any]]]:
    """A worker as of `generate`, with a random StyleGAN2 and labeler, and three shards for it."""
    import torch

    from benchmarks.plain_labeler import random_members
    from factory.pipeline.shard import Shard
    from factory.pipeline.shard_writer import Encoding
    from factory.pipeline.worker import ShardWorker, WorkerSpec
    from factory_core.dataset import CANDIDATES_DIR, default_palette
    from factory_core.device import pick_dtype
    from factory_core.storage import open_store
    from generators.stylegan2.config import NetworkConfig, StyleGAN2Config
    from generators.stylegan2.model import StyleGAN2Generator
    from generators.stylegan2.network import StyleGAN2
    from labelers.config import LabelerConfig
    from labelers.ensemble.classifiers import Ensemble
    from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo

    size, batch_size, classes = (32, 2, 3) if tiny else (256, 32, 21)
    torch.manual_seed(0)
    shape = NetworkConfig(resolution=size)
    if tiny:
        shape = NetworkConfig(resolution=size, channel_base=512)
    config = StyleGAN2Config(weights="", batch_size=batch_size)
    generator = StyleGAN2Generator(StyleGAN2(shape), config, device)
    spec = generator.feature_spec
    members = random_members(sum(m.channels for m in spec), classes, 2 if tiny else 10, seed=1)
    ensemble = Ensemble.from_reference(spec, [m.state_dict() for m in members]).to(generator.device)
    labels = LabelerConfig(members=len(members))
    info = LabelerInfo(
        classes=[f"class_{i}" for i in range(classes)],
        features=spec,
        generator=GeneratorInfo(digest=generator.digest),
        image_size=generator.image_size,
        data_digest="",
        config=labels,
    )
    made = Labeler(ensemble, info, pick_dtype("auto", generator.device))
    palette = tuple((red, green, blue) for red, green, blue in default_palette(classes))
    load = lambda *_: (generator, made)  # noqa: E731
    per_shard = 4 * batch_size
    shards = [Shard(i, i * per_shard, (i + 1) * per_shard) for i in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, CANDIDATES_DIR).mkdir()
        out = open_store(Path(folder))
        work = WorkerSpec(out, config, labels, Encoding(palette), device, load=load)
        yield ShardWorker(work), shards


def training(report: Report, device: str, tiny: bool) -> None:
    """Steps/s of a DDPM and of DeepLabV3, with and without waiting for the device each step."""
    for name, train in (("ddpm", _train_ddpm), ("deeplab", _train_deeplab)):
        for waits in (False, True):
            steps_per_sec = _steps_per_sec(train, device, tiny, waits)
            report.add(
                **{f"{name}{', waiting' if waits else ''}": {"steps_per_sec": steps_per_sec}}
            )


def _steps_per_sec(train: Callable[..., None], device: str, tiny: bool, waits: bool) -> float:
    import torch
    from lightning.pytorch.callbacks import Callback

    from benchmarks.counting import wait_for

    class Clock(Callback):
        began = ended = 0.0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if waits:
                wait_for(torch.device(device))
            if trainer.global_step in (5, trainer.max_steps - 1):
                wait_for(torch.device(device))
                self.began, self.ended = self.ended, time.perf_counter()

    clock, steps = Clock(), 12 if tiny else STEPS
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), device, tiny, steps, clock)
    return (steps - 6) / (clock.ended - clock.began)


def _images(count: int, size: int) -> Any:
    import torch

    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def _train_ddpm(out: Path, device: str, tiny: bool, steps: int, clock: Any) -> None:
    from generators.ddpm.config import DDPMTrainingConfig
    from generators.ddpm.training import train
    from generators.training.images import TrainingImages

    size, channels = (16, (16, 32)) if tiny else (64, (64, 128, 256))
    config = DDPMTrainingConfig(
        image_size=size, channels=channels, batch_size=16, steps=steps, preview_every=10**6
    )
    images = TrainingImages.of(_images(32, size))
    train(images, out, config, device=device, progress=[clock])


def _train_deeplab(out: Path, device: str, tiny: bool, steps: int, clock: Any) -> None:
    from train_seg.config import SegmenterConfig
    from train_seg.data.training_data import LabeledImages
    from train_seg.training.train import train

    size = 32 if tiny else 256
    data = LabeledImages(_images(32, size), _images(32, size)[:, 0] % 3, ["a", "b", "c"])
    config = SegmenterConfig(
        encoder="resnet18" if tiny else "resnet101",
        encoder_depth=3 if tiny else 5,
        encoder_weights=None,
        batch_size=8,
        max_steps=steps,
        num_workers=0,
    )
    train([data], out, config, device=device, callbacks=[clock])


def _reset_memory(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gib(device: Any) -> float | None:
    import torch

    return torch.cuda.max_memory_reserved() / GIB if device.type == "cuda" else None


PARTS: dict[str, Part] = {
    "same_images": Part(same_images, 60),
    "same_bytes": Part(same_bytes, 90),
    "commands": Part(commands, 180),
    "sampling": Part(sampling, 180),
    "profile": Part(profile, 60),
    "stylegan2": Part(stylegan2, 60),
    "labeler": Part(labeler, 60),
    "training": Part(training, 90),
}
