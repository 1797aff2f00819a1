"""`factory choose`, and `factory sample --select`."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from factory_core.annotated.annotations import read_annotations

RNG = np.random.default_rng(0)


@pytest.fixture
def choose(factory: Callable, tmp_path: Path, monkeypatch) -> Callable:
    """`choose("--n", 3)` among twelve photographs, two of which are unlike the others."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(12):
        picture = RNG.integers(90, 110, (24, 32, 3), np.uint8)
        if i == 5:
            picture[..., 0] = 250
        if i == 7:
            picture[:12] = 0
        Image.fromarray(picture).save(f"photos/{i:02d}.png")

    def run(*arguments: object, out: str = "out") -> Any:
        return factory("choose", "--images", "photos", "--out", out, "--device", "cpu", *arguments)

    return run


def chosen(out: str = "out") -> list[dict[str, str]]:
    return list(csv.DictReader(Path(out, "chosen.csv").open()))


def test_unlike_images_are_copied_and_explained(choose: Callable) -> None:
    result = choose("--n", 3)
    assert result.code == 0, result.err
    assert "3 of 12 images in out/images (diverse, compared by thumbnails and colours" in result.out
    rows = chosen()
    assert {"05.png", "07.png"} < {row["file"] for row in rows}
    assert [row["distance"] == "" for row in rows] == [True, False, False]
    for row in rows:
        assert (
            Path("out/images", row["file"]).read_bytes() == Path("photos", row["file"]).read_bytes()
        )
    assert Image.open("out/chosen.png").size[0] > 256

    # Some are annotated: a training reads those.
    Path("out/masks").mkdir()
    mask = np.zeros((24, 32), np.uint8)
    mask[0] = 1
    Image.fromarray(mask).save("out/masks/05.png")
    assert read_annotations("out").stems == ["05"]


def test_a_rerun_adds_others(choose: Callable) -> None:
    assert choose("--n", 3).code == 0
    result = choose("--n", 4, "--select", "random", "--seed", 3)
    assert result.code == 0, result.err
    assert "3 of 12 images are annotated or chosen already" in result.out
    files = [row["file"] for row in chosen()]
    assert len(set(files)) == 7
    assert sorted(files) == sorted(path.name for path in Path("out/images").iterdir())
    assert [row["selection"] for row in chosen()] == ["diverse"] * 3 + ["random"] * 4


def test_stopped_while_it_copies_it_starts_anew(
    choose: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile, copied = shutil.copyfile, []

    def copy_two(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) > 2:
            raise KeyboardInterrupt
        copyfile(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy_two)
        assert choose("--n", 3).code != 0
    assert not list(Path("out").glob("*"))
    assert choose("--n", 3).code == 0
    assert len(chosen()) == 3


def test_annotated_images_are_left_out(choose: Callable) -> None:
    Path("annotated/images").mkdir(parents=True)
    Path("annotated/images/renamed.png").write_bytes(Path("photos/05.png").read_bytes())
    Image.new("RGB", (8, 8)).save("annotated/images/07.jpg")  # the name counts too
    result = choose("--n", 12, "--exclude", "annotated")
    assert result.code == 0, result.err
    assert "2 of 12 images are annotated" in result.out
    assert {row["file"] for row in chosen()} == {f"{i:02d}.png" for i in range(12)} - {
        *("05.png", "07.png")
    }


def test_pictures_of_16_bits(choose: Callable) -> None:
    for i in range(12):
        Path(f"photos/{i:02d}.png").unlink()
        values = RNG.integers(300, 400 if i else 3000, (24, 32)).astype(np.uint16)
        tifffile.imwrite(f"photos/{i:02d}.tif", values)
    result = choose("--n", 2)
    assert result.code == 0, result.err
    assert "12 images with more than 8 bits per channel: values from" in result.out
    assert "00.tif" in {row["file"] for row in chosen()}


def test_mistakes_are_one_line_and_nothing_is_written(choose: Callable) -> None:
    Path("photos/03.png").write_bytes(Path("photos/03.png").read_bytes()[:200])
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    for arguments, out, says in (
        (("--select", "both"), "out", "--select both needs a labeler: give --labeler"),
        ((), "out", "1 of the 12 images in photos cannot be used (03.png)"),
        ((), "full", "--out full holds notes.txt: give a new or empty folder"),
        (("--exclude", "photos"), "out", "all 12 images in photos are annotated or chosen already"),
        (("--exclude", "nothing"), "out", "folder nothing does not exist"),
    ):
        result = choose(*arguments, out=out)
        assert result.code == 1
        assert says in result.err
        assert result.err.strip().count("\n") == 0
        assert not Path("out").exists()


@pytest.mark.slow
def test_with_a_labeler_both_reasons_count(factory: Callable, tmp_path: Path) -> None:
    assert factory("render-demo", "--out", tmp_path / "demo", "--n", 12).code == 0
    out = tmp_path / "out"
    result = factory(
        *("choose", "--images", tmp_path / "demo/images", "--out", out, "--n", 2),
        *("--labeler", "package:factory.demo/labeler", "--device", "cpu"),
    )
    assert result.code == 0, result.err
    assert "2 of 12 images in" in result.out
    assert "(both, compared by features)" in result.out
    first, second = chosen(str(out))
    assert first["selection"] == second["selection"] == "both"
    assert float(first["uncertainty_nats"]) >= float(second["uncertainty_nats"]) > 0


def test_samples_are_chosen_too(factory: Callable, gan: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("sample", "--generator", gan, "--out", "out", "--device", "cpu", "--n", 3)
    for _ in range(2):  # a rerun changes nothing
        result = factory(*command, "--select", "diverse", "--candidates", 9)
        assert result.code == 0, result.err
        rows = chosen()
        assert len(rows) == 3
        names = sorted(path.name for path in Path("out/images").iterdir())
        assert names == sorted(row["file"] for row in rows)
        assert all(int(Path(name).stem) < 9 for name in names)
    assert Path("out/chosen.png").is_file()
    result = factory(*command, "--select", "uncertain")
    assert result.code == 1
    assert "--select uncertain needs a labeler" in result.err
