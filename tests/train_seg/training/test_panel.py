"""The pixels of the sheets of predictions."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from train_seg.training.panel import IGNORED, draw_panel, predict
from train_seg.training.train import train

PALETTE = [(0, 0, 0), (255, 0, 0), (0, 0, 255)]


def colours(sheet: Image.Image, left: int, right: int, top: int, bottom: int) -> set[tuple]:
    pixels = np.asarray(sheet)[top:bottom, left:right].reshape(-1, 3)
    return {tuple(int(v) for v in p) for p in np.unique(pixels, axis=0)}


def test_columns_show_image_truth_and_prediction():
    images = torch.full((2, 3, 40, 50), 77, dtype=torch.uint8)
    masks = torch.ones(2, 40, 50, dtype=torch.uint8)
    masks[:, :20] = 255
    predictions = torch.full_like(masks, 2)
    sheet = draw_panel(images, masks, predictions, ["a", "red", "blue"], PALETTE, "step 1")
    width = (sheet.width - 4 * 6) // 3
    assert (width, width * 40 // 50) == (200, 160)  # enlarged four times
    lefts = [6 + column * (width + 6) for column in range(3)]
    top = 2 * 18 + 6
    found = [colours(sheet, left, left + width, top, top + 160) for left in lefts]
    assert found == [{(77, 77, 77)}, {(255, 0, 0), IGNORED}, {(0, 0, 255), IGNORED}]
    legend = colours(sheet, 0, sheet.width, top + 2 * 166, sheet.height)
    assert set(PALETTE) <= legend


def test_large_images_and_many_names_fit():
    image = torch.zeros(1, 3, 600, 900, dtype=torch.uint8)
    mask = torch.zeros(1, 600, 900, dtype=torch.uint8)
    names = [f"a rather long class name {i}" for i in range(30)]
    sheet = draw_panel(image, mask, mask, names, [(i, 0, 0) for i in range(30)], "step 1")
    assert sheet.width == 3 * 384 + 4 * 6
    assert sheet.height > 256 + 30 / 6 * 18


def test_predict_keeps_the_mode_of_the_network(tiny_segmenter):
    network = tiny_segmenter(["a", "b"]).network.train()
    masks = predict(network, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert masks.shape == (2, 32, 32)
    assert network.training


def test_each_round_writes_a_sheet(config, tmp_path, make_labeled):
    short = config.model_copy(update={"max_steps": 4, "validate_every": 2})
    for name, val in (("val", make_labeled(8)), ("train", None)):
        train([make_labeled(4)], tmp_path / name, short, val, device="cpu")
        sheets = sorted((tmp_path / name / "panels").iterdir())
        assert [s.name for s in sheets] == ["step-000002.png", "step-000004.png"]
        rows = 6 if val is not None else 4
        assert Image.open(sheets[0]).height >= rows * (128 + 6)
        assert (tmp_path / name / "curves.png").is_file()
