"""Each kind of damage is found and named; an intact dataset has no faults."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from factory.pipeline.verify import verify
from factory_core.dataset import FileInfo, Member, TarWriter, read_manifest, read_tar

MAPS = ["dataset.uncertainty_maps=true", "dataset.probabilities=true"]


@pytest.fixture
def out(tiny: Any, tmp_path: Path) -> Path:
    """25 candidates in final shards of 7, 7, 7 and 2, with uncertainty maps and probabilities."""
    tiny.make(tmp_path / "out", overrides=MAPS)
    return tmp_path / "out"


def found(out: Path) -> list[tuple[str, str]]:
    return [(str(problem), problem.remedy) for problem in verify(out)]


def rewrite(out: Path, change: Callable[[list[Member]], list[Member]]) -> None:
    """Change the second sample of the first shard, and list the new file in dataset.json."""
    path = out / "shards/tiny-000000.tar"
    samples = [members for _, members in read_tar(path)]
    samples[1] = change(samples[1])
    with open(path, "wb") as file:
        tar = TarWriter(file)
        for members in samples:
            tar.add(members)
        tar.close()
    relist(out, FileInfo.of(path, sum(1 for members in samples if members)))


def relist(out: Path, info: FileInfo) -> None:
    manifest = read_manifest(out)
    changed: dict[str, Any] = {"samples": info}
    if info.name != manifest.samples.name:
        shards = [info, *manifest.shards[1:]]
        total = sum(shard.bytes for shard in shards)
        totals = manifest.totals.model_copy(update={"bytes": total})
        changed = {"shards": shards, "totals": totals}
    manifest.model_copy(update=changed).write(out)


def replaced(members: list[Member], extension: str, content: bytes) -> list[Member]:
    return [(n, content if n.split(".", 1)[1] == extension else data) for n, data in members]


def without(members: list[Member], extension: str) -> list[Member]:
    return [(n, data) for n, data in members if n.split(".", 1)[1] != extension]


def png(pixels: np.ndarray, palette: bool = False) -> bytes:
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    if palette:
        picture.putpalette(bytes(768))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_an_intact_dataset(tiny: Any, out: Path, tmp_path: Path) -> None:
    assert verify(out) == []
    tiny.make(tmp_path / "without", n=9)  # nothing dropped, no maps
    assert verify(tmp_path / "without") == []


def test_damaged_files_are_to_be_regenerated(tiny: Any, out: Path) -> None:
    shards = out / "shards"
    flipped = bytearray((shards / "tiny-000000.tar").read_bytes())
    flipped[700] ^= 1
    (shards / "tiny-000000.tar").write_bytes(flipped)
    (shards / "tiny-000001.tar").unlink()
    (shards / "tiny-000002.tar").write_bytes(b"short")
    shutil.copy(shards / "tiny-000003.tar", shards / "copy.tar")
    reasons = ("different sha256", "is missing", "has 5 bytes", "does not belong to the dataset")
    problems = found(out)
    assert len(problems) == 4
    for (text, _), reason in zip(problems, reasons, strict=True):
        assert reason in text
    assert [remedy for _, remedy in problems] == ["redo", "redo", "redo", "move"]
    (shards / "copy.tar").unlink()
    tiny.make(out, overrides=MAPS)
    assert verify(out) == []


def test_damaged_rows(tiny: Any, out: Path) -> None:
    (out / "samples.parquet").write_bytes(b"no rows")
    assert found(out) == [
        (f"samples.parquet: has 7 bytes, expected {read_manifest(out).samples.bytes}", "redo")
    ]


MASK = np.zeros((16, 16), np.uint8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m[:-1], "has members"),
        (lambda m: [*m, m[-1]], "has members"),
        (lambda m: replaced(m, "png", b"no image"), "cannot be read"),
        (lambda m: replaced(m, "json", b"{"), "cannot be read"),
        (lambda m: replaced(m, "json", b"{}"), "a .json that differs from its row"),
        (lambda m: replaced(m, "seg.png", png(MASK + 7, True)), "class id 7, there are 2"),
        (lambda m: replaced(m, "seg.png", png(MASK, True)), "a mask that differs from the counts"),
        (lambda m: replaced(m, "seg.png", png(MASK)), "a .seg.png of L 16 x 16, expected P"),
        (lambda m: replaced(m, "unc.png", png(MASK[:8])), "a .unc.png of L 16 x 8, expected"),
        (lambda m: replaced(m, "prob.png", png(MASK[:8])), "a .prob.png of L 16 x 8, expected"),
        (lambda m: without(m, "prob.png"), "has members"),
        (lambda m: [], "has 6 samples, expected 6 and 7 rows"),
    ],
)
def test_wrong_samples_are_named(out: Path, change: Any, reason: str) -> None:
    rewrite(out, change)
    text, remedy = found(out)[-1 if "samples" in reason else 0]
    assert text.startswith("shards/tiny-000000.tar: ")
    assert reason in text
    assert remedy == "none"


def test_maps_that_the_manifest_does_not_count(out: Path) -> None:
    rewrite(out, lambda members: replaced(members, "unc.png", png(MASK)))
    assert found(out) == [
        ("dataset.json: has an uncertainty_histogram that differs from the shards' maps", "none")
    ]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("kept", pa.array([False] * 2 + [True] * 23), "does not keep the candidates that"),
        ("index", pa.array([0] * 25), "does not have the indices"),
        ("shard", pa.array(["tiny-000001.tar"] * 25), "expected those of tiny-000000.tar"),
        ("shard", pa.array([f"tiny-{i // 2:06d}.tar" for i in range(25)]), "does not list"),
    ],
)
def test_wrong_rows(out: Path, column: str, value: pa.Array, reason: str) -> None:
    path = out / "samples.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, value), path)
    relist(out, FileInfo.of(path, len(table)))
    assert any(reason in text for text, _ in found(out))


@pytest.mark.parametrize(
    ("field", "value"), [("kept", 3), ("bytes", 1), ("class_pixels", [1, 2]), ("dropped", 0)]
)
def test_wrong_totals(out: Path, field: str, value: Any) -> None:
    manifest = read_manifest(out)
    totals = manifest.totals.model_copy(update={field: value})
    manifest.model_copy(update={"totals": totals}).write(out)
    text, remedy = found(out)[0]
    assert re.match("dataset.json: has (totals that differ|a total of bytes that differs)", text)
    assert remedy == "none"


def test_a_folder_without_a_finished_dataset(tiny: Any, tmp_path: Path) -> None:
    tiny.begin(tmp_path / "out", 1)
    with pytest.raises(FileNotFoundError, match="not finished: rerun the command"):
        verify(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        verify(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", None])
def test_a_damaged_dataset_json(tiny: Any, out: Path, content: bytes | None) -> None:
    """The rest is still checked, against the footer of samples.parquet."""
    file = out / "dataset.json"
    file.unlink()
    reason = "is missing"
    if content is not None:
        file.write_bytes(content)
        reason = "cannot be read"
    (out / "shards/tiny-000001.tar").unlink()
    assert found(out) == [
        (f"dataset.json: {reason}", "redo"),
        ("shards/tiny-000001.tar: is missing", "redo"),
    ]
    (out / "samples.parquet").write_bytes(b"no rows")
    with pytest.raises((ValueError, FileNotFoundError), match=r"dataset\.json"):
        verify(out)


def test_the_preview(tiny: Any, out: Path) -> None:
    preview = out / "preview.png"
    preview.write_bytes(preview.read_bytes()[:999])
    assert found(out) == [("preview.png: cannot be read", "redo")]
    preview.unlink()
    assert found(out) == [("preview.png: is missing", "redo")]
    tiny.make(out, overrides=MAPS)
    assert verify(out) == []


def test_the_command(factory: Callable, out: Path) -> None:
    result = factory("verify", out)
    assert result.code == 0
    assert "is intact: 25 rows, 23 samples" in result.out
    (out / "shards/tiny-000001.tar").unlink()
    result = factory("verify", out)
    assert result.code == 1
    assert result.out == "shards/tiny-000001.tar: is missing\n"
    assert (
        "rerun the command that made the dataset, which regenerates shards/tiny-000001.tar"
        in result.err
    )
    assert len(result.err.strip().splitlines()) == 1


def test_the_command_on_faults_that_a_rerun_cannot_repair(factory: Callable, out: Path) -> None:
    shutil.copy(out / "shards/tiny-000003.tar", out / "shards/copy.tar")
    rewrite(out, lambda members: replaced(members, "json", b"{}"))
    result = factory("verify", out)
    assert result.code == 1
    assert "move shards/copy.tar elsewhere" in result.err
    assert "do not rely on shards/tiny-000000.tar" in result.err
    assert "rerun the command" not in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_an_unfinished_dataset_is_not_an_annotated_folder(
    tiny: Any, factory: Callable, tmp_path: Path
) -> None:
    tiny.begin(tmp_path / "out", 1)
    result = factory("train-deeplab", "--data", tmp_path / "out", "--out", tmp_path / "model")
    assert result.code == 1
    assert "its job is not finished: rerun the command" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_impossible_probabilities(tiny: Any, tmp_path: Path) -> None:
    (tiny.folder / "weights/labeler.json").write_text('{"classes": ["dark", "bright", "never"]}')
    predict = tiny.models.predict

    def with_a_third(*given: Any) -> Any:
        labels = predict(*given)
        labels.probabilities = torch.nn.functional.pad(labels.probabilities, (0, 0, 0, 0, 0, 1))
        return labels

    tiny.models.predict = with_a_third
    tiny.make(tmp_path / "out", overrides=["dataset.probabilities=true"])
    assert verify(tmp_path / "out") == []
    wrong = png(np.full((32, 16), 200, np.uint8))
    rewrite(tmp_path / "out", lambda members: replaced(members, "prob.png", wrong))
    assert found(tmp_path / "out")[0] == (
        "shards/tiny-000000.tar: sample 000000001 has a .prob.png that is wrong: found levels that"
        " sum to 400, expected at most 255",
        "none",
    )
