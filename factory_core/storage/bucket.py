"""Where a dataset lies: a folder of this machine, or a bucket. Only this file knows the difference.

A folder of a bucket is a `upath.UPath`, which speaks pathlib: whatever only reads need not care.
Writing whole files or nothing is done in two ways:

local       a temporary name beside the file, flushed to disk, renamed
bucket      a finished temporary file of this machine, put as one object: a store shows an object
            when all of it has arrived, never a part

A bucket is asked as little as possible, because every question is a round trip: one listing tells
names, sizes and times of a whole folder, and many small objects are read at once.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

TEMPORARY_PREFIX = ".tmp-"

# scheme -> (package that speaks it, extra of this project that installs it)
SCHEMES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "memory": ("fsspec", "")}
CLIENTS = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google")  # whose errors are told
READ_AHEAD = 4  # files fetched while one is used
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # or the user's share of it


# --- places ----------------------------------------------------------------------------------


def location(place: str | Path) -> Path:
    """A folder or file: a plain path, or a `UPath` for `s3://`, `gs://` and `memory://`.

    Raises ValueError for another scheme or without a bucket, ImportError if the package that
    speaks the scheme is not installed.
    """
    if not isinstance(place, str):
        return place
    scheme, separator, rest = place.partition("://")
    if not separator:
        return Path(place)
    parts = [part for part in rest.split("/") if part]
    if scheme not in SCHEMES or not parts:
        raise ValueError(
            f"{place}: expected a folder of this machine, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER"
            " or memory://FOLDER"
        )
    package, extra = SCHEMES[scheme]
    try:
        import fsspec
        from upath import UPath

        fsspec.get_filesystem_class(scheme)
    except ImportError:
        raise ImportError(
            f"{place}: found no package {package}: pip install 'dataset-factory[{extra}]'"
        ) from None
    # Other processes write there too: a listing that was kept would hide what they did.
    return cast(Path, UPath(f"{scheme}://{'/'.join(parts)}", use_listings_cache=False))


def is_remote(path: Path) -> bool:
    """Whether `path` lies in a bucket (or in `memory://`)."""
    return not isinstance(path, Path)


def is_shared(path: Path) -> bool:
    """Whether other processes see what is written to `path`."""
    return not is_remote(path) or cast(Any, path).protocol != "memory"


def reopened(path: Path) -> Path:
    """The same place without its connection, which a forked process must not share."""
    return location(str(path)) if is_remote(path) else path


def check_reachable(folder: Path) -> None:
    """Raise OSError of one line unless the bucket of `folder` is there and lets us in."""
    if not is_remote(folder):
        return
    store = cast(Any, folder)
    bucket = store.path.strip("/").split("/")[0]
    if store.protocol == "memory":  # needs none
        return
    with one_line(folder):
        try:
            store.fs.ls(store.path, detail=False, refresh=True)
        except FileNotFoundError:
            # An empty folder is no different from one that is not there, a bucket is.
            if not store.fs.exists(bucket):
                raise FileNotFoundError(
                    f"{folder}: there is no bucket {bucket}: make it, or correct its name"
                ) from None


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Whatever a store's client raises comes out as an OSError of one line that names `path`.

    Errors of files that are not there, or are there already, pass; so do all of this machine.
    """
    if not is_remote(path):
        yield
        return
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except PermissionError as error:
        reason = _first_line(error)
        raise PermissionError(f"{path}: access denied ({reason}): check the credentials") from None
    except Exception as error:
        is_client = type(error).__module__.partition(".")[0] in CLIENTS
        is_full = isinstance(error, OSError) and error.errno in DISK_FULL  # this machine's
        if is_full or not (is_client or isinstance(error, OSError)):
            raise
        raise OSError(
            f"{path}: the store does not answer as expected ({_first_line(error)}): check"
            " credentials, endpoint and network"
        ) from None


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- listing, reading ------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A file of a folder: name, bytes, and when it was written (seconds of the epoch)."""

    name: str
    size: int
    mtime: float


def list_files(folder: Path) -> list[Entry]:
    """Files in `folder` (not in its sub-folders) by name; none if it does not exist."""
    try:
        entries = _list_bucket(folder) if is_remote(folder) else _list_disk(folder)
    except FileNotFoundError:
        return []
    return sorted(entries, key=lambda entry: entry.name)


def _list_disk(folder: Path) -> list[Entry]:
    entries = []
    with os.scandir(folder) as found:
        for file in found:
            with suppress(FileNotFoundError):  # gone since
                stat = file.stat()
                if file.is_file():
                    entries.append(Entry(file.name, stat.st_size, stat.st_mtime))
    return entries


def _list_bucket(folder: Path) -> list[Entry]:
    store = cast(Any, folder)
    with one_line(folder):
        infos = store.fs.ls(store.path, detail=True, refresh=True)
    return [
        Entry(info["name"].rsplit("/", 1)[-1], int(info["size"]), _modified(info))
        for info in infos
        if info["type"] == "file"
    ]


def _modified(info: dict[str, Any]) -> float:
    """When an object was written, under the names that s3fs, gcsfs and fsspec's memory use."""
    found = next(info[key] for key in ("LastModified", "mtime", "created") if key in info)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return float(found.timestamp() if isinstance(found, datetime) else found)


def modified(path: Path) -> float:
    """When an object of a bucket was written (seconds of the epoch, by the store's clock)."""
    store = cast(Any, path)
    with one_line(path):
        return _modified(store.fs.info(store.path))


def read_bytes(path: Path) -> bytes:
    """Contents of a small file as they are now, even if it is being replaced."""
    if not is_remote(path):
        return path.read_bytes()
    store = cast(Any, path)
    with one_line(path):
        return store.fs.cat_file(store.path)


def read_many(folder: Path, entries: Sequence[Entry]) -> dict[str, bytes]:
    """Contents of small files of `list_files(folder)` by name, without those gone since.

    Those of a bucket are read at once.
    """
    contents: dict[str, bytes] = {}
    if is_remote(folder):
        store = cast(Any, folder)
        paths = [f"{store.path}/{entry.name}" for entry in entries]
        # With the size given, a store need not be asked for it first.
        sizes = [entry.size for entry in entries]
        with one_line(folder):
            found = store.fs.cat_ranges(paths, [0] * len(paths), sizes, on_error="return")
            for entry, content in zip(entries, found, strict=True):
                if isinstance(content, bytes):
                    contents[entry.name] = content
                elif entry.size and not isinstance(content, FileNotFoundError):
                    raise content
        return contents
    for entry in entries:
        with suppress(FileNotFoundError):
            contents[entry.name] = (folder / entry.name).read_bytes()
    return contents


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """`path` itself, or a temporary copy of it here; missing there, it is missing here."""
    if not is_remote(path):
        yield path
        return
    copy = _temporary(path)
    try:
        _fetch(path, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def local_copies(paths: Sequence[Path]) -> Iterator[Path]:
    """`local_copy` of each, there until the next is asked for; some are fetched ahead."""
    if not any(map(is_remote, paths)):
        yield from paths
        return
    with (
        tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder,
        ThreadPoolExecutor(READ_AHEAD) as pool,
    ):
        copies = [Path(folder) / f"{i}-{path.name}" for i, path in enumerate(paths)]
        to_fetch = zip(paths, copies, strict=True)
        fetching = deque(pool.submit(_fetch, *pair) for pair in islice(to_fetch, READ_AHEAD))
        try:
            for copy in copies:
                fetching.popleft().result()
                fetching.extend(pool.submit(_fetch, *pair) for pair in islice(to_fetch, 1))
                yield copy
                copy.unlink(missing_ok=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _temporary(path: Path) -> Path:
    name = f"{TEMPORARY_PREFIX}{path.name}-{uuid.uuid4().hex[:12]}"
    return Path(tempfile.gettempdir()) / name


def _fetch(path: Path, copy: Path) -> None:
    store = cast(Any, path)
    with one_line(path):
        try:
            store.fs.get_file(store.path, str(copy))
        except FileNotFoundError:
            copy.unlink(missing_ok=True)


# --- writing ---------------------------------------------------------------------------------


class MeasuredFile(io.BufferedWriter):
    """A new file, written from start to end, that knows what was written to it.

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
        """Of all that was written, in hexadecimal."""
        return self._sha256.hexdigest()


@contextmanager
def atomic_file(path: Path, sync_name: bool = True) -> Iterator[MeasuredFile]:
    """Open a temporary file for writing; on success it becomes `path`, whole and for good.

    `sync_name=False` is for what another file of the folder, written next, vouches for: that
    file's name takes this one's to disk along. On any exception, KeyboardInterrupt too, the
    temporary is removed and `path` is as before.
    """
    # The random part lets two workers that were given the same shard write it at once.
    temporary = _temporary(path)
    if not is_remote(path):
        temporary = path.with_name(temporary.name)
    try:
        with MeasuredFile(temporary) as file:
            yield file
            file.flush()
            if not is_remote(path):
                os.fsync(file.fileno())
        if is_remote(path):
            _put(temporary, path)
        else:
            os.replace(temporary, path)
            if sync_name:
                _sync_names(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _put(temporary: Path, path: Path) -> None:
    store = cast(Any, path)
    with one_line(path):
        store.fs.put_file(str(temporary), store.path)
    temporary.unlink()


def _sync_names(folder: Path) -> None:
    """Have the renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    if is_remote(path):
        store = cast(Any, path)
        with one_line(path):
            store.fs.pipe_file(store.path, data)
        return
    with atomic_file(path) as file:
        file.write(data)


def create_bytes(path: Path, data: bytes) -> bool:
    """Write `data` to `path` in a bucket unless something is there; returns whether it was not."""
    store = cast(Any, path)
    try:
        with one_line(path):
            store.fs.pipe_file(store.path, data, mode="create")
    except FileExistsError:
        return False
    return True


def make_folder(folder: Path) -> None:
    """Make `folder`, and what it lies in; a bucket has none, only names with slashes."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove `folder` with all that is in it, as far as that is possible."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    store = cast(Any, folder)
    with one_line(folder):
        try:
            store.fs.rm(store.path, recursive=True)
        except FileNotFoundError:
            return
