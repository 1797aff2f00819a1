"""Whether a folder belongs to a job is decided without loading models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factory.pipeline.estimate import estimate
from factory.pipeline.executors import LocalExecutor
from factory.pipeline.job import Job
from factory.pipeline.ownership import begin, inspect
from factory.pipeline.run import run
from factory.recipe import ResolvedRecipe, load_recipe, resolve
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
    return estimate(Job.sampling(recipe, n, out, load=never), LocalExecutor())


def make(recipe: ResolvedRecipe, n: int, out: Path) -> Any:
    return run(Job.sampling(recipe, n, out, load=never))


both = pytest.mark.parametrize("start", [plan, make])
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
    assert [Job.sampling(recipe, n, tmp_path).shard_count for n in (1, 8, 9)] == [1, 1, 2]
    assert Job.sampling(recipe, 10**9, tmp_path).shard_count == 125_000_000
    assert len(Job.sampling(recipe, 17, tmp_path).shards) == 3


@both
def test_files_and_other_folders(recipe: ResolvedRecipe, tmp_path: Path, start: Start) -> None:
    file = tmp_path / "tiny.yaml"
    refused(NotADirectoryError, "found a file, expected", lambda: start(recipe, 9, file))
    inside = file / "x" / "y"
    refused(NotADirectoryError, r"found the file .*tiny\.yaml", lambda: start(recipe, 9, inside))
    refused(FileExistsError, "but tiny.yaml: give", lambda: start(recipe, 9, tmp_path))
    other = tmp_path / "other"
    (other / "candidates").mkdir(parents=True)
    (other / "candidates" / "smith.pdf").touch()
    refused(FileExistsError, r"but candidates/smith\.pdf", lambda: start(recipe, 9, other))


def test_files_left_by_desktops_do_not_count(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".DS_Store", "Thumbs.db", ".hidden"):
        (out / name).touch()
    assert inspect(Job.sampling(recipe, 9, out)) is None


def begun(recipe: ResolvedRecipe, out: Path, **changes: Any) -> Job:
    """A job with one finished shard, its job.json changed."""
    job = Job.sampling(recipe, 9, out)
    begin(job)
    job.candidates.write_json("job.json", {**job.identity.to_json(), **changes})
    job.candidates.write("000000_stats.json", b"")
    return job


@both
def test_a_job_of_another_version(recipe: ResolvedRecipe, tmp_path: Path, start: Start) -> None:
    begun(recipe, tmp_path / "out", digest="0" * 64)
    message = "made by a different version of the program: give another --out"
    refused(ValueError, message, lambda: start(recipe, 9, tmp_path / "out"))


def test_a_job_of_a_version_with_fewer_settings(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    job = begun(recipe, tmp_path / "out", digest="0" * 64)
    older = json.loads(job.candidates.read("job.json"))
    del older["recipe"]["dataset"]["uncertainty_maps"], older["recipe"]["labeler"]["uncertainty"]
    job.candidates.write_json("job.json", older)
    message = "made by a different version of the program: give another --out"
    refused(ValueError, message, lambda: make(recipe, 9, tmp_path / "out"))


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
    message = r"dataset\.json is damaged, the recipe is incomplete"
    refused(ValueError, message, lambda: start(recipe, 9, out))
