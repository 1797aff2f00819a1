"""What a round learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from factory.verdict import rounds
from factory.verdict.bench import Bench
from factory.verdict.inputs import Given, read
from factory.verdict.labels import class_shares
from factory.verdict.settings import compare_config
from tests.factory.verdict.test_comparison import settings


@pytest.fixture
def bench(annotated: Path, photographs: Path, generator: Path, tmp_path: Path) -> Any:
    """`bench(**settings)` -> a bench with four of the annotated images, two held out."""

    def make(**changes: Any) -> Bench:
        out = tmp_path / "out"
        given = Given(annotated, out, photographs, str(generator))
        config = compare_config(settings(**changes)[1::2])
        found = read(given, config, out / "parts").materials
        return Bench(found, "split", [2, 3, 4, 5], 0, held_out=[0, 1])

    return make


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False])
def test_photographs_get_the_shares_of_the_masks_and_the_labels_their_part(
    bench: Any, monkeypatch: pytest.MonkeyPatch, aligned: bool
) -> None:
    made, students = bench(label_share=0.4, align_shares=str(aligned).lower()), []
    student = made.student

    def watch(name: str, data: Any, *rest: Any, **more: Any) -> Any:
        students.append((name, data, rest))
        return student(name, data, *rest, **more)

    monkeypatch.setattr(made, "student", watch)
    rounds.learn(made, 1)
    names = [name for name, *_ in students]
    assert names == [
        "generator-unet-strong",
        "generator-unet-strong-1",
        "deeplab-strong",
        "round-1",
    ]
    _, (pool, labels), (learning, start, mix) = students[-1]
    assert torch.equal(labels.masks, made.masks)
    assert mix == [0.6, 0.4]
    assert start is made.materials.start
    assert learning.soft_labels
    assert len(pool.images) == len(made.materials.photographs.images) - 2  # those held out
    levels = load_file(made.folder / "photographs.after-round-0.safetensors")["levels"]
    found = (levels.double() / 255).mean((0, 2, 3))
    wanted = class_shares(made.masks, 2).double()
    assert torch.allclose(found, wanted, atol=0.02) == aligned


@pytest.mark.slow
def test_without_a_network_to_start_from_all_start_at_random(bench: Any) -> None:
    made = bench()
    made.materials = replace(made.materials, start=None)
    assert not rounds.mean_fine_tuned(made).members
    assert rounds.learn(made, 1).config.unet is None
    assert {p.name for p in made.folder.glob("student-*")} == {
        "student-unet-strong",
        "student-deeplab-strong",
        "student-round-1",
    }


@pytest.mark.slow
def test_photographs_and_samples_count_by_their_number(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, students = bench(label_share=0.4, synthetic=6), {}
    student = made.student

    def watch(name: str, data: Any, *rest: Any, **more: Any) -> Any:
        counts = {one.name: len(one.images) for one in data}
        students[name] = (counts, rest[-1])
        return student(name, data, *rest, **more)

    monkeypatch.setattr(made, "student", watch)
    rounds.learn(made, 2, rounds.Variant("both", is_strong=False))
    photographs = len(made.materials.photographs.images) - 2  # those held out
    for number in (1, 2):
        counts, mix = students[f"round-{number}-both-light"]
        assert counts == {"photographs": photographs, "synthetic": 6, "annotated images": 4}
        shares = [0.6 * photographs / (photographs + 6), 0.6 * 6 / (photographs + 6), 0.4]
        assert mix == pytest.approx(shares)
    assert {p.name for p in made.folder.glob("*.after-*")} == {
        f"{pool}.after-{name}.safetensors"
        for pool in ("photographs", "synthetic")
        for name in ("round-0-light", "round-1-both-light")
    }
