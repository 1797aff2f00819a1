"""Every command that computes runs on a GPU, as far as a pretended one can show (see
`tests.pretended.device`): no tensor is left on another device."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from benchmarks import gpu_commands
from tests.cases.checkpoints import guided_diffusion
from tests.cases.checkpoints.case import Bench
from tests.pretended import NAME

SERVERS = {"annotate"}  # serve a page until they are stopped; not run here
ROOT = Path(__file__).parents[1]
FILES = """
sample --generator checkpoint.pt --n 2 --out sampled-edm --set generator.channels_per_head=16
    --set generator.parametrisation=edm --set generator.steps=2
sample --generator checkpoint.pt --n 2 --out two-steps --set generator.channels_per_head=16
    --set generator.parametrisation=consistency
"""  # networks of openai/consistency_models


def command_lines() -> list[list[str]]:
    """All commands on a device, and those on published files."""
    return [*gpu_commands.command_lines(), *gpu_commands.command_lines(FILES)]


def run(module: str, folder: Path, *arguments: str, input: str = "") -> str:
    """What a program prints that runs in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        input=input,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The error of each line, "" if there was none."""
    from factory.demo.render import render_folder

    folder = tmp_path_factory.mktemp("pretended")
    render_folder(folder / "annotated", range(4), size=64)
    (folder / "photos").symlink_to(folder / "annotated" / "images")
    guided_diffusion.saved(guided_diffusion.wide, Bench(folder, pickle.dumps))
    lines = [[*line, "--device", NAME] for line in command_lines()]
    results = json.loads(run("tests.pretended.program", folder, input=json.dumps(lines)))
    return {" ".join(line): f for line, f in zip(command_lines(), results, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("line", [" ".join(line) for line in command_lines()])
def test_a_command_runs_on_the_device(errors: dict[str, str], line: str) -> None:
    assert errors[line] == ""


def test_every_command_with_a_device_is_covered() -> None:
    from factory.cli import command_line

    with_device = {
        name
        for name, command in get_command(command_line()).commands.items()  # type: ignore[attr-defined]
        if any(parameter.name == "device" for parameter in command.params)
    }
    assert {line[0] for line in command_lines()} >= with_device - SERVERS


# --- waiting for the device ------------------------------------------------------------------


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """Where each step of each training waits; the first entry is what precedes the first step."""
    return json.loads(run("tests.pretended.waits", tmp_path_factory.mktemp("waits"), "."))


@pytest.mark.slow
@pytest.mark.parametrize("training", ["ddpm", "stylegan2", "segmenter"])
def test_training_looks_at_the_device_every_tenth_step(
    waits: dict[str, list[list[str]]], training: str
) -> None:
    """Otherwise the host cannot prepare a step while the GPU computes the one before."""
    steps = waits[training][1:]
    assert len(steps) == 25
    # Step 0 allocates and logs, 9 and 19 log, 10 and 20 read p, 24 is the last.
    quiet = [number for number in range(25) if number % 10 not in (0, 9) and number != 24]
    assert {number: steps[number] for number in quiet if steps[number]} == {}
    assert any(steps[number] for number in (9, 19))
