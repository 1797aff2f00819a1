"""Exactly floor(fraction * N) candidates are dropped; ties are broken by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factory.pipeline.select import (
    UNCERTAIN,
    characteristic_class,
    drop_count,
    proportional,
    select,
)
from factory.pipeline.verify import verify


@pytest.mark.parametrize(
    ("n", "fraction", "dropped"),
    [(1, 0.1, 0), (9, 0.1, 0), (10, 0.1, 1), (64, 0.1, 6), (100, 0.29, 29), (30, 0.0, 0)],
)
def test_drop_count_is_exact(n: int, fraction: float, dropped: int) -> None:
    assert drop_count(n, fraction) == dropped
    kept = select(range(n), np.random.default_rng(0).random(n, np.float32), fraction).kept
    assert n - kept.sum() == dropped


def test_the_most_uncertain_are_dropped_with_a_reason() -> None:
    selection = select(range(5), np.array([0.1, 0.9, 0.3, 0.8, 0.2], np.float32), 0.4)
    assert selection.kept.tolist() == [True, False, True, False, True]
    assert selection.reasons(slice(5)) == [None, UNCERTAIN, None, UNCERTAIN, None]
    assert selection.reasons(slice(1, 3)) == [UNCERTAIN, None]
    assert selection.threshold == pytest.approx(0.3)


def test_of_equals_the_later_key_is_dropped_first_in_any_order() -> None:
    values = np.zeros(10, np.float32)
    assert select(range(10), values, 0.3).kept.tolist() == [True] * 7 + [False] * 3
    assert select(range(9, -1, -1), values, 0.3).kept.tolist() == [False] * 3 + [True] * 7


def test_an_uncertainty_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 7 has uncertainty nan"):
        select([6, 7], np.array([0.1, np.nan], np.float32), 0.1)


# --- policies --------------------------------------------------------------------------------


def random_candidates(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, uncertainty with many ties, and pixels of up to six classes, some of them absent."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 400)), int(rng.integers(2, 7))
    common = rng.dirichlet(np.full(classes, 0.4))
    pixels = rng.multinomial(256, rng.dirichlet(8 * common + 1e-3, n))
    return np.arange(n), rng.integers(0, 20, n).astype(np.float32) / 20, pixels


@pytest.mark.parametrize("seed", range(40))
def test_per_class_drops_exactly_as_many_and_each_group_its_part(seed: int) -> None:
    indices, uncertainty, pixels = random_candidates(seed)
    n = len(indices)
    selection = select(indices, uncertainty, 0.1, "per_class", pixels)
    assert n - selection.kept.sum() == n // 10
    assert selection.threshold == uncertainty[selection.kept].max()
    groups = characteristic_class(pixels)
    for group in np.unique(groups):
        inside = groups == group
        exact = (n // 10) * inside.sum() / n
        dropped = inside & ~selection.kept
        assert np.floor(exact) <= dropped.sum() <= np.ceil(exact)
        order = np.lexsort((indices, uncertainty))
        assert dropped[order[inside[order]]].tolist() == sorted(dropped[inside].tolist())
    order = np.random.default_rng(seed).permutation(n)
    shuffled = select(indices[order], uncertainty[order], 0.1, "per_class", pixels[order])
    np.testing.assert_array_equal(shuffled.kept, selection.kept[order])


def test_per_class_saves_a_rare_class_that_is_always_uncertain() -> None:
    rare = np.arange(200) % 10 == 0  # with half as much of it in every other of these
    pixels = np.where(rare, np.where(np.arange(200) % 20 == 0, 80, 40), 2)
    counts = np.stack([256 - pixels, pixels], axis=1)
    uncertainty = (np.random.default_rng(0).random(200) + rare).astype(np.float32)
    assert set(np.flatnonzero(characteristic_class(counts))) == set(np.flatnonzero(rare))
    assert not (rare & select(range(200), uncertainty, 0.1, "uncertain").kept).any()
    kept = select(range(200), uncertainty, 0.1, "per_class", counts).kept
    assert (rare & ~kept).sum() == 2
    assert (~kept).sum() == 20


def test_none_drops_none() -> None:
    selection = select(range(50), np.linspace(0, 1, 50, dtype=np.float32), 0.5, "none")
    assert selection.kept.all()
    assert selection.threshold == 1


def test_a_class_is_weighed_against_its_part_of_all_pixels() -> None:
    pixels = np.array([[90, 10, 0], [98, 1, 1], [60, 40, 0], [50, 50, 0], [0, 0, 0]])
    assert characteristic_class(pixels).tolist() == [0, 2, 1, 1, 0]


@pytest.mark.parametrize(
    ("total", "sizes", "parts"),
    [(2, [10, 10], [1, 1]), (1, [5, 5], [1, 0]), (3, [21, 0, 9], [2, 0, 1]), (0, [3, 4], [0, 0])],
)
def test_parts_are_proportional(total: int, sizes: list[int], parts: list[int]) -> None:
    assert proportional(total, np.array(sizes)) == parts


@pytest.mark.parametrize("policy", ["per_class", "none"])
def test_a_job_with_another_policy(tiny: Any, tmp_path: Path, policy: str) -> None:
    default = tiny.make(tmp_path / "default")
    setting = [f"selection.policy={policy}"]
    manifest = tiny.make(tmp_path / "out", overrides=setting)
    assert "selection" not in default.recipe
    assert manifest.recipe["selection"] == {"policy": policy}
    assert manifest.totals.dropped == (2 if policy == "per_class" else 0)
    assert verify(tmp_path / "out") == []
    (tmp_path / "out/samples.parquet").unlink()  # repaired by selecting again
    assert tiny.make(tmp_path / "out", overrides=setting) == manifest
    with pytest.raises(ValueError, match=r"different recipe \(selection\.policy differ\)"):
        tiny.make(tmp_path / "default", overrides=setting)
    with pytest.raises(ValueError, match=r"different recipe \(selection\.policy differ\)"):
        tiny.make(tmp_path / "out")


def test_verify_selects_as_the_recipe_says(tiny: Any, tmp_path: Path) -> None:
    manifest = tiny.make(tmp_path / "out")
    recipe = {**manifest.recipe, "selection": {"policy": "none"}}
    manifest.model_copy(update={"recipe": recipe}).write(tmp_path / "out")
    assert "does not keep the candidates that its recipe keeps" in str(verify(tmp_path / "out")[0])
