"""The public Python interface: its examples run, and importing it is quick."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import factory
from factory.demo.classes import CLASSES
from factory.demo.render import render_folder
from factory.recipe import Recipe, find_weights
from generators import base

HEAVY = ("torch", "numpy", "pydantic", "pandas", "pyarrow", "ray", "webdataset")


def test_importing_it_loads_nothing_heavy() -> None:
    program = f"import sys, factory; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_it_is_what_it_says() -> None:
    assert set(factory.__all__) <= set(dir(factory))
    for name in factory.__all__:
        assert getattr(factory, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Sampler'"):
        factory.Sampler  # noqa: B018


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, tiny_segmenter: Callable) -> Path:
    """A folder with what the examples name: photos, a dataset, a labeler, a segmenter."""
    folder = tmp_path_factory.mktemp("examples")
    render_folder(folder / "rendered", range(3), size=64)
    (folder / "photos").symlink_to(folder / "rendered" / "images")
    (folder / "labeler").symlink_to(find_weights("x", "package:factory.demo/labeler"))
    factory.generate(folder / "smears", 4, settings={"generator.steps": 1}, device="cpu")
    tiny_segmenter(CLASSES, (64, 64)).save(folder / "model")
    return folder


@pytest.mark.parametrize("name", factory.__all__)
def test_every_example_runs(name: str, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(examples)
    known = {name: getattr(factory, name) for name in factory.__all__} | {"torch": torch}
    (test,) = doctest.DocTestFinder(recurse=False).find(known[name], name, globs=known)
    assert len(test.examples) >= 2
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert results.failed == 0, "".join(report)


def test_a_generator_is_one(examples: Path) -> None:
    loaded = factory.Generator.load("package:factory.demo/generator", "cpu", batch_size=3)
    assert isinstance(loaded, base.Generator)
    assert loaded.batch_size == 3
    with pytest.raises(ValueError, match=r"generator\.stpes"):
        factory.Generator.load("package:factory.demo/generator", stpes=3)


def test_the_same_bytes_as_the_command_and_progress(
    tmp_path: Path, factory: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory import generate  # the fixture has the name of the package

    command = ("generate", "--n", 4, "--out", tmp_path / "a", "--set", "generator.steps=1")
    assert factory(*command, "--executor", "local").code == 0
    stages: list[str] = []
    recipe = Recipe.load(settings={"generator.steps": 1})
    made = generate(tmp_path / "b", 4, recipe, on_progress=lambda p: stages.append(p.stage))
    assert (tmp_path / "a/dataset.json").read_bytes() == (tmp_path / "b/dataset.json").read_bytes()
    assert stages[-1] == "commit"
    assert len(made) == 4
    with pytest.raises(ValueError, match="set them in it"):
        generate(tmp_path / "c", 4, recipe, settings={"generator.steps": 1})
