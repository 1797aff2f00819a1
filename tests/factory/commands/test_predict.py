"""`factory predict` as a user runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.demo.render import CLASSES, render_folder
from train_seg.inference.tiles import Tiling, predict_tiled
from train_seg.network.segmenter import Segmenter


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_segmenter: Callable) -> Path:
    """An untrained segmenter, and photographs in two folders."""
    folder = tmp_path_factory.mktemp("predicting")
    tiny_segmenter(CLASSES).save(folder / "model")
    render_folder(folder / "day", range(3), size=48)
    render_folder(folder / "night", range(2), size=48)
    return folder


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def predicted(factory: Callable, out: str, *arguments: object) -> dict[str, np.ndarray]:
    """Masks by their path below `out`/masks."""
    result = factory("predict", "--model", "model", "--out", out, *arguments)
    assert result.code == 0, result.err
    masks = Path(out) / "masks"
    paths = sorted(masks.rglob("*.png"))
    return {str(p.relative_to(masks)): np.asarray(Image.open(p)) for p in paths}


def refused(result, *words: str) -> None:
    """One line on standard error with all of `words`, exit code 1."""
    assert result.code == 1, result
    assert len(result.err.strip().splitlines()) == 1, result.err
    for word in words:
        assert word in result.err


def test_a_folder_a_file_a_pattern_and_one_that_the_shell_expands(factory: Callable) -> None:
    folder = predicted(factory, "a", "--images", "day/images")
    assert list(folder) == ["000000.png", "000001.png", "000002.png"]
    assert folder["000000.png"].shape == (48, 48)
    file = predicted(factory, "b", "--images", "day/images/000001.png")
    assert list(file) == ["000001.png"]
    pattern = predicted(factory, "c", "--images", "*/images/00000[01].png")
    assert list(pattern) == [
        f"{day}/images/00000{i}.png" for day in ("day", "night") for i in (0, 1)
    ]
    shell = predicted(factory, "d", "--images", *sorted(Path("day/images").glob("*.png")))
    assert list(shell) == list(folder)
    assert all(np.array_equal(shell[name], folder[name]) for name in folder)
    assert np.array_equal(pattern["day/images/000001.png"], file["000001.png"])
    deep = predicted(factory, "e", "--images", "day/**/*.png")
    assert {name.split("/")[0] for name in deep} == {"images", "masks"}


def test_tiles_give_the_masks_of_predict_tiled(factory: Callable) -> None:
    large = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(large).save("large.png")
    options = ("--tile", 40, "--overlap", 0.5, "--batch-size", 2, "--no-overlays")
    found = predicted(factory, "tiled", "--images", "large.png", *options)["large.png"]
    segmenter = Segmenter.load("model", "cpu")
    with torch.inference_mode():
        image = torch.from_numpy(large).permute(2, 0, 1)
        expected = predict_tiled(segmenter.network, image, Tiling((40, 40), 0.5))
    assert np.array_equal(found, expected)
    whole = predicted(factory, "whole", "--images", "large.png")["large.png"]
    assert not np.array_equal(found, whole)
    assert not Path("tiled/overlays").exists()


def test_shrinking_a_large_image_is_reported(factory: Callable) -> None:
    Image.new("RGB", (200, 150)).save("huge.png")
    command = ("predict", "--model", "model", "--images", "huge.png")
    assert "--tile 32" in factory(*command, "--out", "shrunk").out
    assert "--tile" not in factory(*command, "--out", "cut", "--tile", 64).out


def test_mistakes_are_one_line_before_any_work(factory: Callable) -> None:
    command = ("predict", "--model", "model", "--out", "out")
    refused(factory(*command, "--images", "lost"), "--images lost", "no such file or folder")
    refused(factory(*command, "--images", "day/*.gif"), "day/*.gif", "no image matches")
    both = ("--images", "day/images", "--images", "night/images")
    refused(factory(*command, *both), "000000.png", "two --out")
    refused(factory("predict", "--model", "lost", "--images", "day/images", "--out", "out"), "lost")
    assert not Path("out").exists()


def test_a_damaged_image_does_not_stop_the_others(factory: Callable) -> None:
    render_folder(Path("mixed"), range(4), size=32)
    whole = Path("mixed/images/000001.png").read_bytes()
    Path("mixed/images/000001.png").write_bytes(whole[: len(whole) // 2])
    Path("mixed/images/000003.png").write_bytes(b"no image")
    command = ("predict", "--model", "model", "--images", "mixed/images", "--out", "mixed_out")
    found = factory(*command)
    refused(found, "2 of 4 images cannot be read")
    lines = found.out.splitlines()
    assert ["000001.png" in lines[0], "000003.png" in lines[1]] == [True, True]
    assert "2 images: masks and overlays in mixed_out" in lines[2]
    assert sorted(p.name for p in Path("mixed_out/masks").iterdir()) == ["000000.png", "000002.png"]
    other = factory(*command[:-3], "day/images/000001.png", "--out", "mixed_out")
    refused(other, "mixed_out/masks holds 2 predictions of other images", "another --out")
    Path("mixed/images/000001.png").write_bytes(whole)
    Path("mixed/images/000003.png").unlink()
    again = factory(*command)
    assert again.code == 0, again.err
    alone = factory(*command[:-3], "mixed/images/000001.png", "--out", "damaged")
    assert alone.code == 0, alone.err
    Path("mixed/images/000001.png").write_bytes(b"no image")
    refused(factory(*command[:-3], "mixed/images/000001.png", "--out", "damaged"), "1 of 1 images")
