"""A damaged dataset is restored to the byte, from as few candidates as possible."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from factory_core.dataset.recovery import recover_manifest


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


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zero_a_part(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])


damages = pytest.mark.parametrize("damage", [flip, cut, zero, Path.unlink])


@damages
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


def test_an_interrupted_repair_resumes(tiny: Any, tree: Callable, out: Path) -> None:
    whole = tree(out)
    flip(out / "shards/tiny-000000.tar")
    flip(out / "shards/tiny-000003.tar")
    tiny.begin(out, 1)
    tiny.make(out)
    assert min(tiny.models.made) >= 8
    assert tree(out) == whole


@pytest.mark.parametrize("name", ["shards/tiny-000003.tar", "samples.parquet"])
def test_different_bytes_are_refused(tiny: Any, tree: Callable, out: Path, name: str) -> None:
    """As on a different processor, whose bits would not match the rest of the dataset."""
    flip(out / name)
    damaged = tree(out)
    tiny.models.encode = lambda images, indices: {"image": images.float() / 300}
    with pytest.raises(ValueError, match="gives different bytes here") as caught:
        tiny.make(out)
    assert "\n" not in str(caught.value)
    assert {name: h for name, h in tree(out).items() if "candidates" not in name} == damaged
    assert not list(out.rglob(".tmp-*"))


def test_leftovers_of_killed_writers_are_swept(tiny: Any, tree: Callable, out: Path) -> None:
    whole = tree(out)
    (out / ".tmp-samples.parquet-0123").write_bytes(b"half")
    tiny.make(out)
    assert tree(out) == whole


# --- which job the folder belongs to ---------------------------------------------------------


@pytest.mark.parametrize("damage", [cut, zero, zero_a_part, Path.unlink])
def test_dataset_json_is_restored_from_the_rows(
    tiny: Any, tree: Callable, out: Path, damage: Any
) -> None:
    whole = tree(out)
    damage(out / "dataset.json")
    with pytest.raises(ValueError, match=r"started with --n 25, not 9"):
        tiny.make(out, n=9)
    with pytest.raises(ValueError, match=r"different recipe \(dataset.drop_fraction differ"):
        tiny.make(out, overrides=["dataset.drop_fraction=0.2"])
    tiny.make(out)
    assert tree(out) == whole
    assert not tiny.models.made


def test_dataset_json_and_shards(tiny: Any, tree: Callable, out: Path) -> None:
    whole = tree(out)
    zero(out / "dataset.json")
    cut(out / "shards/tiny-000001.tar")
    shutil.move(out / "shards/tiny-000002.tar", out / "shards/tiny-000003.tar")
    tiny.make(out)
    assert tree(out) == whole


@pytest.mark.parametrize("damage", [cut, zero, zero_a_part, Path.unlink])
def test_damaged_rows_are_not_trusted(out: Path, damage: Any) -> None:
    """Even without dataset.json, which lists their sha256."""
    manifest = recover_manifest(out)
    assert manifest is not None
    assert manifest.samples.matches(out / "samples.parquet")
    damage(out / "samples.parquet")
    assert recover_manifest(out) is None


def test_one_wrong_byte_in_any_column_or_in_the_footer(out: Path) -> None:
    path = out / "samples.parquet"
    content = path.read_bytes()
    for column in range(pq.read_metadata(path).num_columns):
        chunk = pq.read_metadata(path).row_group(0).column(column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        for place in (start, start + chunk.total_compressed_size - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert recover_manifest(out) is None, (column, place)
    text = content.index(b'"recipe_digest": "') + 20
    path.write_bytes(content[:text] + b"-" + content[text + 1 :])
    assert recover_manifest(out) is None


def test_nothing_identifies_the_job(tiny: Any, tree: Callable, out: Path) -> None:
    zero(out / "dataset.json")
    cut(out / "samples.parquet")
    damaged = tree(out)
    with pytest.raises(ValueError, match="are both damaged, and nothing else says") as caught:
        tiny.make(out)
    assert "\n" not in str(caught.value)
    assert tree(out) == damaged


@pytest.mark.parametrize("left", ["job.json", "markers"])
def test_candidates_identify_the_job(tiny: Any, tree: Callable, tmp_path: Path, left: str) -> None:
    out = tmp_path / "kept"
    tiny.make(out, keep_candidates=True)
    whole = tree(out)
    for path in (out / "dataset.json", out / "samples.parquet"):
        zero(path)
    if left == "markers":
        zero(out / "candidates/job.json")
    else:
        for marker in (out / "candidates").glob("*_stats.json"):
            cut(marker)
    with pytest.raises(ValueError, match=r"not made by this command|started with --n 25, not 9"):
        tiny.make(out, n=9)
    tiny.models.made.clear()
    tiny.make(out, keep_candidates=True)
    assert bool(tiny.models.made) == (left == "job.json")
    made = tree(out)
    assert made.keys() == whole.keys()
    assert {n for n in made if made[n] != whole[n]} <= {n for n in whole if "_stats" in n}


def test_a_stopped_repair_keeps_what_identifies_the_job(
    tiny: Any, tree: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tiny.make(out)
    whole = tree(out)
    cut(out / "samples.parquet")
    tiny.begin(out, 0)
    zero(out / "dataset.json")
    tiny.make(out)
    assert tree(out) == {**whole, "preview.png": tree(out)["preview.png"]}


@pytest.mark.parametrize("damage", [cut, zero, Path.unlink])
def test_a_damaged_job_file(tiny: Any, tree: Callable, tmp_path: Path, damage: Any) -> None:
    tiny.make(tmp_path / "undisturbed")
    out = tmp_path / "out"
    tiny.begin(out, 2)
    damage(out / "candidates/job.json")
    with pytest.raises(ValueError, match="not made by this command") as caught:
        tiny.make(out, overrides=["generator.steps=3"])
    assert "\n" not in str(caught.value)
    tiny.make(out)
    assert min(tiny.models.made) >= 16  # finished shards are kept
    assert tree(out) == tree(tmp_path / "undisturbed")


def test_a_damaged_job_file_before_anything_is_finished(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny.begin(out, 1)
    cut(out / "candidates/job.json")
    cut(out / "candidates/000000_stats.json")
    assert tiny.make(out, n=9).totals.candidates == 9


def test_a_candidate_damaged_while_the_job_runs(tiny: Any, tree: Callable, tmp_path: Path) -> None:
    tiny.make(tmp_path / "undisturbed")
    out = tmp_path / "out"

    def damage(progress: Any) -> None:
        if progress.stage == "commit":
            zero_a_part(out / "candidates/000001.tar")

    with pytest.raises(ValueError, match=r"000001\.tar was damaged after it was finished"):
        tiny.make(out, on_progress=damage)
    tiny.models.made.clear()
    tiny.make(out)
    assert set(tiny.models.made) == set(range(8, 16))
    assert tree(out) == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("damage", [cut, zero, Path.unlink])
def test_the_preview_is_redrawn(tiny: Any, out: Path, damage: Any) -> None:
    damage(out / "preview.png")
    tiny.make(out)
    assert not tiny.models.made
    with Image.open(out / "preview.png") as picture:
        picture.load()


def test_another_jobs_shard_is_not_reused(tiny: Any, tree: Callable, tmp_path: Path) -> None:
    """A worker that outlived its driver may finish one in a folder that a new job uses."""
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    tiny.make(undisturbed)
    tiny.make(tmp_path / "another", keep_candidates=True, overrides=["generator.seed=1"])
    tiny.begin(out, 1)
    for name in ("000002.tar", "000002.parquet", "000002_stats.json"):
        shutil.copy(tmp_path / "another/candidates" / name, out / "candidates" / name)
    tiny.make(out)
    assert sorted(tiny.models.made) == list(range(8, 25))
    assert tree(out) == tree(undisturbed)
