"""Tiny annotated images of bright squares, photographs of the same kind, a tiny generator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SIDE_PX = 16


def draw(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 `[16, 16, 3]` of a bright square on dark noise, and its mask."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 60, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    top, left = rng.integers(0, SIDE_PX - 6, 2)
    image[top : top + 6, left : left + 6] = 220
    mask[top : top + 6, left : left + 6] = 1
    return image, mask


def write_annotated(folder: Path, count: int, shift: int = 0, first: int = 0) -> Path:
    """An annotated folder; image i gets the mask of image i + `shift`."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        Image.fromarray(draw(first + i)[0]).save(folder / "images" / f"{i:02d}.png")
        mask = draw(first + (i + shift) % count)[1]
        Image.fromarray(mask).save(folder / "masks" / f"{i:02d}.png")
    (folder / "classes.json").write_text(json.dumps({"classes": ["ground", "square"]}))
    return folder


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_annotated(tmp_path_factory.mktemp("verdict") / "annotated", 6)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two are annotated images, too."""
    folder = tmp_path_factory.mktemp("verdict") / "photographs"
    folder.mkdir()
    for i in (0, 1, *range(100, 108)):
        Image.fromarray(draw(i)[0]).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained diffusion model of 16x16 pixels."""
    from diffusers import DDPMPipeline

    from generators.ddpm.model import build_unet
    from generators.ddpm.training import noise_schedule

    torch.manual_seed(0)
    unet = build_unet(SIDE_PX, (8, 16), resnets_per_level=1, attention_levels=1)
    folder = tmp_path_factory.mktemp("verdict") / "generator"
    DDPMPipeline(unet, noise_schedule("v_prediction")).save_pretrained(folder)
    return folder
