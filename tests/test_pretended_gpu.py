"""Every command that computes runs on a GPU, as far as a pretended one can show (see
`tests.pretended.device`): no tensor is left on another device."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tests.cases.checkpoints import guided_diffusion
from tests.cases.checkpoints.case import Bench
from tests.pretended import NAME

SERVERS = {"annotate"}  # serve a page until they are stopped; not run here
ROOT = Path(__file__).parents[1]
LINES = """
train-generator --images photos --out generator --set image_size=32 --set channels=[16,32]
    --steps 2 --batch-size 2 --flips --quarter-turns --set precision=bfloat16
train-generator --kind stylegan2 --images photos --out gan --set image_size=16 --steps 2
    --batch-size 4 --set channel_base=256 --set channel_max=32 --set latent_dim=16
    --set mapping_layers=2 --set r1_every=2 --set path_every=2
train-generator --kind factorized --images photos --out regions --set image_size=32
    --set channels=[16,32] --steps 2 --batch-size 2
train-generator --kind mae --images photos --out mae --set image_size=64 --set width=16
    --set depth=2 --set heads=2 --set decoder_width=8 --set decoder_heads=2 --steps 2
    --batch-size 2 --set precision=bfloat16
train-labeler --encoder mae --encoder pixels --labeled annotated --out of-mae --fast
    --set labeler.members=2 --set labeler.training.steps=5
generate --generator package:factory.demo/generator --labeler of-mae --n 2 --out paired
    --executor local --set generator.steps=2
sample --generator regions --n 2 --out sampled-regions --set generator.steps=2
predict --generator regions --images photos --out segmented-regions
evaluate --generator regions --labeled annotated
train-labeler --kind clusters --generator regions --labeled annotated --out clusters
evaluate --labeler clusters --labeled annotated
choose --images photos --generator generator --n 2 --out chosen
sample --recipe demo --n 3 --out sampled --set generator.steps=2 --set generator.batch_size=2
sample --generator checkpoint.pt --n 2 --out sampled-edm --set generator.channels_per_head=16
    --set generator.parametrisation=edm --set generator.steps=2
sample --generator checkpoint.pt --n 2 --out two-steps --set generator.channels_per_head=16
    --set generator.parametrisation=consistency
train-labeler --recipe demo --labeled annotated --out labeler --fast --set labeler.members=2
    --set labeler.training.steps=20
train-labeler --recipe demo --labeled annotated --out network --kind network
    --set labeler.network.steps=2 --set labeler.network.members=1
generate --n 5 --out data --executor local --set generator.steps=2 --set generator.batch_size=2
    --set generator.precision=bfloat16 --set labeler.precision=bfloat16
    --set dataset.uncertainty_maps=true
generate --recipe demo-stylegan2 --n 3 --out gan-data --executor local
    --set generator.batch_size=2
generate --n 3 --out nothing --dry-run --executor local --set generator.steps=2
label --images photos --labeler labeler --out labelled --executor local
train-deeplab --data data --then annotated --val annotated --out model --encoder resnet18
    --steps 2 --set batch_size=2 --set then.max_steps=2 --set ema=0.9 --set dice=1
    --set precision=bfloat16
evaluate --model model --labeled annotated
evaluate --labeler labeler --labeled annotated
predict --model model --images photos --out segmented --tile 32
report data --real photos
report model --labeled annotated
report labeler --labeled annotated
compare --labeled annotated --out verdict --budget none --contender unet
    --contender blind-place --contender blind-shuffled --set folds=2 --set seeds=1
    --set label_steps=2 --set batch_size=2 --set curve=false
analyse labels --generator generator --labeled annotated --out analysis --splits 1
    --set labeler.members=2 --set labeler.training.steps=2
analyse corruptions --generator generator --labeled annotated --out analysis --splits 1
    --set test_images=1 --set labeler.members=2 --set labeler.training.steps=2
analyse noise --generator generator --labeled annotated --out analysis --splits 1
    --set test_images=1 --set labeler.members=2 --set labeler.training.steps=2 --set draws=1
analyse saturation --generator generator --labeled annotated --out saturation --splits 1
    --set test_images=1 --set labeler.members=2 --set labeler.training.steps=2 --set sizes=[2,3]
    --set segmenter.architecture=UNetGN --set segmenter.width=8 --set segmenter.max_steps=1
    --set segmenter.batch_size=2 --set generator.steps=2
analyse clusters --generator generator --labeled annotated --out analysis --splits 1
    --set blocks=[0,1] --set timesteps=[0,500] --set images=1
choose-features --generator generator --labeled annotated --out analysis --splits 1
    --set blocks=[0,1] --set timesteps=[0,500] --set labeler.training.steps=2 --set candidates=1
    --set most=3 --set final.training.steps=2 --set final.members=2
rounds --labeled annotated --images photos --generator generator --out rounds --rounds 1
    --set folds=2 --set seeds=1 --set label_steps=2 --set pretrain_steps=2 --set finish_steps=1
    --set batch_size=2 --set labeler.members=2 --set labeler.training.steps=5
    --set labeler.network.steps=2
"""


def command_lines() -> list[list[str]]:
    """The lines above; an indented one continues the one before."""
    return [shlex.split(line) for line in LINES.replace("\n   ", " ").strip().splitlines()]


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
