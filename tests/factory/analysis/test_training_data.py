"""Table 3: real images, annotated samples, and samples that nobody annotated."""

from __future__ import annotations

import json

from factory.analysis.training_data import NO_SAMPLES, subset
from tests.factory.verdict.conftest import write_annotated


def test_subsets_are_drawn_by_seed() -> None:
    assert subset(10, 4, 0) == subset(10, 4, 0) != subset(10, 4, 1)
    assert subset(3, 3, 5) == [0, 1, 2]


def test_annotated_samples(analyse, tmp_path) -> None:
    gan = write_annotated(tmp_path / "gan", 3, first=50)
    wrong = write_annotated(tmp_path / "ddpm", 5, shift=1, first=70)
    options = ("--synthetic-labeled", f"gan={gan}", "--synthetic-labeled", wrong)
    result = analyse("training-data", *options)
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "out" / "training-data.json").read_text())
    assert [row["training data"] for row in found["rows"]] == ["real images", "gan", "ddpm"]
    assert "All labelers were trained on 3 images" in found["rule"]
    assert found["notes"] == []


def test_without_annotated_samples_it_says_who_labelled_them(analyse, tmp_path) -> None:
    result = analyse("training-data")
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "out" / "training-data.json").read_text())
    assert found["rows"][1]["training data"] == "samples, labelled by a labeler"
    assert found["notes"] == [NO_SAMPLES]


def test_a_wrong_folder_stops_before_any_work(analyse, tmp_path) -> None:
    result = analyse("training-data", "--synthetic-labeled", tmp_path / "none")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "none" in result.err
    assert not (tmp_path / "out").exists()
