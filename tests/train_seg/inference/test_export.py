"""Exported models: the same masks in a different runtime, and complete metadata."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from train_seg.inference import export as exporting
from train_seg.inference.export import export, pick_format
from train_seg.network.segmenter import Segmenter

CLASSES = ["ground", "rød", "blue"]
SIZES = [(1, 32, 40), (3, 32, 40), (2, 71, 50), (1, 9, 13)]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


@pytest.fixture(scope="module")
def segmenter(tiny_segmenter) -> Segmenter:
    return tiny_segmenter(CLASSES, (32, 40), input_scale=1.5)


@pytest.fixture(scope="module")
def onnx_file(segmenter, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    check = export(segmenter, path, "onnx")
    assert check.pixels > 1000
    assert check.differing == 0
    return path


def images(n: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_onnx_gives_the_same_masks_at_any_size(segmenter, onnx_file, size):
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    batch = images(*size)
    mask, logits = session.run(["mask", "logits"], {"images": batch.numpy()})
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, segmenter.predict(batch))
    assert mask.min() < mask.max()
    with torch.inference_mode():
        np.testing.assert_allclose(logits, segmenter.network(batch), atol=1e-4)


@pytest.mark.slow
def test_onnx_contains_classes_palette_and_normalisation(segmenter, onnx_file):
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == CLASSES
    assert json.loads(about["palette"]) == segmenter.palette
    assert json.loads(about["normalisation"])["mean"] == [0.485, 0.456, 0.406]
    assert json.loads(about["network_size"]) == [48, 64]
    assert "uint8 [N, 3, H, W], RGB" in about["input"]
    (inputs,) = session.get_inputs()
    assert (inputs.name, inputs.type) == ("images", "tensor(uint8)")
    assert inputs.shape == ["N", 3, "H", "W"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_the_small_u_net_exports(tiny_segmenter, tmp_path, format):
    settings = {"architecture": "UNetGN", "width": 8, "averaged": True}
    turning = {"quarter_turns": True}
    small = tiny_segmenter(CLASSES, (32, 32), augment=turning, **settings)
    check = export(small, tmp_path / "model", format)
    assert check.pixels > 1000
    assert exporting.metadata(small)["normalisation"]["mean"] == [0.5, 0.5, 0.5]


def test_torchscript_gives_the_same_masks_and_metadata(segmenter, tmp_path):
    check = export(segmenter, tmp_path / "model.pt", "torchscript", list(images(2, 20, 20)))
    assert (check.pixels, check.differing) == (2 * 20 * 20, 0)
    extra = {exporting.METADATA_NAME: ""}
    model = torch.jit.load(tmp_path / "model.pt", _extra_files=extra)
    about = json.loads(extra[exporting.METADATA_NAME])
    assert about == json.loads(json.dumps(exporting.metadata(segmenter)))
    assert about["classes"] == CLASSES
    for size in SIZES:
        batch = images(*size)
        mask, _ = model(batch)
        assert torch.equal(mask, segmenter.predict(batch))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["logits", "mask", "shape"])
def test_a_model_that_differs_is_not_written(segmenter, tmp_path, monkeypatch, fault):
    def wrong(data: bytes) -> exporting.Runtime:
        model = torch.jit.load(exporting.io.BytesIO(data))

        def run(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mask, logits = model(batch)
            if fault == "logits":
                return mask, logits * 1.01
            return (mask[:, 1:], logits) if fault == "shape" else (2 - mask, logits)

        return run

    monkeypatch.setattr(exporting, "_load_torchscript", wrong)
    with pytest.raises(ValueError, match="not written") as error:
        export(segmenter, tmp_path / "model.pt", "torchscript")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_determines_the_format():
    assert pick_format(Path("a.onnx"), None) == "onnx"
    assert pick_format(Path("a.PT"), None) == "torchscript"
    assert pick_format(Path("a.bin"), "onnx") == "onnx"
    with pytest.raises(ValueError, match=r"a.bin: expected a name ending in .onnx or .pt"):
        pick_format(Path("a.bin"), None)
    with pytest.raises(ValueError, match=r"a.pt is a name for torchscript, --format says onnx"):
        pick_format(Path("a.pt"), "onnx")


def test_the_error_without_packages_names_the_extra(segmenter, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'dataset-factory\[export\]'"):
        export(segmenter, tmp_path / "model.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []
