"""The code of the documentation: run at a smaller scale, or checked by the programs it is for."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

from factory.cli import command_line
from factory.commands.train_deeplab.settings import mixture, segmenter_config
from factory.commands.train_generator import training_of
from factory.demo.render import CLASSES, render_folder
from factory.recipe import load_recipe
from factory.recipe.settings import build_settings
from factory.recipe.weights import find_weights
from tests.documents import ROOT, Block, blocks, commands, documents, values

BLOCKS = blocks()
PYTHON = [block for block in BLOCKS if block.language == "python"]
BASH = [block for block in BLOCKS if block.language == "bash"]
GUIDE, README, QUICK = "docs/your-own-images.md", "README.md", "docs/quick-start.md"
VERBS = typer.main.get_command(command_line()).commands  # type: ignore[attr-defined]
GROUPS = ("annotations",)  # verbs that have verbs
COMPARISON = "python -m benchmarks.factorized --out cells --data data"
# Blocks that no test runs, by document and first words, and why. Their `factory` commands are
# checked by the parser of the command line all the same.
NOT_RUN = {
    (README, "pip install"): "needs a fresh environment: .ci/run runs it",
    (README, "pytest"): "runs this test",
    ("docs/annotating.md", "pip install"): "serves a page: tests of factory/annotation/page do it",
    (QUICK, "pip install"): "the same as the README's",
    ("docs/analysis.md", "factory analyse blocks"): "takes minutes: tests run it small",
    ("docs/analysis.md", "factory analyse representations"): "takes minutes, likewise",
    ("docs/blocks-and-timesteps.md", "factory choose-features"): "takes minutes, likewise",
    ("docs/checkpoints.md", "factory sample --generator ema_0"): "needs a published checkpoint",
    ("docs/checkpoints.md", "factory sample --generator cd_"): "likewise",
    ("docs/checkpoints.md", "factory train-labeler --recipe celeba_19"): "needs the paper's data",
    ("docs/cluster.md", "aws ec2"): "needs a cloud",
    ("docs/factorized.md", "factory train-generator"): "tests of generators/factorized train",
    ("docs/factorized.md", "factory predict"): "tests of factory/commands run it",
    ("docs/factorized.md", "factory evaluate"): "tests of factory/commands run it",
    ("docs/factorized.md", "factory train-labeler --kind regions"): "tests of train_labeler do",
    ("docs/factorized.md", "factory train-labeler --kind clusters"): "tests of labelers run it",
    ("docs/factorized.md", f"{COMPARISON} --steps"): "takes hours",
    ("docs/factorized.md", f"{COMPARISON} --only"): "takes an hour",
    ("docs/factorized.md", "python -m benchmarks.factorized_figures"): "needs a trained generator",
    ("docs/factorized.md", "factory annotations import"): "needs the published data",
    ("docs/encoders.md", "factory train-labeler --encoder mae_ffhq.pth --lab"): "needs weights",
    ("docs/encoders.md", "factory train-labeler --encoder mae_ffhq.pth --enc"): "needs weights",
    ("docs/encoders.md", "factory generate"): "tests of train_labeler's encoders run it",
    ("docs/encoders.md", "factory sample"): "tests of train_labeler's encoders run it",
    ("docs/encoders.md", "factory train-generator --kind mae"): "trains an hour",
    ("docs/encoders.md", "factory train-generator --kind vdvae"): "likewise",
    ("docs/encoders.md", "factory train-generator --kind e4e"): "likewise",
    ("docs/gpu.md", "python -m benchmarks.on_gpu"): "tests of benchmarks run its parts",
    ("docs/cluster.md", "pip install 'ray[default]'"): "needs a cloud",
    ("docs/cluster.md", "#!/bin/bash"): "needs Slurm",
    ("docs/publishing.md", "factory card"): "tests of factory/publishing run both",
    ("docs/verdict.md", "factory compare"): "takes an hour: tests of factory/verdict run it small",
    ("docs/verdict.md", "factory rounds"): "takes an hour: tests of factory/verdict run it small",
    ("docs/which-recipe.md", "factory compare"): "takes up to an hour, as in docs/verdict.md",
    ("docs/results/analysis.md", "for name in"): "takes an hour, needs the images",
    ("docs/results/representations.md", "factory train-generator"): "takes hours, likewise",
    ("docs/results/demo.md", "for recipe in"): "takes an hour: its figures are in the document",
    ("docs/results/samplers.md", "factory train-generator"): "takes hours, needs the images",
    ("docs/results/worth-it.md", "python -m benchmarks"): "takes hours, likewise",
    ("docs/results/factorized.md", "python -m benchmarks"): "takes hours, likewise",
    ("docs/results/wbc.md", "factory train-generator"): "takes hours, needs the images",
}
OF_BENCHMARKS = {"--shards"}  # options that the text names without their program
# If an option is given twice, the last one counts.
SHORTER = {
    "render-demo": "--n 4",
    "train-generator": "--steps 2 --batch-size 2",
    "train-labeler": "--fast --set labeler.training.steps=10 --set labeler.members=2",
    "generate": "--n 10 --set generator.steps=1 --executor local",
    "sample": "--n 4",
    "train-deeplab": "--steps 2 --set batch_size=2",
}
IMAGES, LABELED = ("--images", "--real"), ("--labeled", "--val")


def run_shorter(factory: Callable, command: Sequence[str], *more: object) -> None:
    """Run a command with the settings of SHORTER; it must succeed and write its --out."""
    result = factory(*command, *SHORTER.get(command[0], "").split(), *more)
    assert result.code == 0, f"{shlex.join(command)}: {result.err}"
    for out in values(command, ("--out",)):
        assert Path(out).exists()


def block_of(document: str, begins: str) -> Block:
    """The one block of a document that begins with these words."""
    (found,) = (b for b in BLOCKS if b.document == document and b.text.startswith(begins))
    return found


# --- every block -----------------------------------------------------------------------------


def test_every_block_is_run_or_says_why_not() -> None:
    ran = {(b.document, b.text) for b in (*PYTHON, *walk_through(), *more_that_is_run())}
    for block in (*PYTHON, *BASH):
        reasons = [
            reason
            for (document, words), reason in NOT_RUN.items()
            if block.document == document and block.text.startswith(words)
        ]
        assert ((block.document, block.text) in ran) + len(reasons) == 1, str(block)
    assert len(NOT_RUN) == len(BASH) - len({*walk_through(), *more_that_is_run()})


@pytest.mark.parametrize("block", BASH, ids=str)
def test_commands_are_understood(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stubs").mkdir()
    found = commands(block.text, tmp_path / "stubs")
    assert len(found) >= len(re.findall(r"^ *factory ", block.text, re.MULTILINE))
    for command in found:
        understand(command)
    for module, options in re.findall(r"python -m benchmarks\.(\w+)(.*)", block.text):
        assert (ROOT / "benchmarks" / f"{module}.py").is_file()
        source = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
        assert all(f'"{option}"' in source for option in re.findall(r"--[\w-]+", options))


def understand(command: Sequence[str]) -> None:
    """Parse a command as the command line does, and its settings as its verb does."""
    verb, *arguments = command
    known = VERBS
    if verb in GROUPS:
        known, (verb, *arguments) = VERBS[verb].commands, arguments
    # Files that the reader has, and the variables of the shell, are not here.
    parsed = known[verb].make_context(verb, arguments).params
    settings = parsed.get("settings") or []
    if verb == "train-generator":
        given = {k: parsed[k] for k in ("image_size", "steps", "batch_size", "flips", "seed")}
        content = {key: value for key, value in given.items() if value is not None}
        build_settings(training_of(parsed["kind"])[0], content, settings, "training settings")
        if (parsed["init"] or "").startswith("package:"):
            find_weights("--init", parsed["init"])
    elif verb == "train-deeplab":
        given = {"max_steps": parsed["steps"], "encoder": parsed["encoder"], "seed": parsed["seed"]}
        segmenter_config([], parsed["recipe"], parsed["preset"], given, settings)
        if parsed["mix"] is not None:
            mixture(parsed["mix"])
    elif "recipe" in parsed:
        is_file = (parsed["recipe"] or "demo").endswith(".yaml")
        load_recipe("demo" if is_file else parsed["recipe"] or "demo", settings)


def test_commands_in_yaml_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entrypoints = []
    for block in BLOCKS:
        if block.language == "yaml":
            content = yaml.safe_load(block.text)
            entrypoints += [content["spec"]["entrypoint"]] if "spec" in content else []
    assert entrypoints
    for entrypoint in entrypoints:
        words = shlex.split(entrypoint.replace("s3://my-bucket/", ""))
        assert words[0] == "factory"
        understand(words[1:])


def test_options_in_the_text_exist() -> None:
    known = {
        verb: {
            option
            for c in (command, *getattr(command, "commands", {}).values())
            for p in c.params
            for option in (*p.opts, *p.secondary_opts)
        }
        for verb, command in VERBS.items()
    }
    every = set().union(*known.values()) | {"--help"}
    for path in documents():
        text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`([^`]+)`", text):
            words = span.split()
            is_command = words[0] == "factory" and words[1:2] and words[1] in known
            if not is_command and not words[0].startswith("--"):
                continue
            options = {word for word in words if re.fullmatch(r"--[a-z][\w-]*", word)}
            unknown = options - (known[words[1]] | {"--help"} if is_command else every)
            assert not unknown - OF_BENCHMARKS, f"{path.name}: `{span}`"


# --- Python ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smears(factory: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset of the README's second command."""
    folder = tmp_path_factory.mktemp("smears")
    (command,) = commands(block_of(README, "pip install").text, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_shorter(factory, command)
    return folder


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_reads_class_ids(
    block: Block, smears: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(smears)
    monkeypatch.setenv("HF_HOME", str(smears / "cache"))  # where `datasets` keeps its tables
    found: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), found)
    mask = found["mask"] if "mask" in found else found["sample"].mask
    assert (mask.shape, mask.dtype) == ((64, 64), np.uint8)
    assert 0 < mask.max() < len(CLASSES)
    if "image" in found:
        assert found["image"].dtype == np.uint8
        assert found["image"].shape in ((64, 64, 3), (3, 64, 64))  # of a tar, of `open_dataset`


def test_the_report_of_the_readme_s_dataset(
    factory: Callable, smears: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(smears)
    (smears / "stubs").mkdir()
    block = block_of("docs/reports.md", "factory report smears")
    (command,) = commands(block.text, smears / "stubs")
    run_shorter(factory, command)
    assert Path("smears/report.html").stat().st_size > 10_000


# --- shell -----------------------------------------------------------------------------------


def walk_through() -> list[Block]:
    """The blocks of the guide."""
    return [b for b in BASH if b.document == GUIDE]


def quick_start() -> list[Block]:
    """The blocks of the quick start after the installation, which makes the dataset too."""
    return [b for b in BASH if b.document == QUICK][1:]


def more_that_is_run() -> list[Block]:
    return [
        *quick_start(),
        *of_one_command(),
    ]


def of_one_command() -> list[Block]:
    return [
        block_of("docs/checkpoints.md", "factory sample --generator generator"),
        block_of("docs/checkpoints.md", "factory train-labeler --labeled"),
        block_of("docs/recipes.md", "factory generate --recipe my.yaml"),
        block_of("docs/annotation-formats.md", "factory annotations export"),
        block_of("docs/reports.md", "factory report smears"),
    ]


def test_the_quick_start_begins_as_the_readme_does() -> None:
    assert block_of(QUICK, "pip install").text == block_of(README, "pip install").text


def test_the_guide_names_the_classes_of_its_images() -> None:
    text = " ".join((ROOT / GUIDE).read_text().split())
    assert len(CLASSES) == 5
    assert f"The rendered images have **five** classes ({', '.join(CLASSES)})" in text


@pytest.mark.slow
def test_the_walk_through(
    factory: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stubs").mkdir()
    rendering, *others = walk_through()
    for command in commands(rendering.text, tmp_path / "stubs"):
        run_shorter(factory, command)
    assert "cp -r rendered/images photos" in rendering.text
    shutil.copytree("rendered/images", "photos")
    steps = []
    for number, block in enumerate(others):
        (tmp_path / str(number)).mkdir()
        steps += commands(block.text, tmp_path / str(number))
    verbs = ["train-generator", "train-labeler", "generate", "train-deeplab", "evaluate", "predict"]
    verbs += ["choose", "choose"]
    assert [command[0] for command in steps] == verbs
    for command in steps:
        run_shorter(factory, command)


@pytest.mark.slow
def test_the_quick_start(
    factory: Callable, smears: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(smears)
    for number, block in enumerate(quick_start()):
        (tmp_path / str(number)).mkdir()
        for command in commands(block.text, tmp_path / str(number)):
            run_shorter(factory, command)
    assert len(list(Path("segmented/overlays").iterdir())) == 4


@pytest.mark.slow
def test_annotating_samples(
    factory: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = find_weights("generator", "package:factory.demo/generator")
    shutil.copytree(source, "generator")
    for number, block in enumerate(of_one_command()[:2]):
        (tmp_path / str(number)).mkdir()
        (command,) = commands(block.text, tmp_path / str(number))
        if command[0] == "train-labeler":  # the masks that the reader draws in between
            Path("annotated/masks").mkdir()
            for path in Path("annotated/images").iterdir():
                red = np.asarray(Image.open(path))[..., 0]
                Image.fromarray((red < np.median(red)).astype(np.uint8)).save(
                    Path("annotated/masks", path.name)
                )
            names = json.dumps({"classes": ["light", "dark"]})
            Path("annotated/classes.json").write_text(names)
        run_shorter(factory, command)


def test_a_round_trip_of_annotations(
    factory: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stubs").mkdir()
    render_folder(tmp_path / "annotated", range(4))
    block = block_of("docs/annotation-formats.md", "factory annotations export")
    found = commands(block.text, tmp_path / "stubs")
    assert [command[1] for command in found] == ["export", "import", "check"]
    for command in found:
        run_shorter(factory, command)


@pytest.mark.slow
def test_a_recipe_of_ones_own(
    factory: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stubs").mkdir()
    shutil.copy(ROOT / "configs/demo.yaml", "my.yaml")
    (command,) = commands(of_one_command()[2].text, tmp_path / "stubs")
    run_shorter(factory, command)
