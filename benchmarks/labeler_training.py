"""Training on 50 images of 256x256 at the LSUN setting, against the plain implementation.

    python -m benchmarks.labeler_training [--classes 21] [--threads 2] [--json FILE]

Features are random, which affects the time in one way only: members trained on noise stop as soon
as the reference's rule allows. Both are therefore charged the minimum number of steps.

Ours (`fast`, and `reference` for comparison) reads all 50 images from a store on disk. `fast` runs
to its end; of `reference`, some steps are timed. The plain implementation keeps upsampled features
in memory. It is timed on PLAIN_IMAGES images: upsampling one image, and one step of one member.
Each runs in its own process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import plain_labeler as plain
from factory_core.device import pick_dtype
from factory_core.storage import write_json
from labelers.config import FastTraining, LabelerConfig, ReferenceTraining
from labelers.labeler import GeneratorInfo
from labelers.training.budget import budget
from labelers.training.feature_store import FeatureStore
from labelers.training.fit import fit
from labelers.training.trainer import Report

IMAGES = 50
PLAIN_IMAGES = 2  # 4.4 GB of float32 vectors
MEMBERS = 10
WARM_STEPS, TIMED_STEPS = 20, 200
GIB = 2**30
TRAININGS: dict[str, FastTraining | ReferenceTraining] = {
    "fast": FastTraining(),
    "reference": ReferenceTraining(),
}


class Enough(Exception):
    """Raised when a part has been timed."""


def memory_gib(name: str) -> float:
    """A field of /proc/self/status: VmHWM (peak with mapped files), RssAnon (now, without them)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith(name))


def random_masks(classes: int, images: int) -> torch.Tensor:
    """Masks uint8 `[images, 256, 256]` of blocks of 16x16 pixels."""
    rng = torch.Generator().manual_seed(0)
    blocks = torch.randint(classes, (images, 16, 16), generator=rng, dtype=torch.uint8)
    return blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)


def fill(folder: Path) -> None:
    """Features of all images on disk: random, and equal for all images."""
    store = FeatureStore(folder, plain.lsun_spec(), IMAGES, "float16")
    features = plain.random_features(store.spec, 1, seed=0)
    for _ in range(IMAGES):
        store.append(features)


def least_steps(batch_pixels: int) -> int:
    """Steps of a member under the reference's rule: four passes and the patience."""
    area = math.prod(plain.LSUN_SIZE)
    return plain.MIN_EPOCHS * (IMAGES * area // batch_pixels) + plain.PATIENCE_BATCHES


def run_ours(way: str, classes: int, folder: Path) -> dict[str, float]:
    """Seconds of a complete `fast` training, or of `reference` extrapolated from a part."""
    training = TRAININGS[way]
    config = LabelerConfig(members=MEMBERS, training=training)
    store = FeatureStore(folder, plain.lsun_spec(), IMAGES, "float16")
    masks = random_masks(classes, IMAGES)
    dtype = pick_dtype(training.precision, torch.device("cpu"))
    seconds: dict[int, float] = {}
    anonymous = 0.0

    def watch(report: Report) -> None:
        nonlocal anonymous
        seconds[report.step] = time.perf_counter() - started
        anonymous = max(anonymous, memory_gib("RssAnon"))
        if way == "reference" and report.step >= TIMED_STEPS:
            raise Enough

    started = time.perf_counter()
    with contextlib.suppress(Enough):
        fit(
            store,
            masks,
            config,
            classes=[f"class_{i}" for i in range(classes)],
            generator=GeneratorInfo(digest=""),
            data_digest="",
            dtype=dtype,
            progress=watch,
        )
    total = time.perf_counter() - started
    first, last = min(seconds), max(seconds)
    step = (seconds[last] - seconds[first]) / (last - first)
    steps = last if way == "fast" else least_steps(training.batch_pixels)
    needed = budget(store.spec, IMAGES, plain.LSUN_SIZE, classes, config, dtype)
    return {
        "sec": total if way == "fast" else seconds[first] + step * (steps - first),
        "step_sec": step,
        "steps": steps,
        "measured_steps": last,
        "peak_gib": memory_gib("VmHWM"),
        "anonymous_gib": anonymous,
        "budget_gib": needed.working_bytes / GIB,
        "whole_image_sec": project_image(store, config.hidden_for(classes)[0], dtype),
    }


def project_image(store: FeatureStore, width: int, dtype: torch.dtype) -> float:
    """Seconds for the first layer of all members on one whole image, and its gradient.

    The alternative to gathering pixels; cheaper once a step reads some thousands from one image.
    """
    seconds = 0.0
    for table in store.tables().values():
        x = table[0].to(dtype)
        weight = torch.randn(MEMBERS * width, x.shape[1]).to(dtype)
        for timed in (False, True):
            started = time.perf_counter()
            z = x @ weight.T
            z.T @ x
            seconds += timed * (time.perf_counter() - started)
    return seconds


def run_plain(classes: int) -> dict[str, float]:
    """Seconds of the plain implementation on all images, extrapolated from a part."""
    hidden = LabelerConfig().hidden_for(classes)
    features = plain.random_features(plain.lsun_spec(), PLAIN_IMAGES, 0)
    masks = random_masks(classes, PLAIN_IMAGES)
    upsample_sec = float("inf")
    for _ in range(2):  # the first one also allocates memory
        pixels = None
        started = time.perf_counter()
        pixels = plain.upsample(features, plain.LSUN_SIZE)
        upsample_sec = min(upsample_sec, (time.perf_counter() - started) / PLAIN_IMAGES)
    assert pixels is not None
    seconds = []
    plain.train(
        pixels,
        masks.flatten().long(),
        classes,
        hidden,
        seed=0,
        max_steps=WARM_STEPS + TIMED_STEPS,
        on_step=lambda *_: seconds.append(time.perf_counter()),
    )
    step = (seconds[-1] - seconds[WARM_STEPS - 1]) / (len(seconds) - WARM_STEPS)
    steps = least_steps(plain.BATCH_PIXELS)
    return {
        "sec": IMAGES * upsample_sec + MEMBERS * steps * step,
        "upsample_sec": upsample_sec,
        "step_sec": step,
        "steps": steps,
        "measured_steps": TIMED_STEPS,
        "peak_gib": memory_gib("VmHWM"),
        "vectors_gib": IMAGES * math.prod(plain.LSUN_SIZE) * pixels.shape[1] * 4 / GIB,
    }


def measure(classes: int, threads: int) -> dict[str, Any]:
    """Seconds and peak memory of training on 50 images, plain (extrapolated) and ours."""
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        for way in ("plain", "reference", "fast"):
            command = [sys.executable, "-m", "benchmarks.labeler_training", "--way", way]
            command += ["--folder", folder, "--classes", str(classes), "--threads", str(threads)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            runs[way] = json.loads(printed)
    ours, theirs = runs["fast"], runs["plain"]
    return {
        "plain_sec": theirs["sec"],
        "ours_sec": ours["sec"],
        "speedup": theirs["sec"] / ours["sec"],
        "plain_peak_gib": theirs["peak_gib"],  # with PLAIN_IMAGES images
        "plain_needed_gib": theirs["vectors_gib"],  # the vectors alone, of all images
        "ours_peak_gib": ours["peak_gib"],  # with the mapped features
        "ours_anonymous_gib": ours["anonymous_gib"],  # without them
        "reference_sec": runs["reference"]["sec"],
        "plain_measured": PLAIN_IMAGES / IMAGES,  # of the images; of the steps:
        "plain_measured_steps": theirs["measured_steps"] / (MEMBERS * theirs["steps"]),
        "ways": runs,
    }


def show(found: dict[str, Any], classes: int, threads: int) -> None:
    """Print the figures."""
    table = Table(title=f"training on {IMAGES} images, {classes} classes, {threads} threads")
    for column in ("", "seconds", "steps", "ms per step", "peak GiB"):
        table.add_column(column, justify="right" if column else "left")
    for way, run in found["ways"].items():
        figures = (f"{run['steps']:.0f}", f"{1e3 * run['step_sec']:.1f}", f"{run['peak_gib']:.2f}")
        table.add_row(way, f"{run['sec']:.0f}", *figures)
    Console().print(table)
    print(
        f"fast is {found['speedup']:.0f}x faster than plain, which is extrapolated from "
        f"{PLAIN_IMAGES} images and {TIMED_STEPS} steps of one member, and would keep "
        f"{found['plain_needed_gib']:.0f} GiB; of the peak of fast "
        f"{found['ours_anonymous_gib']:.2f} GiB are not mapped features"
    )
    fast = found["ways"]["fast"]
    print(
        f"the first layer on one whole image takes {fast['whole_image_sec']:.2f} s, a step of fast "
        f"on {TRAININGS['fast'].batch_pixels} pixels per member {fast['step_sec']:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=("plain", *TRAININGS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way:  # in its own process, see measure
        if options.way == "plain":
            run = run_plain(options.classes)
        else:
            run = run_ours(options.way, options.classes, options.folder)
        print(json.dumps(run))
        return
    found = measure(options.classes, options.threads)
    show(found, options.classes, options.threads)
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
