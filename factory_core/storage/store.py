"""A folder of complete files, on this machine or in a bucket.

Two classes implement `Store`: `DiskStore` and `BucketStore`. The rest of the program uses either
through the protocol in this file. A `Store` is small and can be pickled, so it travels to workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from factory_core.storage.files import MeasuredFile


@dataclass(frozen=True)
class Entry:
    """A file in a folder: its name, size in bytes, and when it was written (epoch seconds)."""

    name: str
    size: int
    mtime: float


class Store(Protocol):
    """A folder. Every `name` is that of a file directly in it; `store / name` is a sub-folder.

    A file appears under its name only when all of it has been written. Apart from
    FileNotFoundError and FileExistsError, every failure is a one-line OSError that names the place.
    `str(store)` is the path or URL, for messages.
    """

    @property
    def is_remote(self) -> bool:
        """Whether files are objects of a bucket, which the store itself keeps intact."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes see what is written here."""
        ...

    def __truediv__(self, name: str) -> Store: ...

    def resolve(self) -> Store:
        """The same folder by a name that holds in any process and working directory."""
        ...

    def check(self) -> None:
        """Raise OSError unless the folder's bucket exists and can be listed; a disk always can."""
        ...

    def is_folder(self) -> bool:
        """Whether the folder exists; in a bucket, whether it holds anything."""
        ...

    def obstacle(self) -> str | None:
        """A file at the folder's path or above it, which prevents its creation; else None."""
        ...

    def names(self) -> list[str]:
        """Names of the files and folders in it, sorted; empty if it does not exist."""
        ...

    def entries(self) -> list[Entry]:
        """The files in it, by name; empty if it does not exist."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def entry(self, name: str) -> Entry:
        """Size and time of a file; raises FileNotFoundError."""
        ...

    def read(self, name: str) -> bytes:
        """The current content of a small file, even while it is being replaced."""
        ...

    def read_many(self, entries: Sequence[Entry]) -> dict[str, bytes]:
        """Contents of small files by name, without those deleted since `entries` was listed."""
        ...

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file opened for reading; failures inside the context are as in `Store`."""
        ...

    def errors(self, name: str) -> AbstractContextManager[None]:
        """A context in which failures of a file that was opened elsewhere are as in `Store`."""
        ...

    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """The file itself, or a temporary copy on this machine; absent if the file is absent."""
        ...

    def local_copies(self, names: Sequence[str]) -> Iterator[Path]:
        """`local_copy` of each, valid until the next is requested; some are fetched ahead."""
        ...

    def new_file(self, name: str, sync_name: bool = True) -> AbstractContextManager[MeasuredFile]:
        """A file to write; it appears when the context ends without an exception.

        `sync_name` as in `atomic_path`.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        ...

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as indented JSON, keys in the order given."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless it exists; returns whether it was written."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        ...

    def make(self) -> None:
        """Create the folder and its parents; a bucket has none, only names with slashes."""
        ...

    def remove(self) -> None:
        """Delete the folder and everything in it, as far as possible."""
        ...

    def sweep(self) -> None:
        """Delete the temporaries that interrupted writers left in it."""
        ...
