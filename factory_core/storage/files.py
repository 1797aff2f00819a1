"""Files on this machine, written completely or not at all.

A new file gets a temporary name beside its final one, is flushed to disk, and is renamed. On any
exception, KeyboardInterrupt and a full disk included, the temporary is removed and any existing
file stays unchanged.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".tmp-"
FULL_BYTES = 2**20  # a disk with less free space counts as full
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's share of it


class MeasuredFile(io.BufferedWriter):
    """A new file, written from start to end, that knows the size and sha256 of its content.

    Reading a file back to hash it would cost a pass over the disk, or a download.
    """

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path, "w"))
        self._sha256 = hashlib.sha256()
        self.bytes_written = 0

    def write(self, data: Any) -> int:
        """Append `data`."""
        self._sha256.update(data)
        self.bytes_written += memoryview(data).nbytes
        return super().write(data)

    @property
    def sha256(self) -> str:
        """Digest of everything written so far, in hexadecimal."""
        return self._sha256.hexdigest()


def temporary_name(name: str) -> str:
    """A name that no other writer uses: two workers may write the same shard at once."""
    return f"{TEMPORARY_PREFIX}{name}-{uuid.uuid4().hex[:12]}"


@contextmanager
def atomic_path(path: Path, sync_name: bool = True) -> Iterator[Path]:
    """A temporary path to write to; on success it is renamed to `path`.

    `sync_name=False` skips flushing the folder: for a file that counts only once another one,
    written next in the same folder, is flushed with it. An error of a full disk names `path`.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        with naming_full_disk(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            if sync_name:
                _sync_names(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming_full_disk(place: Path) -> Iterator[None]:
    """Turn any error of a full disk into an OSError that names `place`.

    Libraries name a file of their own in the temporary folder, or none, or raise their own type of
    error. If the temporary folder's disk is the full one, that is named.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in DISK_FULL and os.strerror(errno.ENOSPC) not in str(error):
            raise
        if str(getattr(error, "filename", None) or "").startswith(str(place)):
            raise
        number = number if number in DISK_FULL else errno.ENOSPC
        raise OSError(number, os.strerror(number), str(_full_place(place))) from error


def _full_place(place: Path) -> Path:
    """`place`, or the temporary folder if only the disk of that is full."""
    folder, temporary = place.absolute(), Path(tempfile.gettempdir())
    while not folder.exists():
        folder = folder.parent
    free = [shutil.disk_usage(where).free for where in (folder, temporary)]
    return temporary if free[1] < FULL_BYTES <= free[0] else place


@contextmanager
def atomic_file(path: Path, sync_name: bool = True) -> Iterator[MeasuredFile]:
    """As `atomic_path`, but yields an open file."""
    with atomic_path(path, sync_name) as temporary, MeasuredFile(temporary) as file:
        yield file


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON (keys in the order given) atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Indented JSON of `value`, as every JSON file of this project is written."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def sweep_temporaries(folder: Path) -> None:
    """Remove what interrupted writers left behind in `folder`."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if not path.is_dir():  # which another program may be filling
            path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_names(folder: Path) -> None:
    """Make the renames in `folder` survive a power cut (Windows has no such call)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
