"""`factory evaluate` as a user runs it: models, splits, corruptions, and the files it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from factory.commands.evaluate import load_labeler
from factory.demo.render import CLASSES, render_folder

SIZE = 32


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_segmenter: Callable) -> Path:
    """Two models, two test folders, a model with different classes, and one for tiny images."""
    folder = tmp_path_factory.mktemp("scoring")
    for seed in (0, 1):
        tiny_segmenter(CLASSES, (SIZE, SIZE), seed).save(folder / f"model_{seed}")
        render_folder(folder / f"test_{seed}", range(10 * seed, 10 * seed + 4 + seed), size=SIZE)
    tiny_segmenter(["a", "b"]).save(folder / "other")
    tiny_segmenter(CLASSES, (16, 16)).save(folder / "small")
    return folder


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


BOTH = ("--model", "model_0", "--model", "model_1")


def evaluated(factory: Callable, *arguments: object) -> dict:
    result = factory("evaluate", *arguments, "--json", "scores.json")
    assert result.code == 0, result.err
    return json.loads(Path("scores.json").read_text())


def refused(result, *words: str) -> None:
    """One line on standard error with all of `words`, exit code 1."""
    assert result.code == 1, result
    assert len(result.err.strip().splitlines()) == 1, result.err
    for word in words:
        assert word in result.err


def test_several_models_are_averaged(factory: Callable) -> None:
    found = evaluated(factory, *BOTH, "--labeled", "test_0")
    single = [evaluated(factory, "--model", f"model_{i}", "--labeled", "test_0") for i in (0, 1)]
    assert found["miou"] == pytest.approx((single[0]["miou"] + single[1]["miou"]) / 2)
    assert [m["miou"] for m in found["models"]] == [s["miou"] for s in single]
    assert found["std_over_models"]["miou"] > 0
    assert single[0]["class_pixels"] == found["class_pixels"]


def test_fresh_noise_is_that_of_the_image_whatever_the_batch(monkeypatch) -> None:
    """As `label` numbers the images of a folder."""
    seen: list[int] = []

    def encode(images: torch.Tensor, rows: range) -> None:
        seen.extend(rows)

    def predict(images: torch.Tensor, *_: object) -> SimpleNamespace:
        return SimpleNamespace(mask=images[:, 0])

    def load(*_: object) -> tuple[SimpleNamespace, SimpleNamespace]:
        model = SimpleNamespace(encode=encode, batch_size=2, image_size=(SIZE, SIZE))
        return model, SimpleNamespace(predict=predict, check=lambda _: None, needs_features=True)

    monkeypatch.setattr("factory.pipeline.models.load_models", load)
    predictor = load_labeler("package:factory.demo/labeler", None, "cpu")
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, SIZE, SIZE)
    found = torch.cat([predictor.predict(images[:3]), predictor.predict(images[3:])])
    assert seen == list(range(7))
    assert torch.equal(found, images[:, 0])


def test_each_model_may_have_its_own_test_images(factory: Callable) -> None:
    found = evaluated(factory, *BOTH, "--labeled", "test_0", "--labeled", "test_1")
    single = [evaluated(factory, "--model", f"model_{i}", "--labeled", f"test_{i}") for i in (0, 1)]
    assert [m["miou"] for m in found["models"]] == [s["miou"] for s in single]
    assert [m["images"] for m in found["models"]] == [4, 5]


def test_splits_markdown_and_plots(factory: Callable) -> None:
    command = ("evaluate", "--model", "model_0", "--labeled", "test_1", "--splits", 5)
    result = factory(*command, "--markdown", "scores.md", "--plots", "plots/a")
    assert result.code == 0, result.err
    assert "mean ± std of 5 splits" in " ".join(result.out.split())
    assert "| nucleus |" in Path("scores.md").read_text()
    assert sorted(p.name for p in Path("plots/a").iterdir()) == ["confusion.png", "iou.png"]
    assert Image.open("plots/a/confusion.png").width > 200


def test_corruptions_of_two_models(factory: Callable) -> None:
    pair = ("--labeled", "test_0", "--corruptions", "contrast,jpeg_compression")
    found = evaluated(factory, *BOTH, *pair)["corruptions"]
    alone = evaluated(factory, "--model", "model_1", *pair)["corruptions"]
    assert list(found["miou"]) == ["contrast", "jpeg_compression"]
    assert len(found["miou"]["contrast"]) == 5
    assert found["models"][1] == alone["miou"]
    own = ("--labeled", "test_0", "--labeled", "test_1", "--corruptions", "contrast")
    assert evaluated(factory, *BOTH, *own)["corruptions"]["models"][0] == {
        "contrast": found["models"][0]["contrast"]
    }


def test_mistakes_are_one_line_before_any_work(factory: Callable) -> None:
    one = ("evaluate", "--model", "model_0", "--labeled", "test_0")
    refused(factory(*one, "--json", "lost/a.json"), "--json lost/a.json", "no folder lost")
    refused(factory(*one, "--markdown", "test_0"), "--markdown test_0", "found a folder")
    refused(factory(*one, "--plots", "model_0/model.json"), "--plots", "found a file")
    refused(factory(*one, "--corruptions", "fgo"), "did you mean 'fog'")
    refused(factory(*one, "--splits", 9), "found 4 images", "at least 9")
    refused(factory(*one, *BOTH, "--labeled", "test_1"), "found 3 models and 2 --labeled")
    refused(factory(*one, "--model", "other"), "other has the classes a, b", "model_0")
    assert not Path("plots/b").exists()


def test_images_too_small_to_corrupt(factory: Callable) -> None:
    command = ("evaluate", "--model", "small", "--labeled", "test_0", "--corruptions", "fog")
    refused(factory(*command), "at least 32 pixels", "found 16x16")
