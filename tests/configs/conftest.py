"""Small inputs for the recipes: a checkpoint in the published format, and annotated images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

WIDTH, LEVELS, RESNETS, SIZE = 32, 6, 2, 32
# Of the scene parsing release's objectInfo150.txt: the categories that are common in bedrooms.
ADE_CATEGORIES = {
    1: "wall",
    4: "floor, flooring",
    6: "ceiling",
    8: "bed ",
    9: "windowpane, window ",
    11: "cabinet",
    15: "door, double door",
    16: "table",
    18: "plant, flora, plant life",
    19: "curtain, drape, drapery, mantle, pall",
    20: "chair",
    23: "painting, picture",
    25: "shelf",
    28: "mirror",
    29: "rug, carpet, carpeting",
    31: "armchair",
    36: "wardrobe, closet, press",
    37: "lamp",
    40: "cushion",
    42: "box",
    45: "chest of drawers, chest, bureau, dresser",
    58: "pillow",
    67: "flower",
    68: "book",
    83: "light, light source",
    90: "television, television receiver, television set, tv, tv set, idiot box, boob tube, telly",
    135: "sconce",
    136: "vase",
    140: "fan",
    149: "clock",
}


def guided_diffusion_state() -> dict[str, torch.Tensor]:
    """Random weights of a network like LSUN's, with 18 decoder blocks, under the file's names."""
    rng = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def layer(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(*shape, generator=rng) * 0.05
        state[f"{name}.bias"] = torch.zeros(shape[0])

    def resnet(name: str, channels: int = WIDTH) -> None:
        layer(f"{name}.in_layers.0", channels)
        layer(f"{name}.in_layers.2", WIDTH, channels, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * WIDTH, 4 * WIDTH)
        layer(f"{name}.out_layers.0", WIDTH)
        layer(f"{name}.out_layers.3", WIDTH, WIDTH, 3, 3)
        if channels != WIDTH:
            layer(f"{name}.skip_connection", WIDTH, channels, 1, 1)

    def attention(name: str) -> None:
        layer(f"{name}.norm", WIDTH)
        layer(f"{name}.qkv", 3 * WIDTH, WIDTH, 1)
        layer(f"{name}.proj_out", WIDTH, WIDTH, 1)

    layer("time_embed.0", 4 * WIDTH, WIDTH)
    layer("time_embed.2", 4 * WIDTH, 4 * WIDTH)
    layer("input_blocks.0.0", WIDTH, 3, 3, 3)
    for block in range(1, LEVELS * (RESNETS + 1)):  # every third of them goes down a level
        resnet(f"input_blocks.{block}.0")
    for part, build in enumerate((resnet, attention, resnet)):
        build(f"middle_block.{part}")
    for block in range(LEVELS * (RESNETS + 1)):
        resnet(f"output_blocks.{block}.0", 2 * WIDTH)
        if block % (RESNETS + 1) == RESNETS and block < (LEVELS - 1) * (RESNETS + 1):
            resnet(f"output_blocks.{block}.1")  # goes up a level
    layer("out.0", WIDTH)
    layer("out.2", 6, WIDTH, 3, 3)
    return state


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guided-diffusion file: to be read with image_size and channels_per_head 32."""
    path = tmp_path_factory.mktemp("checkpoints") / "random.pt"
    torch.save(guided_diffusion_state(), path)
    return path


def _image(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)


def _ids(index: int, classes: int) -> np.ndarray:
    """Ids uint8 `[SIZE, SIZE]`: one strip per class."""
    strips = np.arange(SIZE * SIZE) * classes // (SIZE * SIZE)
    return np.roll(strips, 64 * index).reshape(SIZE, SIZE).astype(np.uint8)


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _side_by_side(folder: Path, classes: Sequence[str]) -> None:
    for i in range(3):
        _write(folder / f"{i}.png", _image(i))
        np.save(folder / f"{i}.npy", _ids(i, len(classes)))


def _celebamask_hq(folder: Path, classes: Sequence[str]) -> None:
    for i in range(3):
        _write(folder / "CelebA-HQ-img" / f"{i}.jpg", _image(i).repeat(2, 0).repeat(2, 1))
        for part, name in enumerate(classes):
            if name != "background":
                inside = (_ids(i, len(classes)) == part).astype(np.uint8) * 255
                _write(folder / f"CelebAMask-HQ-mask-anno/0/{i:05d}_{name}.png", inside)


def _ade20k(folder: Path, classes: Sequence[str]) -> None:
    ids_in_use = np.array([*ADE_CATEGORIES, 2], np.uint8)  # 2: building, in no recipe
    for i in range(4):
        stem = f"training/ADE_train_{i:08d}"
        _write(folder / "images" / f"{stem}.jpg", _image(i))
        ids = ids_in_use[_ids(i, len(ids_in_use))]
        _write(folder / "annotations" / f"{stem}.png", ids)
    names = (ADE_CATEGORIES.get(i, f"other {i}, category") for i in range(1, 151))
    lines = (f"{i}\t0.1\t10\t1\t{name}" for i, name in enumerate(names, 1))
    (folder / "objectInfo150.txt").write_text("\n".join(("Idx\tRatio\tTrain\tVal\tName", *lines)))
    scenes = enumerate(("bedroom", "street", "bedroom", "bedroom"))
    text = "".join(f"ADE_train_{i:08d} {scene}\n" for i, scene in scenes)
    (folder / "sceneCategories.txt").write_text(text)


@pytest.fixture
def annotate(tmp_path: Path) -> Callable[[str, Sequence[str]], str]:
    """Three annotated images for a recipe and its classes, in the layout of its dataset."""

    def write(recipe: str, classes: Sequence[str]) -> str:
        if recipe == "celeba_19":
            _celebamask_hq(tmp_path / "CelebAMask-HQ", classes)
            return "CelebAMask-HQ"
        if recipe == "ade_bedroom_30":
            _ade20k(tmp_path / "ADEChallengeData2016", classes)
            return "ADEChallengeData2016[bedroom/*]"
        _side_by_side(tmp_path / recipe, classes)
        return recipe

    return write
