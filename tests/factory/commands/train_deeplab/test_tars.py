"""`train-deeplab --data 'other-{...}.tar'`: options, and a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

from train_seg.network.segmenter import read_info

DATA = ("train-deeplab", "--data", "other-{000000..000001}.tar", "--out", "model")
MEMBERS = ("--members", "image=jpg,mask=seg.png")


@pytest.fixture(autouse=True)
def tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tars of three samples of 32 x 32, as webdataset's own writer makes them."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        with wds.TarWriter(f"other-{number:06d}.tar") as writer:
            for i in range(3):
                rng = np.random.default_rng([number, i])
                image = rng.integers(0, 256, (32, 32, 3), np.uint8)
                mask = (image[..., 0] > 128).astype(np.uint8)
                writer.write({"__key__": f"{number}{i}", "jpg": image, "seg.png": mask})


def test_mistakes_are_one_line(factory: Callable) -> None:
    def refused(*options: str) -> str:
        result = factory(*options)
        assert result.code == 1
        assert len(result.err.strip().splitlines()) == 1
        assert not Path("model").exists()
        return result.err

    assert "found no --members: say which" in refused(*DATA)
    assert "found no names of classes: give --classes" in refused(*DATA, *MEMBERS)
    assert "expected distinct names" in refused(*DATA, *MEMBERS, "--classes", "a,a")
    assert "--classes lost.json: no such file" in refused(*DATA, *MEMBERS, "--classes", "lost.json")
    wrong = ("--members", "image=png,mask=seg.png", "--classes", "dark,bright")
    assert "its first has jpg, seg.png" in refused(*DATA, *wrong)
    Path("annotated").mkdir()
    other = ("train-deeplab", "--data", "annotated", "--out", "model")
    assert "--members or --classes without tars" in refused(*other, *MEMBERS)
    Path("zero.json").write_text(json.dumps({"classes": ["a"], "reduce_zero_label": True}))
    assert "reduce_zero_label" in refused(*DATA, *MEMBERS, "--classes", "zero.json")


@pytest.mark.slow
def test_a_training(factory: Callable) -> None:
    Path("classes.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
    small = ("--encoder", "resnet18", "--set", "encoder_depth=3", "--set", "batch_size=2")
    result = factory(*DATA, *MEMBERS, "--classes", "classes.json", *small, "--steps", "2")
    assert result.code == 0, result.err
    assert "note: 6 samples in 2 tars, other-{000000..000001}.tar" in result.out
    info = read_info(Path("model"))
    assert (info.classes, info.image_size) == (["dark", "bright"], (32, 32))
