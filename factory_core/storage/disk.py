"""`Store` on the file system of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from factory_core.storage.files import (
    MeasuredFile,
    atomic_file,
    sweep_temporaries,
    write_bytes,
    write_json,
)
from factory_core.storage.store import Entry


@dataclass(frozen=True)
class DiskStore:
    """The folder `path`; see `Store`."""

    path: Path
    is_remote = False
    is_shared = True

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> DiskStore:
        return DiskStore(self.path / name)

    def resolve(self) -> DiskStore:
        return DiskStore(self.path.resolve())

    def check(self) -> None:
        pass

    def is_folder(self) -> bool:
        return self.path.is_dir()

    def obstacle(self) -> str | None:
        places = (self.path, *self.path.parents)
        return next((str(p) for p in places if p.exists() and not p.is_dir()), None)

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entries(self) -> list[Entry]:
        entries = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path) as found:
            for file in found:
                with suppress(FileNotFoundError):  # deleted since
                    stat = file.stat()
                    if file.is_file():
                        entries.append(Entry(file.name, stat.st_size, stat.st_mtime))
        return sorted(entries, key=lambda entry: entry.name)

    def exists(self, name: str) -> bool:
        return (self.path / name).is_file()

    def entry(self, name: str) -> Entry:
        stat = (self.path / name).stat()
        return Entry(name, stat.st_size, stat.st_mtime)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def read_many(self, entries: Sequence[Entry]) -> dict[str, bytes]:
        contents: dict[str, bytes] = {}
        for entry in entries:
            with suppress(FileNotFoundError):
                contents[entry.name] = self.read(entry.name)
        return contents

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with (self.path / name).open("rb") as file:
            yield file

    def errors(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        yield self._absolute(name)

    def local_copies(self, names: Sequence[str]) -> Iterator[Path]:
        yield from map(self._absolute, names)

    def _absolute(self, name: str) -> Path:
        """For libraries such as pyarrow, which take a relative `run:1/x` for a URL."""
        return self.path.absolute() / name

    def new_file(self, name: str, sync_name: bool = True) -> AbstractContextManager[MeasuredFile]:
        return atomic_file(self.path / name, sync_name)

    def write(self, name: str, data: bytes) -> None:
        write_bytes(self.path / name, data)

    def write_json(self, name: str, value: Any) -> None:
        write_json(self.path / name, value)

    def create(self, name: str, data: bytes) -> bool:
        try:
            with (self.path / name).open("xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> None:
        sweep_temporaries(self.path)
