"""Labelling and training at the LSUN setting, against plain code for the published method.

    python -m benchmarks.labeler [--part predict|train|all] [--device cpu] [--json FILE]

Prediction labels one image of 256x256 from 8448 channels with ten members: the published way, and
ours, both in float32 and bfloat16. Each runs in its own process; figures are the best of REPEATS.
Memory is the peak beyond the features and the members. Training is measured by
`benchmarks.labeler_training`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import plain_labeler as plain
from factory.recipe.weights import find_weights
from factory_core.device import pick_dtype
from factory_core.storage import write_json
from generators.base import FeatureMaps
from labelers.config import LabelerConfig
from labelers.ensemble.classifiers import Ensemble
from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo

CLASSES = 21
MEMBERS = 10
WAYS = ("plain", "plain_bfloat16", "float32", "bfloat16")
REPEATS = 3
DEMO_INDICES = range(2_000_000, 2_000_032)  # renderings not used for training or scoring
GIB = 2**30

Label = Callable[[], tuple[Tensor, Tensor]]


class PeakMemory:
    """Peak bytes beyond those in use at creation: GPU memory, or RSS (Linux) on a CPU."""

    def __init__(self, device: str):
        self.cuda = device.startswith("cuda")
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # reset the peak
            self.before = self._status("VmRSS")

    def peak(self) -> int:
        now = torch.cuda.max_memory_allocated() if self.cuda else self._status("VmHWM")
        return now - self.before

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def label_by(way: str, device: str) -> Label:
    """A function that labels the image: mask and JS divergence `[H, W]`, on the CPU."""
    spec = plain.lsun_spec()
    features = plain.random_features(spec, images=1, seed=0).to(device)
    channels = sum(m.channels for m in spec)
    members = plain.random_members(channels, CLASSES, MEMBERS, seed=1)
    if way.startswith("plain"):
        dtype = torch.bfloat16 if way == "plain_bfloat16" else torch.float32
        for member in members:
            member.to(device, dtype)
        features = features.to(dtype)
        return lambda: plain.predict(members, features, plain.LSUN_SIZE)
    ensemble = Ensemble.from_reference(spec, [m.state_dict() for m in members]).to(device)
    info = LabelerInfo(
        classes=[f"class_{i}" for i in range(CLASSES)],
        features=spec,
        generator=GeneratorInfo(digest=""),
        image_size=plain.LSUN_SIZE,
        data_digest="",
        config=LabelerConfig(members=MEMBERS),
    )
    labeler = Labeler(ensemble, info, getattr(torch, way))

    def label() -> tuple[Tensor, Tensor]:
        made = labeler.predict(None, features)
        return made.mask[0], made.pixel_uncertainty[0]

    return label


def run_one(way: str, device: str, folder: Path) -> dict[str, float]:
    """Time `way` in this process and write its labels to `folder`."""
    label = label_by(way, device)
    memory = PeakMemory(device)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        mask, js = (t.cpu() for t in label())  # .cpu() waits for a GPU
        seconds.append(time.perf_counter() - started)
    peak = memory.peak()
    torch.save((mask.long(), js.float()), folder / f"{way}.pt")
    return {"sec": min(seconds), "first_sec": seconds[0], "peak_gib": peak / GIB}


def measure_prediction(threads: int, device: str) -> dict[str, Any]:
    """All ways, and how far their labels differ from the plain ones."""
    runs, labels = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.labeler", "--way", way, "--folder", folder]
            command += ["--threads", str(threads), "--device", device]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            runs[way] = json.loads(printed)
            labels[way] = torch.load(Path(folder) / f"{way}.pt")
    ours = str(pick_dtype("auto", torch.device(device))).removeprefix("torch.")
    mask, js = labels["plain"]
    # The strongest plain code on this machine: without hardware for bfloat16, that is float32.
    strong = min(("plain", "plain_bfloat16"), key=lambda way: runs[way]["sec"])
    return {
        "plain": strong,
        "plain_sec": runs[strong]["sec"],
        "ours_sec": runs[ours]["sec"],
        "speedup": runs[strong]["sec"] / runs[ours]["sec"],
        "speedup_over_float32": runs["plain"]["sec"] / runs[ours]["sec"],
        "plain_peak_gib": runs[strong]["peak_gib"],
        "ours_peak_gib": runs[ours]["peak_gib"],
        "ours": ours,  # `precision: auto` on this machine
        "ways": runs,
        "float32_other_labels": int((labels["float32"][0] != mask).sum()),
        "float32_js_error": float((labels["float32"][1] - js).abs().max()),
        "bfloat16_agreement": demo_agreement(device),
    }


def demo_agreement(device: str) -> float:
    """Share of pixels of unseen demo images that the demo's labeler labels equally in both formats.

    Needs trained members: random ones are undecided everywhere.
    """
    import generators
    from factory.demo.render import render
    from generators.ddpm.config import DDPMConfig

    weights = str(find_weights("generator.weights", "package:factory.demo/generator"))
    generator = generators.load(DDPMConfig(weights=weights), device)
    images = [torch.from_numpy(render(index)[0]).permute(2, 0, 1) for index in DEMO_INDICES]
    batches = torch.stack(images).split(8)
    features = FeatureMaps.concat([generator.encode(batch) for batch in batches])
    folder = find_weights("labeler.weights", "package:factory.demo/labeler")
    exact, half = (
        Labeler.load(folder, device, dtype).predict(None, features).mask
        for dtype in (torch.float32, torch.bfloat16)
    )
    return float((exact == half).float().mean())


def show(results: dict[str, dict[str, Any]], threads: int) -> None:
    """Print the figures."""
    table = Table(title=f"labelers at the LSUN setting, {threads} threads")
    for column in ("", "plain", "ours", "speedup", "plain peak", "ours peak"):
        table.add_column(column, justify="right" if column else "left")
    for part, found in results.items():
        table.add_row(
            part,
            *(f"{found[key]:.3g} s" for key in ("plain_sec", "ours_sec")),
            f"{found['speedup']:.1f}x",
            *(f"{found[key]:.2f} GiB" for key in ("plain_peak_gib", "ours_peak_gib")),
        )
    console = Console()
    console.print(table)
    if "predict" in results:
        found = results["predict"]
        exact = found["ways"]["float32"]
        console.print(
            f"plain is {found['plain']}, ours {found['ours']}; ours in float32 takes "
            f"{exact['sec']:.3g} s and {exact['peak_gib']:.2f} GiB, "
            f"{found['float32_other_labels']} labels differ from the plain ones and JS by "
            f"{found['float32_js_error']:.1g} at most; bfloat16 agrees on "
            f"{found['bfloat16_agreement']:.3%} of the demo's pixels"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("predict", "train", "all"), default="all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="of prediction")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way:  # in its own process, see measure_prediction
        print(json.dumps(run_one(options.way, options.device, options.folder)))
        return
    results: dict[str, dict[str, Any]] = {}
    if options.part != "train":
        results["predict"] = measure_prediction(options.threads, options.device)
    if options.part != "predict":
        from benchmarks.labeler_training import measure

        results["train"] = measure(CLASSES, options.threads)
    show(results, options.threads)
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
