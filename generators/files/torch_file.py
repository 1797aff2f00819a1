"""Files of `torch.save`, in both of its formats, and plain pickles, read as data.

`torch.load(weights_only=True)` reads plain state dicts. This reader is for what it refuses: modules
and other objects, and all protocols. See `inert` for what makes it harmless.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators.files.inert import (
    GLOBALS,
    MAGIC,
    MAX_OPCODES,
    MAX_STORAGE_OPCODES,
    PROTOCOL,
    STORAGE_TYPES,
    External,
    StoredTensor,
    guarded,
    materialise,
    view,
)
from generators.files.machine import ClassName, Inert, InertObject, Machine, Names, Refused
from generators.files.survey import HEAD_BYTES, ZIP_HEAD, is_legacy, pickle_member

# Functions that objects in checkpoints are commonly built with; here they only leave a trace.
COMMON = (
    ("collections", "defaultdict"),
    ("collections", "deque"),
    ("collections", "Counter"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("functools", "partial"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib._local", "PosixPath"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("types", "SimpleNamespace"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.torch_version", "TorchVersion"),
)


class Objects(Mapping[tuple[str, str], Any]):
    """`GLOBALS` and storages; every other name is that of a class whose objects are only data."""

    def __init__(self) -> None:
        inert = {key: Inert(lambda *_, key=key: InertObject(".".join(key))) for key in COMMON}
        self.known: Names = {**inert, **GLOBALS, **STORAGE_TYPES}

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: tuple[str, str]) -> Any:
        return self.known.get(name) or ClassName(".".join(name))

    def __iter__(self):
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


STRICT: Names = {**GLOBALS, **STORAGE_TYPES}
OBJECTS: Names = Objects()


class TorchFile:
    """The content of a file; tensors are read when they are asked for.

    Args:
        path: the file.
        names: all that it may refer to: `STRICT`, or `OBJECTS` to read unknown objects as data.

    Raises ValueError in one line if it contains anything else, or is damaged.
    """

    def __init__(self, path: Path, names: Names = OBJECTS):
        self.path, self.names = path, names
        self.storages: dict[str, Tensor] = {}
        self.size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        self.in_zip = head.startswith(ZIP_HEAD)
        if self.in_zip:
            read = self._read_zip
        else:
            read = self._read_legacy if is_legacy(head) else self._read_pickle
        self.value: Any = guarded(read)

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The tensor that `stored` describes; raises ValueError if it is damaged."""
        blob = stored.blob
        if not isinstance(blob, External):
            return materialise(stored)
        return guarded(lambda: view(stored, self._storage(blob)))

    def _machine(self) -> Machine:
        lenient = self.names is OBJECTS
        return Machine(self.names, MAX_OPCODES, external=_external, lenient=lenient)

    def _read_pickle(self) -> Any:
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return self._machine().run(content)

    def _read_zip(self) -> Any:
        with zipfile.ZipFile(self.path) as archive:
            self.folder = pickle_member(archive).removesuffix("data.pkl")
            if f"{self.folder}byteorder" in archive.namelist():
                order = archive.read(f"{self.folder}byteorder")
                if order != b"little":
                    raise Refused("numbers of a different byte order")
            return self._machine().run(io.BytesIO(archive.read(f"{self.folder}data.pkl")))

    def _read_legacy(self) -> Any:
        """Five pickles (magic number, protocol, system, content, keys), then the storages."""
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            magic, protocol, system = (
                Machine({}, MAX_STORAGE_OPCODES).run(content) for _ in range(3)
            )
            if (magic, protocol) != (MAGIC, PROTOCOL) or system["little_endian"] is not True:
                raise Refused("a storage of a different format")
            found: dict[str, External] = {}

            def external(description: Any) -> Any:
                if description[0] == "module":  # a class, with its program
                    return description[1]
                storage = _external(description)
                return found.setdefault(storage.key, storage)

            machine = self._machine()
            machine.external = external
            value = machine.run(content)
            for key in Machine({}, MAX_OPCODES).run(content):
                storage = found[key]
                (numel,) = struct.unpack("<q", content.read(8))
                data = bytearray(content.read(max(0, numel) * storage.dtype.itemsize))
                self.storages[key] = _vector(data, storage)
            return value

    def _storage(self, storage: External) -> Tensor:
        if storage.key not in self.storages and self.in_zip:
            with zipfile.ZipFile(self.path) as archive:
                member = archive.getinfo(f"{self.folder}data/{storage.key}")
                read = sum(t.nbytes for t in self.storages.values())
                if member.compress_type or read + member.file_size > self.size:
                    raise Refused("storages larger than the file")
                self.storages[storage.key] = _vector(bytearray(archive.read(member)), storage)
        return self.storages[storage.key]


def _vector(data: bytearray, storage: External) -> Tensor:
    if len(data) != storage.numel * storage.dtype.itemsize:
        raise Refused(f"a storage of {storage.numel} elements in {len(data)} bytes")
    return torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0)


def _external(description: Any) -> External:
    """A storage by its description: the word storage, its type, key, place, number of elements."""
    kind, dtype, key, _, numel, *_ = description
    if kind != "storage" or not isinstance(dtype, torch.dtype):
        raise Refused("a storage of a different kind")
    if type(key) is not str or type(numel) is not int:
        raise Refused("a storage without key or size")
    return External(key, dtype, numel)
