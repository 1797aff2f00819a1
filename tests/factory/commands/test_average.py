"""`factory average` as a user runs it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.demo.render import CLASSES, render_folder
from factory_core.pictures import Pictures, remember


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, tiny_segmenter: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        tiny_segmenter(CLASSES, seed=seed).save(tmp_path / f"model_{seed}")
    monkeypatch.chdir(tmp_path)


def test_the_mean_is_used_like_any_segmenter(factory: Callable) -> None:
    render_folder(Path("annotated"), range(2), size=32)
    result = factory("average", "model_0", "model_1", "--out", "mean")
    assert result.code == 0, result.err
    assert "the mean of 2 segmenters in mean" in result.out
    for command in (
        ("predict", "--model", "mean", "--images", "annotated/images", "--out", "masks"),
        ("evaluate", "--model", "mean", "--labeled", "annotated"),
        ("report", "mean", "--out", "report.html"),
    ):
        result = factory(*command)
        assert result.code == 0, result.err
    assert "mean of DeepLabV3, DeepLabV3" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("models", "out", "words"),
    [
        (["model_0"], "mean", "found 1 segmenter, expected at least 2"),
        (["model_0", "./model_0"], "mean", "found the same segmenter twice"),
        (["model_0", "lost"], "mean", "lost holds no model.json"),
        (["model_0", "model_1"], "model_1", "model_1 holds a segmenter already"),
    ],
)
def test_mistakes_are_one_line(factory: Callable, models, out, words) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = factory("average", *models, "--out", out)
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1
    assert words in result.err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_members_must_read_pictures_alike(factory: Callable) -> None:
    remember(Path("model_1"), Pictures(range=(0, 4095)))
    result = factory("average", "model_0", "model_1", "--out", "mean")
    assert result.code == 1
    assert "model_1 and model_0 turn pictures into 8 bits differently" in result.err
    assert not Path("mean").exists()
