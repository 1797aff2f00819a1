"""Whose a job's folder is, told without models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factory.pipeline import run as generate
from factory.pipeline.job import Job, begin, describe, inspect
from factory.recipe.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.dataset import FileInfo, Manifest, Totals


@pytest.fixture
def recipe(tmp_path: Path) -> ResolvedRecipe:
    """Shards of 8 candidates."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "labeler.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
    (tmp_path / "tiny.yaml").write_text(
        f"name: tiny\ngenerator: {{weights: {weights}}}\n"
        f"labeler: {{weights: {weights}}}\ndataset: {{shard_size: 8}}\n"
    )
    return resolve(load_recipe(str(tmp_path / "tiny.yaml")))


def never(*_: Any) -> Any:
    raise AssertionError("models were loaded")


def plan(recipe: ResolvedRecipe, n: int, out: Path) -> Any:
    return generate.estimate(recipe, n, out, load=never)


def run(recipe: ResolvedRecipe, n: int, out: Path) -> Any:
    return generate.generate(recipe, n, out, load=never)


both = pytest.mark.parametrize("start", [plan, run])
Start = Callable[[ResolvedRecipe, int, Path], Any]


def refused(error: type[Exception], message: str, start: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message) as caught:
        start()
    assert "\n" not in str(caught.value)


@both
@pytest.mark.parametrize("n", [0, -1, 10**9 + 1, 10**14])
def test_n_out_of_range(recipe: ResolvedRecipe, tmp_path: Path, n: int, start: Start) -> None:
    refused(ValueError, f"--n {n}: expected", lambda: start(recipe, n, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_shards_are_counted_without_being_listed(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    assert [Job(recipe, n, tmp_path).shard_count for n in (1, 8, 9)] == [1, 1, 2]
    assert Job(recipe, 10**9, tmp_path).shard_count == 125_000_000
    assert len(Job(recipe, 17, tmp_path).shards) == 3


@both
def test_files_and_folders_of_others(recipe: ResolvedRecipe, tmp_path: Path, start: Start) -> None:
    file = tmp_path / "tiny.yaml"
    refused(NotADirectoryError, "found a file, expected", lambda: start(recipe, 9, file))
    inside = file / "x" / "y"
    refused(NotADirectoryError, r"found the file .*tiny\.yaml", lambda: start(recipe, 9, inside))
    refused(FileExistsError, "but tiny.yaml: give", lambda: start(recipe, 9, tmp_path))
    other = tmp_path / "other"
    (other / "candidates").mkdir(parents=True)
    (other / "candidates" / "smith.pdf").touch()
    refused(FileExistsError, r"but candidates/smith\.pdf", lambda: start(recipe, 9, other))


def test_what_desktops_leave_is_no_content(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".DS_Store", "Thumbs.db", ".hidden"):
        (out / name).touch()
    job = Job(recipe, 9, out)
    assert inspect(job, describe(job)) is None


def begun(recipe: ResolvedRecipe, out: Path, **changes: Any) -> Job:
    """A job with one finished shard, its job.json changed."""
    job = Job(recipe, 9, out)
    begin(job, {**describe(job), **changes})
    (job.candidates / "000000_stats.json").touch()
    return job


@both
def test_a_job_of_another_version(recipe: ResolvedRecipe, tmp_path: Path, start: Start) -> None:
    begun(recipe, tmp_path / "out", digest="0" * 64)
    message = "made by another version of the program: give another --out"
    refused(ValueError, message, lambda: start(recipe, 9, tmp_path / "out"))


def test_a_job_of_a_version_with_fewer_settings(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    job = begun(recipe, tmp_path / "out", digest="0" * 64)
    job_file = job.candidates / "job.json"
    older = json.loads(job_file.read_bytes())
    del older["recipe"]["dataset"]["uncertainty_maps"], older["recipe"]["labeler"]["uncertainty"]
    job_file.write_text(json.dumps(older))
    message = "made by another version of the program: give another --out"
    refused(ValueError, message, lambda: run(recipe, 9, tmp_path / "out"))


@both
def test_a_finished_dataset_that_is_damaged(
    recipe: ResolvedRecipe, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    rows = out / "samples.parquet"
    rows.write_bytes(b"rows")
    Manifest(
        name="tiny",
        recipe_digest="d",
        recipe={},
        weights=recipe.weights_sha256,
        source={"kind": "generator"},
        classes=["dark", "bright"],
        palette=[[0, 0, 0], [1, 1, 1]],
        image_size=(8, 8),
        image_format="png",
        shards=[],
        samples=FileInfo.of(rows, 9),
        totals=Totals(candidates=9, kept=0, dropped=9, bytes=0, class_pixels=[0, 0]),
        uncertainty_threshold=0.5,
    ).write(out)
    message = r"dataset\.json is damaged, its recipe is incomplete"
    refused(ValueError, message, lambda: start(recipe, 9, out))
