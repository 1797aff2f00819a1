"""`factory annotations import` and `export`, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory.demo.render import CLASSES, render_folder
from factory_core.annotated.annotations import read_annotations
from factory_core.annotated.formats.exporting import export_annotations, of_dataset
from factory_core.dataset import open_dataset, read_samples
from tests.stand_ins import Tiny, TinyModels


@pytest.fixture
def data(tiny: Tiny, tmp_path: Path) -> Path:
    Tiny(tiny.folder, TinyModels()).make(tmp_path / "data", n=25)
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["labelme", "coco", "label-studio", "voc"])
def test_a_dataset_goes_to_a_program_and_comes_back(
    name: str, data: Path, tmp_path: Path, factory: Callable
) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    found = factory("annotations", "export", name, "--data", data, "--out", out)
    samples = {sample.key: sample for sample in read_samples(data)}
    assert found.out == f"{len(samples)} pictures in {out} ({name})\n"
    found = factory("annotations", "import", name, out, "--out", back)
    assert found.code == 0, found.err
    assert found.out.startswith(f"{len(samples)} pictures, 2 classes (dark, bright) in {back}")
    read = read_annotations(back)
    assert read.stems == sorted(samples)
    for stem, image, mask in zip(read.stems, read.images, read.masks, strict=True):
        assert np.array_equal(image, samples[stem].image)
        assert np.array_equal(mask, samples[stem].mask)


def test_a_dataset_is_read_shard_by_shard(data: Path, tmp_path: Path) -> None:
    shards = [info.name for info in open_dataset(data).manifest.shards]
    assert len(shards) > 2
    labelled = of_dataset(data)
    samples = iter(labelled.samples)
    next(samples)
    for name in shards[1:]:
        (data / "shards" / name).unlink()
    with pytest.raises(FileNotFoundError, match=shards[1]):
        export_annotations("coco", labelled._replace(samples=samples), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options(tmp_path: Path, factory: Callable) -> None:
    render_folder(tmp_path / "x", range(2))
    out = tmp_path / "out"
    for given in ((), ("--labeled", tmp_path / "x", "--data", tmp_path / "x")):
        found = factory("annotations", "export", "coco", *given, "--out", out)
        assert "expected exactly one" in found.err
    found = factory("annotations", "export", "xml", "--labeled", tmp_path / "x", "--out", out)
    assert found.err.startswith("error: found the format 'xml', expected one of labelme, ")
    found = factory("annotations", "export", "yolo-seg", "--labeled", tmp_path / "x", "--out", out)
    assert "note: YOLO has no ignored pixels" in found.out
    found = factory("annotations", "import", "yolo-seg", out, "--out", tmp_path / "back")
    assert "expected one of labelme, " in found.err
    found = factory("annotations", "import", "coco", tmp_path / "no", "--out", tmp_path / "back")
    assert "no does not exist, expected annotations (coco)" in found.err
    found = factory("annotations", "import", "coco", tmp_path / "x", "--out", out)
    assert found.code == 1
    assert found.err.count("\n") == 1


def test_the_line_of_an_import(tmp_path: Path, factory: Callable) -> None:
    square = {"label": "a", "points": [[0, 0], [4, 0], [4, 4], [0, 4]]}
    bow = {"label": "b", "points": [[0, 0], [4, 4], [4, 0], [0, 4]]}
    line = {"label": "a", "points": [[0, 0], [4, 4]], "shape_type": "line"}
    (tmp_path / "x").mkdir()
    Image.new("L", (6, 6)).save(tmp_path / "x/p.png")
    about = {"shapes": [square, bow, line, line], "imagePath": "p.png"}
    (tmp_path / "x/p.json").write_text(json.dumps(about))
    out = tmp_path / "out"
    found = factory("annotations", "import", "labelme", tmp_path / "x", "--out", out)
    assert found.out == (
        f"1 picture, 3 classes (background, a, b) in {out}; 8 overlapped pixels decided by drawing "
        "order; 1 polygon crosses itself, filled by the even-odd rule; left out: 2 line, which has "
        "no area\n"
    )
    names = tmp_path / "names.json"
    names.write_text('{"classes": ["b", "a"]}')
    for given in ("b,a", names):
        out = tmp_path / f"out-{Path(given).stem}"
        factory(
            "annotations", "import", "labelme", tmp_path / "x", "--out", out, "--classes", given
        )
        assert read_annotations(out).classes == ["b", "a"]
    found = factory(
        *("annotations", "import", "labelme", tmp_path / "x", "--out", tmp_path / "third"),
        *("--classes", "a,,b"),
    )
    assert "--classes a,,b: expected distinct names" in found.err


@pytest.mark.slow
def test_a_labeler_learns_from_what_came_back(tmp_path: Path, factory: Callable) -> None:
    render_folder(tmp_path / "x", range(3))
    factory(
        "annotations", "export", "cvat", "--labeled", tmp_path / "x", "--out", tmp_path / "cvat"
    )
    back = tmp_path / "back"
    assert factory("annotations", "import", "cvat", tmp_path / "cvat", "--out", back).code == 0
    generator = "package:factory.demo/generator"
    settings = ("--set", "labeler.training.steps=5", "--set", "labeler.members=2")
    found = factory(
        *("train-labeler", "--generator", generator, "--labeled", back, "--fast", *settings),
        *("--out", tmp_path / "labeler"),
    )
    assert found.code == 0, found.err
    assert f"3 annotated images, 5 classes: {', '.join(CLASSES)}" in found.out
