"""A full disk, wherever it is noticed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from factory_core.storage import atomic_path, files, naming_full_disk, write_bytes

FULL = Path("/dev/full")  # every write to it fails as on a full disk
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs Linux")


class Usage(NamedTuple):
    free: int


def copy_from_the_temporary_folder(folder: Path) -> None:
    (folder / "in_tmp").write_bytes(b"x" * 100_000)
    shutil.copyfile(folder / "in_tmp", FULL)


def write_by_a_library(folder: Path) -> None:
    raise RuntimeError("I/O error: No space left on device (os error 28)")  # as Rust words it


def write_without_a_name(folder: Path) -> None:
    with FULL.open("wb") as file:
        file.write(b"x" * 100_000)


WAYS = [copy_from_the_temporary_folder, write_by_a_library, write_without_a_name]


@pytest.mark.parametrize("way", WAYS)
def test_the_destination_is_named(tmp_path: Path, way: Callable[[Path], None]) -> None:
    out = tmp_path / "not yet there" / "out"
    with pytest.raises(OSError, match="No space left") as caught, naming_full_disk(out):
        way(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(out))


def test_a_file_in_the_destination_keeps_its_name(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    with (
        pytest.raises(OSError, match="No space left") as caught,
        naming_full_disk(tmp_path),
        atomic_path(last),
    ):
        write_without_a_name(tmp_path)
    assert caught.value.filename == str(last)
    assert not list(tmp_path.iterdir())


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(temporary))
    free = {tmp_path: 2**30, temporary: 0}
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: Usage(free[folder]))
    with pytest.raises(OSError, match="No space left") as caught, naming_full_disk(out):
        write_without_a_name(tmp_path)
    assert caught.value.filename == str(temporary)


def test_other_errors_are_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^broken$"), naming_full_disk(tmp_path):
        raise ValueError("broken")
    with pytest.raises(FileNotFoundError), naming_full_disk(tmp_path):
        (tmp_path / "lost").read_bytes()
    write_bytes(tmp_path / "file", b"fine")
