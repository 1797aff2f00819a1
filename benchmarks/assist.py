"""How soon a proposal follows a stroke on the labelling page: `python -m benchmarks.assist`.

Draws on the demo's images through the page's own parts, as its server does: 24 images are annotated
(all of their pixels, or strokes alone), then a stroke is saved, the ensemble learns, and the
proposal for the picture is computed. The features are those of the embedded generator. Takes a few
minutes, most of them for the features; prints a table and writes JSON with --json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from factory.annotation.page.assist import Assist
from factory.annotation.page.changes import Changes
from factory.annotation.page.folder import Box, Folder
from factory.demo.render import render, render_folder
from factory_core.images import IGNORE
from factory_core.machine import available_cpus

IMAGES, SIZE, STROKES = 24, 256, 7
DEMO = "package:factory.demo/generator"


def load() -> tuple:
    """The embedded generator, without a labeler."""
    from factory.annotation.samples import load_generator
    from factory.recipe import generator_recipe

    return load_generator("generator", generator_recipe(None, DEMO, []).generator, "cpu")[0], None


def started(place: Path, share: float) -> tuple[Folder, Assist]:
    """A folder in which `share` of the pixels of every image is drawn, and its ready assistant."""
    render_folder(place, range(IMAGES), SIZE)
    rng = np.random.default_rng(0)
    folder = Folder(place)
    for name in folder.names:
        drawing = folder.drawing(name)
        ids = np.where(rng.random(drawing.ids.shape) < share, drawing.ids, IGNORE)
        folder.change(name, drawing.revision, Box(0, 0, SIZE, SIZE), ids.astype(np.uint8))
    assist = Assist(folder, load, Changes())
    assist.start()
    wait(assist, lambda s: s["encoded"] == IMAGES and s["version"] and s["doing"] == "ready")
    return folder, assist


def wait(assist: Assist, ready: object) -> None:
    """Return once `ready(status)` holds."""
    while not ready(assist.status()):  # type: ignore[operator]
        assert assist.status()["failure"] is None, assist.status()
        time.sleep(0.002)


def stroke(folder: Folder, assist: Assist, number: int) -> dict[str, float]:
    """Seconds to save a stroke, to learn, to propose, and in all; those of a core; the result.

    `agreement` is the share of pixels whose proposed class is the exact one.
    """
    name = folder.names[number % IMAGES]
    _, exact = render(int(name), SIZE)
    box = Box(16 * (number % 8), 96, 64, 9)
    before, version = folder.drawing(name), assist.status()["version"]
    start, cpu_start = time.perf_counter(), time.process_time()
    ids = exact[box.y : box.y + box.height, box.x : box.x + box.width]
    folder.change(name, before.revision, box, ids)
    saved = time.perf_counter()
    assist.drawn()
    wait(assist, lambda status: status["version"] > version)
    learnt = time.perf_counter()
    found = assist.proposal(name)
    assert found is not None
    end = time.perf_counter()
    cpu = time.process_time() - cpu_start
    parts = {"save": saved - start, "learn": learnt - saved, "propose": end - learnt}
    return parts | {
        "all": end - start,
        "cpu": cpu,
        "agreement": float((found[1].ids == exact).mean()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="JSON file to write")
    options = parser.parse_args()
    results = {}
    place = tempfile.TemporaryDirectory()
    for drawn, share in {"strokes: 2 % of the pixels": 0.02, "every pixel": 1.0}.items():
        folder, assist = started(Path(place.name) / "demo", share)
        rounds = [stroke(folder, assist, number) for number in range(STROKES)]
        assist.stop()
        results[drawn] = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        results[drawn]["slowest"] = max(r["all"] for r in rounds)
    threads, cores = torch.get_num_threads(), available_cpus()
    print(f"{IMAGES} images of {SIZE}x{SIZE}, {threads} threads on {cores} cores; medians, s")
    print("| drawn on each image | save | learn | propose | all | slowest | CPU time | agreement |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for drawn, r in results.items():
        keys = ("save", "learn", "propose", "all", "slowest", "cpu", "agreement")
        print(f"| {drawn} | " + " | ".join(f"{r[key]:.3f}" for key in keys) + " |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
