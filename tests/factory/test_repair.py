"""A finished dataset that was damaged comes back to the byte, from as few candidates as can be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def out(tiny: Any, tmp_path: Path) -> Path:
    """25 candidates in final shards of 7, 7, 7 and 2."""
    tiny.make(tmp_path / "out")
    tiny.models.made.clear()
    return tmp_path / "out"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_final_shard(tiny: Any, tree: Callable, out: Path, damage: Any) -> None:
    whole = tree(out)
    damage(out / "shards/tiny-000003.tar")  # its samples are among the last candidates
    tiny.make(out)
    assert tree(out) == whole
    assert min(tiny.models.made) >= 16


def test_several_shards_or_all(tiny: Any, tree: Callable, out: Path) -> None:
    whole = tree(out)
    shutil.rmtree(out / "shards")
    tiny.make(out)
    assert tree(out) == whole


def test_rows_need_all_candidates(tiny: Any, tree: Callable, out: Path) -> None:
    whole = tree(out)
    flip(out / "samples.parquet")
    tiny.make(out)
    assert sorted(tiny.models.made) == list(range(25))
    assert tree(out) == whole


def test_kept_candidates_are_used(tiny: Any, tree: Callable, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    tiny.make(out, keep_candidates=True)
    whole = tree(out)
    tiny.models.made.clear()
    flip(out / "shards/tiny-000000.tar")
    tiny.make(out, keep_candidates=True)
    assert not tiny.models.made
    assert tree(out) == whole


def test_an_interrupted_repair_goes_on(tiny: Any, tree: Callable, out: Path) -> None:
    whole = tree(out)
    flip(out / "shards/tiny-000000.tar")
    flip(out / "shards/tiny-000003.tar")
    tiny.begin(out, 1)
    tiny.make(out)
    assert min(tiny.models.made) >= 8
    assert tree(out) == whole


def test_other_bytes_are_not_taken(tiny: Any, tree: Callable, out: Path) -> None:
    """As on another kind of processor: the rest of the dataset is of this one's bits."""
    flip(out / "shards/tiny-000003.tar")
    damaged = tree(out)
    tiny.models.encode = lambda images, indices: {"image": images.float() / 300}
    with pytest.raises(ValueError, match="comes out with other bytes here") as caught:
        tiny.make(out)
    assert "\n" not in str(caught.value)
    assert {name: h for name, h in tree(out).items() if "candidates" not in name} == damaged
    assert not list(out.rglob(".tmp-*"))


def test_what_killed_writers_left_is_swept(tiny: Any, tree: Callable, out: Path) -> None:
    whole = tree(out)
    (out / ".tmp-samples.parquet-0123").write_bytes(b"half")
    tiny.make(out)
    assert tree(out) == whole
