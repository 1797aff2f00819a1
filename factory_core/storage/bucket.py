"""`Store` in a bucket, through fsspec.

A new file is first written to a temporary file on this machine, then uploaded as one object, which
appears only when it is complete. Every request is a round trip, so there are few: one listing gives
names, sizes and times of a whole folder, and many small objects are read at once.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from factory_core.storage.files import (
    DISK_FULL,
    TEMPORARY_PREFIX,
    MeasuredFile,
    json_bytes,
    temporary_name,
)
from factory_core.storage.store import Entry

# Scheme -> (package that implements it, extra of this project that installs it)
SCHEMES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "memory": ("fsspec", "")}
CLIENTS = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google")  # their errors become one line
READ_AHEAD = 4  # files fetched while one is used


@dataclass(frozen=True)
class BucketStore:
    """The folder `url`, such as `s3://BUCKET/FOLDER`; see `Store`."""

    url: str
    is_remote = True

    @classmethod
    def of(cls, url: str) -> BucketStore:
        """The folder at a URL that the user gave.

        Raises ValueError for an unknown scheme or a missing bucket, ImportError if the package that
        implements the scheme is not installed.
        """
        scheme, _, rest = url.partition("://")
        parts = [part for part in rest.split("/") if part]
        if scheme not in SCHEMES or not parts:
            raise ValueError(
                f"{url}: expected a folder on this machine, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER"
                " or memory://FOLDER"
            )
        package, extra = SCHEMES[scheme]
        try:
            import fsspec

            fsspec.get_filesystem_class(scheme)
        except ImportError:
            raise ImportError(
                f"{url}: found no package {package}: pip install 'dataset-factory[{extra}]'"
            ) from None
        return cls(f"{scheme}://{'/'.join(parts)}")

    @property
    def is_shared(self) -> bool:
        return not self.url.startswith("memory:")

    @property
    def _fs(self) -> Any:
        """fsspec's client: one per process, made on first use, never inherited by a fork."""
        import fsspec

        # Other processes write here too: a cached listing would hide their files.
        return fsspec.filesystem(self.url.partition("://")[0], use_listings_cache=False)

    def _key(self, name: str = "") -> str:
        return self._fs._strip_protocol(f"{self.url}/{name}" if name else self.url)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> BucketStore:
        return BucketStore(f"{self.url}/{name}")

    def resolve(self) -> BucketStore:
        return self

    # --- inspecting -----------------------------------------------------------------------------

    def check(self) -> None:
        if not self.is_shared:  # a dictionary of this process
            return
        bucket = self._key().strip("/").split("/")[0]
        with one_line(self.url):
            try:
                self._fs.ls(self._key(), detail=False, refresh=True)
            except FileNotFoundError:
                # An empty folder looks like a missing one, but a bucket does not.
                if not self._fs.exists(bucket):
                    raise FileNotFoundError(
                        f"{self.url}: there is no bucket {bucket}: create it, or correct its name"
                    ) from None

    def is_folder(self) -> bool:
        with one_line(self.url):
            return self._fs.isdir(self._key())

    def obstacle(self) -> str | None:
        # Parent names do not matter: a name may be both an object and a prefix of others.
        with one_line(self.url):
            is_object = self._fs.isfile(self._key()) and not self._fs.isdir(self._key())
        return self.url if is_object else None

    def names(self) -> list[str]:
        return sorted(info["name"].rstrip("/").rsplit("/", 1)[-1] for info in self._listing())

    def entries(self) -> list[Entry]:
        entries = [_entry(info) for info in self._listing() if info["type"] == "file"]
        return sorted(entries, key=lambda entry: entry.name)

    def _listing(self) -> list[dict[str, Any]]:
        with one_line(self.url), suppress(FileNotFoundError):
            return self._fs.ls(self._key(), detail=True, refresh=True)
        return []

    def exists(self, name: str) -> bool:
        with one_line(self / name):
            return self._fs.isfile(self._key(name))

    def entry(self, name: str) -> Entry:
        with one_line(self / name):
            return _entry(self._fs.info(self._key(name)))

    # --- reading --------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        with one_line(self / name):
            return self._fs.cat_file(self._key(name))

    def read_many(self, entries: Sequence[Entry]) -> dict[str, bytes]:
        keys = [self._key(entry.name) for entry in entries]
        sizes = [entry.size for entry in entries]  # known, which saves a request
        contents: dict[str, bytes] = {}
        with one_line(self.url):
            found = self._fs.cat_ranges(keys, [0] * len(keys), sizes, on_error="return")
            for entry, content in zip(entries, found, strict=True):
                if isinstance(content, bytes):
                    contents[entry.name] = content
                elif entry.size and not isinstance(content, FileNotFoundError):
                    raise content
        return contents

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with one_line(self / name), self._fs.open(self._key(name), "rb") as file:
            yield file

    def errors(self, name: str) -> AbstractContextManager[None]:
        return one_line(self / name)

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        copy = Path(tempfile.gettempdir()) / temporary_name(name)
        try:
            self._fetch(name, copy)
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def local_copies(self, names: Sequence[str]) -> Iterator[Path]:
        with (
            tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder,
            ThreadPoolExecutor(READ_AHEAD) as pool,
        ):
            copies = [Path(folder) / f"{i}-{name}" for i, name in enumerate(names)]
            to_fetch = zip(names, copies, strict=True)
            fetching = deque(
                pool.submit(self._fetch, *pair) for pair in islice(to_fetch, READ_AHEAD)
            )
            try:
                for copy in copies:
                    fetching.popleft().result()
                    fetching.extend(pool.submit(self._fetch, *pair) for pair in islice(to_fetch, 1))
                    yield copy
                    copy.unlink(missing_ok=True)
            finally:
                pool.shutdown(cancel_futures=True)

    def _fetch(self, name: str, copy: Path) -> None:
        with one_line(self / name):
            try:
                self._fs.get_file(self._key(name), str(copy))
            except FileNotFoundError:
                copy.unlink(missing_ok=True)

    # --- writing --------------------------------------------------------------------------------

    @contextmanager
    def new_file(self, name: str, sync_name: bool = True) -> Iterator[MeasuredFile]:
        temporary = Path(tempfile.gettempdir()) / temporary_name(name)
        try:
            with MeasuredFile(temporary) as file:
                yield file
            with one_line(self / name):
                self._fs.put_file(str(temporary), self._key(name))
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        with one_line(self / name):
            self._fs.pipe_file(self._key(name), data)

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json_bytes(value))

    def create(self, name: str, data: bytes) -> bool:
        try:
            with one_line(self / name):
                self._fs.pipe_file(self._key(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def delete(self, name: str) -> None:
        with one_line(self / name), suppress(FileNotFoundError):
            self._fs.rm_file(self._key(name))

    def make(self) -> None:
        pass

    def remove(self) -> None:
        with one_line(self.url), suppress(FileNotFoundError):
            self._fs.rm(self._key(), recursive=True)

    def sweep(self) -> None:
        pass  # temporaries are never in a bucket


def _entry(info: dict[str, Any]) -> Entry:
    # The names that s3fs, fsspec's memory and gcsfs use for the time of writing.
    written = next(info[key] for key in ("LastModified", "mtime", "created") if key in info)
    if isinstance(written, str):
        written = datetime.fromisoformat(written)
    mtime = written.timestamp() if isinstance(written, datetime) else written
    return Entry(info["name"].rsplit("/", 1)[-1], int(info["size"]), float(mtime))


@contextmanager
def one_line(place: object) -> Iterator[None]:
    """Turn any error of a bucket's client into a one-line OSError that names `place`.

    Missing and existing files, a full disk on this machine, and bugs pass unchanged.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except PermissionError as error:
        raise PermissionError(
            f"{place}: access denied ({_first_line(error)}): check the credentials"
        ) from None
    except Exception as error:
        is_client = type(error).__module__.partition(".")[0] in CLIENTS
        is_full = isinstance(error, OSError) and error.errno in DISK_FULL
        if is_full or not (is_client or isinstance(error, OSError)):
            raise
        if str(error).startswith(f"{place}: "):  # already converted
            raise
        raise OSError(
            f"{place}: the store does not answer as expected ({_first_line(error)}): check"
            " credentials, endpoint and network"
        ) from None


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
