"""`train-labeler --folds`: splits, scores, resuming."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory.commands.train_labeler import folds
from factory.demo.render import render_folder
from factory.reports.calibration import Calibration
from factory_core.annotated.annotations import read_annotations
from labelers.labeler import Labeler

DEMO = "package:factory.demo/generator"
SETTINGS = ("--fast", "--set", "labeler.training.steps=40", "--set", "labeler.members=2")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "annotated"
    render_folder(folder, range(5), size=64)
    return folder


@pytest.fixture
def split(factory: Callable, annotated: Path, tmp_path: Path, monkeypatch) -> Callable:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, labeled: Path = annotated):
        command = ("train-labeler", "--generator", DEMO, "--labeled", labeled, "--out", "out")
        return factory(*command, *SETTINGS, *arguments)

    return run


def test_splits_are_random_and_depend_on_the_seed_only():
    first = folds.draw_test_sets(20, 5, 6, seed=0)
    assert first == folds.draw_test_sets(20, 5, 6, seed=0) != folds.draw_test_sets(20, 5, 6, seed=1)
    assert all(len(set(test)) == 6 and test == sorted(test) for test in first)
    assert len({tuple(test) for test in first}) == 5
    assert first[:3] == folds.draw_test_sets(20, 3, 6, seed=0)


def test_scores_of_the_test_images(split: Callable, annotated: Path) -> None:
    result = split("--folds", 2, "--test-images", 2, "--seed", 3, "--json", "scores.json")
    assert result.code == 0, result.err
    written = json.loads(Path("scores.json").read_text())
    assert written == json.loads(Path("out/folds.json").read_text())
    values = [part["miou"] for part in written["splits"]]
    assert written["summary"]["miou"] == {
        "mean": pytest.approx(statistics.mean(values)),
        "std": pytest.approx(statistics.stdev(values)),
    }
    assert f"{values[0]:.4f}" in result.out
    assert "mean over the classes present in the ground truth" in result.out
    assert {p.name for p in Path("out").iterdir()} == {"folds.json", "split_1", "split_2"}

    stems = read_annotations(annotated).stems
    for i, (part, test) in enumerate(
        zip(written["splits"], folds.draw_test_sets(5, 2, 2, 3), strict=True)
    ):
        assert part["test"] == [stems[t] for t in test]
        assert part["images"] == 2
        scores = Labeler.load(f"out/split_{i + 1}").info.scores
        assert scores["test_miou"] == part["miou"]
        calibration = Calibration.model_validate(part["calibration"])
        assert [image.name for image in calibration.images] == part["test"]
        assert calibration.error == pytest.approx(1 - part["pixel_accuracy"])


def test_a_report_shows_all_splits(split: Callable, factory: Callable) -> None:
    assert split("--folds", 2, "--test-images", 2).code == 0
    result = factory("report", "out")
    assert result.code == 0, result.err
    text = Path("out/report.html").read_text()
    assert "test images of 2 random splits" in text
    assert "±" in text
    assert "area under risk-coverage" in text
    refused = factory("report", "out", "--labeled", "x")
    assert "which was scored on its own splits" in refused.err

    found = json.loads(Path("out/folds.json").read_text())
    for part in found["splits"]:
        del part["calibration"]  # as earlier versions wrote it
    Path("out/folds.json").write_text(json.dumps(found))
    assert factory("report", "out").code == 0
    assert "area under" not in Path("out/report.html").read_text()


def test_test_images_do_not_affect_the_weights(split: Callable, annotated: Path) -> None:
    """Different masks on the test images give the same weights and different scores."""
    arguments = ("--folds", 2, "--test-images", 2)
    assert split(*arguments).code == 0
    before = json.loads(Path("out/folds.json").read_text())["splits"][0]
    weights = Path("out/split_1/labeler.safetensors").read_bytes()
    Path("out").rename("first")
    shutil.copytree(annotated, "other")
    for stem in before["test"]:
        mask = np.asarray(Image.open(f"other/masks/{stem}.png"))
        Image.fromarray(np.where(mask == 0, 2, mask).astype(np.uint8)).save(
            f"other/masks/{stem}.png"
        )
    assert split(*arguments, labeled=Path("other")).code == 0
    assert Path("out/split_1/labeler.safetensors").read_bytes() == weights
    after = json.loads(Path("out/folds.json").read_text())["splits"][0]
    assert after["test"] == before["test"]
    assert after["miou"] != before["miou"]


def test_resumes_with_the_interrupted_split(split: Callable, monkeypatch) -> None:
    arguments = ("--folds", 3, "--test-images", 2, "--seed", 1)
    train, trained = folds._split, []

    def until_second(prepared, store, test, folder, title):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(title)
        return train(prepared, store, test, folder, title)

    with monkeypatch.context() as patch:
        patch.setattr(folds, "_split", until_second)
        assert split(*arguments).code == 130
    assert (Path("out") / "features" / "features.index").is_file()
    assert "other settings (folds.test_images)" in split("--folds", 3, "--seed", 1).err

    def note(prepared, store, test, folder, title):
        trained.append(title)
        return train(prepared, store, test, folder, title)

    monkeypatch.setattr(folds, "_split", note)
    result = split(*arguments)
    assert result.code == 0, result.err
    assert trained == ["split 1", "split 2", "split 3"]
    assert not (Path("out") / "features").exists()
    assert split(*arguments).out.count("±") == result.out.count("±")
    assert len(trained) == 3


def test_too_many_test_images(split: Callable) -> None:
    result = split("--folds", 2, "--test-images", 5)
    assert "found 5 annotated images, expected more than the 5 to test on" in result.err
    assert not Path("out").exists()


def test_a_split_with_one_class_to_learn_ends_before_any_work(
    split: Callable, annotated: Path, tmp_path: Path
) -> None:
    rare = tmp_path / "rare"
    shutil.copytree(annotated, rare)
    for file in sorted((rare / "masks").iterdir())[1:]:  # the first has all other classes
        mask = np.zeros_like(np.asarray(Image.open(file)))
        Image.fromarray(mask).save(file)
    result = split("--folds", 5, "--test-images", 2, labeled=rare)
    assert "split 3 of 5, without the images to test on: the annotations hold 1" in result.err
    assert not Path("out").exists()
