"""What all analyses share, shown on the smallest: files, resuming, dry runs, wrong inputs."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.analysis import labels
from factory.analysis.features import FeaturePool
from factory.analysis.names import HELP, find_analysis
from tests.factory.analysis.conftest import GRID, Analyse


def cell_times(out: Path) -> dict[str, int]:
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in out.glob("cells/*/*-*.json")}


def test_labels(analyse: Analyse, tmp_path: Path) -> None:
    """A table in three formats, a picture and a sentence; the subsets are nested."""
    result = analyse("labels", sizes="[4,2]")
    assert result.code == 0, result.err
    out = tmp_path / "out"
    content = json.loads((out / "labels.json").read_text())
    assert [row["labelled images"] for row in content["rows"]] == [4, 2]
    score = content["rows"][0]["mIoU"]
    assert score["mean"] == pytest.approx(sum(score["values"]) / 2)
    assert content["rows"][0]["minus all images"]["mean"] == 0
    with (out / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["mIoU"]) == score["mean"]
    assert float(rows[0]["mIoU std"]) == score["std"]
    assert content["sentence"] in result.out
    assert (out / "labels.md").read_text().startswith(content["sentence"])
    assert (out / "labels.png").read_bytes().startswith(b"\x89PNG")
    splits = json.loads((out / "splits.json").read_text())
    assert [split["seed"] for split in splits] == [0, 1]
    for split in splits:
        assert len(split["test"]) == 2
        assert sorted(split["train"] + split["test"]) == [f"{i:02d}" for i in range(6)]


def test_a_killed_run_resumes(
    analyse: Analyse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing finished is repeated, and the result is that of a run without interruption."""
    whole = analyse("labels", sizes="[4,2]")
    out = tmp_path / "out"
    expected = (out / "labels.json").read_text()
    shutil.rmtree(out)
    fit, compute, fits = labels.Study.fit, FeaturePool.compute, []

    def interrupted(self: labels.Study, *arguments: object) -> object:
        if len(fits) == 2:
            raise KeyboardInterrupt
        fits.append(arguments)
        return fit(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(labels.Study, "fit", interrupted)
        assert analyse("labels", sizes="[4,2]").code == 130
    before = cell_times(out)
    assert len(before) == 2
    written = []

    def counted(self: FeaturePool, *arguments: object) -> None:
        files = {p: p.stat().st_mtime_ns for p in out.glob("features/**/*.index")}
        compute(self, *arguments)  # type: ignore[arg-type]
        written.append(files == {p: p.stat().st_mtime_ns for p in files})

    monkeypatch.setattr(FeaturePool, "compute", counted)
    result = analyse("labels", sizes="[4,2]")
    assert result.code == 0, result.err
    assert written == [True]
    after = cell_times(out)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    assert (out / "labels.json").read_text() == expected
    assert whole.out == result.out
    assert analyse("labels", sizes="[4,2]").code == 0  # finished: computes nothing
    assert written == [True]
    assert cell_times(out) == after


def test_more_splits_keep_the_first(analyse: Analyse, tmp_path: Path) -> None:
    assert analyse("labels", "--splits", 1, sizes="[4,2]").code == 0
    content = json.loads((tmp_path / "out/labels.json").read_text())
    assert "neither confirmed nor refuted" in content["sentence"]  # one split has no deviation
    before = cell_times(tmp_path / "out")
    assert analyse("labels", "--splits", 2, sizes="[4,2]").code == 0
    after = cell_times(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert len(after) == 4


def test_a_dry_run_writes_nothing(analyse: Analyse, tmp_path: Path) -> None:
    result = analyse("labels", "--dry-run", sizes="[4,2]")
    assert result.code == 0, result.err
    assert "4 cells" in result.out
    assert "of features" in result.out
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_the_tables_are_written(
    analyse: Analyse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = analyse("labels", sizes="[4,2]")
    assert result.code == 0, result.err
    assert "pip install 'dataset-factory[plots]'" in result.out
    assert (tmp_path / "out/labels.md").is_file()
    assert not (tmp_path / "out/labels.png").exists()


def test_every_analysis_is_found() -> None:
    for name in HELP:
        assert find_analysis(name).name == name


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("table-9", {}, "unknown analysis 'table-9': expected one of blocks, "),
        ("labels", {"sizes": "[9,2]"}, "found sizes [9, 2], expected two or more from 1 to 4"),
        ("labels", {"sizes": "[4,0]"}, "found sizes [4, 0], expected two or more from 1 to 4"),
        ("blocks", {"timesteps": "[]"}, "'timesteps' is []: expected at least one value"),
        ("clusters", {"k": 65}, "'k' is 65: input should be less than or equal to 64"),
        ("labels", {"sizes": "[4]"}, "found sizes [4], expected two or more"),
        ("labels", {"size": 4}, "unknown key 'size': did you mean 'sizes'?"),
        ("labels", {"labeler.kind": "network"}, "labeler.kind is network, expected ensemble"),
        ("labels", {"test_images": 5}, "found 6 annotated images, expected at least 7"),
        ("blocks", {"blocks": "[1,4]"}, "found blocks [4], but this generator has blocks 0 to 3"),
        ("blocks", {"timesteps": "[1000]"}, "found timesteps [1000], but this generator has"),
    ],
)
def test_wrong_inputs(
    analyse: Analyse, tmp_path: Path, name: str, settings: dict, message: str
) -> None:
    result = analyse(name, **settings)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_inputs_is_refused(analyse: Analyse, tmp_path: Path) -> None:
    assert analyse("labels", sizes="[4,2]").code == 0
    other = analyse("labels", sizes="[4,2]", **{"labeler.members": 2})
    assert other.code == 1
    assert "other inputs (labeler.members)" in other.err
    noisy = analyse("labels", sizes="[4,2]", **{"generator.features.noise_seed": 1})
    assert noisy.code == 1
    assert "other inputs (generator.features.noise_seed)" in noisy.err
    blocks = analyse("labels", sizes="[4,2]", **{"generator.features.blocks": "[3]"})
    assert blocks.code == 1
    assert "other inputs (maps)" in blocks.err
    assert analyse("blocks", **GRID, **{"generator.features.blocks": "[3]"}).code == 0


def test_a_damaged_cell_is_named(analyse: Analyse, tmp_path: Path) -> None:
    assert analyse("labels", sizes="[4,2]").code == 0
    path = tmp_path / "out/cells/labels/4-0.json"
    path.write_text("{")
    result = analyse("labels", sizes="[4,2]")
    assert result.code == 1
    assert f"{path} is damaged" in result.err


def test_samples_of_a_gan(factory: Callable, gan: Path, tmp_path: Path) -> None:
    """Its own samples are annotated, so that nothing is searched for; the grid has one column."""
    from PIL import Image

    labeled = tmp_path / "labeled"
    assert factory("sample", "--generator", gan, "--n", 4, "--out", labeled).code == 0
    (labeled / "masks").mkdir()
    mask = Image.new("L", (16, 16))
    mask.paste(1, (4, 4, 12, 12))
    for path in (labeled / "images").iterdir():
        mask.save(labeled / "masks" / path.name)
    (labeled / "classes.json").write_text('{"classes": ["ground", "square"]}')
    given = ("--generator", gan, "--labeled", labeled, "--splits", 2)
    quick = ("--set", "labeler.training.steps=2", "--set", "labeler.training.batch_pixels=64")
    for name in ("blocks", "class-size", "clusters"):
        result = factory("analyse", name, *given, "--out", tmp_path / "out", *quick)
        assert result.code == 0, result.err
        assert "neither confirmed nor refuted" in result.out or name == "blocks"
    rows = json.loads((tmp_path / "out/blocks.json").read_text())["rows"]
    assert [row["map"] for row in rows] == ["b4.conv1", "b8.conv0", "b8.conv1", *LAST]
    refused = factory("analyse", "blocks", *given, "--out", tmp_path / "two", "--set", "blocks=[1]")
    assert "a generator that has neither" in refused.err
    chosen = factory(
        *("choose-features", *given, "--out", tmp_path / "out", *quick),
        *("--set", "final.training.steps=2", "--set", "final.members=1", "--set", "most=2"),
    )
    assert chosen.code == 0, chosen.err
    assert "layers" in (tmp_path / "out/recipe.yaml").read_text()


LAST = ("b16.conv0", "b16.conv1")
