"""`factory export` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from factory.demo.render import CLASSES, render_folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_segmenter: Callable) -> Path:
    """An untrained segmenter, and a folder of photographs."""
    folder = tmp_path_factory.mktemp("exporting")
    tiny_segmenter(CLASSES).save(folder / "model")
    render_folder(folder / "day", range(3), size=48)
    return folder


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def refused(result, *words: str) -> None:
    """One line on standard error with all of `words`, exit code 1."""
    assert result.code == 1, result
    assert len(result.err.strip().splitlines()) == 1, result.err
    for word in words:
        assert word in result.err


@pytest.mark.slow
def test_other_runtimes_read_the_file(factory: Callable) -> None:
    result = factory("export", "--model", "model", "--out", "m.onnx", "--images", "day/images")
    assert result.code == 0, result.err
    assert "the same masks on 3 images" in result.out
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    photo = np.asarray(Image.open("day/images/000000.png"))
    (mask,) = session.run(["mask"], {"images": photo.transpose(2, 0, 1)[None]})
    command = ("predict", "--model", "model", "--images", "day/images", "--out", "predicted")
    assert factory(*command).code == 0
    assert np.array_equal(mask[0], np.asarray(Image.open("predicted/masks/000000.png")))


@pytest.mark.slow
def test_without_images_noise_is_compared(factory: Callable) -> None:
    result = factory("export", "--model", "model", "--out", "m.pt")
    assert "torchscript in m.pt" in result.out
    assert "noise" in result.out


def test_mistakes_are_one_line(factory: Callable) -> None:
    refused(factory("export", "--model", "model", "--out", "m.bin"), "m.bin", ".onnx or .pt")
    refused(factory("export", "--model", "lost", "--out", "n.pt"), "lost", "train-deeplab")
    refused(factory("export", "--model", "model", "--out", "lost/n.pt"), "no folder lost")
    refused(factory("export", "--model", "model", "--out", "day"), "found a folder")
    assert not Path("n.pt").exists()
