"""Figures 9 and 10: IoU by class and contender, and how often classes occur."""

from __future__ import annotations

import json

import numpy as np

from factory.analysis.classes import best_in, more_in_real
from factory.analysis.counting import Counts, count_classes
from tests.factory.verdict.conftest import write_annotated
from train_seg.evaluation.evaluate import Spread


def test_images_and_components_are_counted() -> None:
    masks = np.zeros((2, 4, 5), np.uint8)
    masks[0, 0, 0] = masks[0, 1, 1] = 1  # they share a corner
    masks[0, 3, 4] = 1
    masks[1] = 255
    counts = count_classes(masks, 3)
    assert counts == Counts(2, [1, 1, 0], [1, 2, 0])
    assert counts.per_image == [0.5, 1.0, 0.0]
    assert counts.shares == [50.0, 50.0, 0.0]


def test_the_best_contender_by_class() -> None:
    def scores(*means: float | None) -> list[Spread]:
        return [Spread(mean, None, []) for mean in means]

    iou = {"a": scores(0.5, 0.2, None, 0.4), "b": scores(0.4, 0.3, None, None)}
    assert best_in(iou) == (2, 3)  # a class that never occurs is not scored


def test_instances_are_compared_per_image() -> None:
    real, gan = Counts(4, [4, 2, 0], [8, 2, 0]), Counts(2, [2, 2, 0], [3, 2, 0])
    assert more_in_real({"real": real, "gan": gan}) == (1, 2)


def test_the_table(analyse, tiny_segmenter, tmp_path) -> None:
    gan = write_annotated(tmp_path / "gan", 3, first=50)
    tiny_segmenter(["ground", "square"]).save(tmp_path / "model")
    result = analyse("classes", "--synthetic-labeled", gan, "--model", tmp_path / "model")
    assert result.code == 0, result.err
    out = tmp_path / "out"
    found = json.loads((out / "classes.json").read_text())
    assert [row["class"] for row in found["rows"]] == ["ground", "square"]
    square = found["rows"][1]
    assert (square["images: real"], square["components: gan"]) == (6, 3)
    assert len(square["IoU: model"]["values"]) == 2
    assert "finds most classes better than other methods do" in found["sentence"]
    assert "real training images show more instances" in found["sentence"]
    assert "Sets: real 6 images, gan 3 images." in found["notes"]
    assert (out / "classes-iou.png").exists()
    assert (out / "classes-counts.png").exists()


def test_a_model_of_other_classes(analyse, tiny_segmenter, tmp_path) -> None:
    tiny_segmenter(["ground", "circle"]).save(tmp_path / "model")
    result = analyse("classes", "--model", tmp_path / "model")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "has the classes ground, circle, --labeled ground, square" in result.err


def test_nothing_to_compare_with(analyse, tmp_path) -> None:
    result = analyse("classes")
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert found["sentence"].startswith("There is nothing to compare with: labeler, ddpm finds")
