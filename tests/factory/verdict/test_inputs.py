"""What a comparison is given: photographs are decoded once for all processes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.verdict import inputs
from factory.verdict.bench import Bench, Materials
from factory.verdict.inputs import Given, read
from factory.verdict.pools import Pool
from factory.verdict.settings import CompareConfig
from factory_core.annotated import annotations
from factory_core.dataset import IGNORE
from tests.factory.verdict.conftest import write_annotated


def test_photographs_are_decoded_once(
    annotated: Path,
    photographs: Path,
    generator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photographs.parent)
    given = Given(annotated, tmp_path / "out", Path(photographs.name), str(generator))
    config, parts = CompareConfig(photographs=3), tmp_path / "parts"
    first = read(given, config, parts)
    first.keep_photographs()
    decoded = []
    decode = inputs.read_image

    def watch(path: Path, *how: object) -> torch.Tensor:
        decoded.append(path.name)
        return decode(path, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(inputs, "read_image", watch)
    again = read(given.absolute(), config, parts)  # as in another process
    assert not decoded
    assert first.photographs is not None
    assert again.photographs is not None
    assert torch.equal(again.photographs.images, first.photographs.images)
    assert again.photographs.names == first.photographs.names
    assert len(again.photographs.names) == 3 < again.photographs.found

    changed = photographs / again.photographs.names[0]
    os.utime(changed, ns=(0, 0))
    read(given, config, parts)
    assert sorted(decoded) == sorted(again.photographs.names)


def test_photographs_are_cropped_as_the_annotated_images_are(
    photographs: Path, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    for place in ("annotated/images", "photographs"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.roll(wide, i, 1)).save(tmp_path / place / f"{i}.png")
    (tmp_path / "annotated/masks").mkdir()
    for i in range(3):
        Image.fromarray(wide[..., 0] // 128).save(tmp_path / f"annotated/masks/{i}.png")
    opened = annotations.open_layout
    monkeypatch.setattr(  # as that of ADE20K
        annotations, "open_layout", lambda *of: replace(opened(*of), crop=True)
    )
    given = Given(tmp_path / "annotated", tmp_path, tmp_path / "photographs", str(generator))
    found = read(given, CompareConfig(), tmp_path / "parts").materials
    assert found.photographs is not None
    assert torch.equal(found.photographs.images, found.annotated.images)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (["one", "one", "one", "both"], "split . of 4 scores, there is only one class to learn"),
        (["both", "both", "both", "none"], "split . of 4 scores have no labelled pixel"),
    ],
)
def test_splits_that_cannot_be_worked_on(shown: list[str], message: str, tmp_path: Path) -> None:
    masks = {name: torch.zeros(8, 8, dtype=torch.uint8) for name in ("one", "both", "none")}
    masks["both"][:4] = 1
    masks["none"][:] = IGNORE
    pool = Pool(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), tmp_path, None)
    stack = torch.stack([masks[name] for name in shown])
    materials = Materials(CompareConfig(seeds=1), tmp_path, pool, stack, ["a", "b"])
    with pytest.raises(ValueError, match=message):
        _ = materials.splits


def test_a_second_set_is_neither_trained_on_nor_learned_from(
    annotated: Path, photographs: Path, generator: Path, tmp_path: Path
) -> None:
    given = Given(annotated, tmp_path, photographs, str(generator), also=annotated)
    with pytest.raises(ValueError, match=r"--also-test .*: 00 equals one of the annotated images"):
        read(given, CompareConfig(), tmp_path / "parts")
    also = write_annotated(tmp_path / "also", 2, first=100)  # the first two photographs but two
    m = read(replace(given, also=also), CompareConfig(), tmp_path / "parts").materials
    assert m.photographs is not None
    free = Bench(m, "whole", range(6), 0).may_learn_from(m.photographs.images)
    assert free.tolist() == [True, True, False, False, *[True] * 6]
    free = Bench(m, "split", range(1, 6), 0, held_out=[0]).may_learn_from(m.photographs.images)
    assert free.tolist() == [False, True, False, False, *[True] * 6]


def test_photographs_that_are_all_scored_are_refused(
    annotated: Path, generator: Path, tmp_path: Path
) -> None:
    """By all splits, as the second set, or by one, as the only one that it holds out."""
    also = write_annotated(tmp_path / "also", 4, first=300)
    one = write_annotated(tmp_path / "one", 1)
    for given in (
        Given(annotated, tmp_path, also / "images", str(generator), also=also),
        Given(annotated, tmp_path, one / "images", str(generator)),
    ):
        with pytest.raises(ValueError, match="no photograph is left to learn from"):
            _ = read(given, CompareConfig(), tmp_path / "parts").materials.splits
