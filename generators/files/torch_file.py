"""Files of `torch.save`, in both of its formats, and plain pickles, read as data.

Tensors stay mapped to the file. `torch.load(weights_only=True)` reads less, namely neither modules
nor other objects, and can be kept busy for years by keys of nested tuples; see `machine`.
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

# Functions that objects in checkpoints are commonly built with, by module. Here they only leave a
# trace: their results are not needed.
COMMON = {
    "collections": ("Counter", "defaultdict", "deque"),
    "datetime": ("datetime", "timedelta"),
    "functools": ("partial",),
    "pathlib": ("PosixPath", "PurePosixPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
    "types": ("SimpleNamespace",),
    "builtins": ("bytearray", "complex", "frozenset", "getattr", "range", "slice"),
    "__builtin__": ("bytearray", "complex", "frozenset", "getattr", "xrange", "slice"),
    "copyreg": ("_reconstructor",),
    "copy_reg": ("_reconstructor",),
    "numpy.core.multiarray": ("_reconstruct",),
    "numpy._core.multiarray": ("_reconstruct",),
    "numpy.random._pickle": ("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy.random.bit_generator": ("__pyx_unpickle_SeedSequence",),
    "torch": ("Size", "device"),
    "torch.serialization": ("_get_layout",),
    "torch.torch_version": ("TorchVersion",),
    "torch._utils": ("_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_tensor_v3"),
}


def _subclass(rebuild: Any, kind: Any, arguments: Any, attributes: Any) -> Any:
    """A tensor with attributes, without them."""
    if not isinstance(rebuild, Inert) or type(arguments) is not tuple:
        raise Refused("a tensor of an unknown kind")
    return rebuild.function(*arguments)


# Tensors and parameters with attributes.
ATTRIBUTED: Names = {
    ("torch._utils", "_rebuild_parameter_with_state"): Inert(lambda tensor, *_: tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): Inert(_subclass),
}
LOCAL_HEADER = 30  # bytes before the name of a member of a zip archive


class Objects(Mapping[tuple[str, str], Any]):
    """`GLOBALS` and storages; every other name is that of a class whose objects are only data."""

    def __init__(self) -> None:
        keys = [(module, name) for module, names in COMMON.items() for name in names]
        inert = {key: Inert(lambda *_, key=key: InertObject(".".join(key))) for key in keys}
        self.known: Names = {**inert, **ATTRIBUTED, **GLOBALS, **STORAGE_TYPES}

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
        with path.open("rb") as file:
            # Private: who writes to a tensor does not write to the file.
            self.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.storages: dict[str, tuple[int, int]] = {}  # position and length in bytes, by key
        head = self.content[:HEAD_BYTES]
        if head.startswith(ZIP_HEAD):
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
        return self._machine().run(self.content)

    def _read_zip(self) -> Any:
        with zipfile.ZipFile(self.path) as archive:
            pickled = pickle_member(archive)
            folder = pickled.removesuffix("data.pkl")
            for member in archive.infolist():
                if member.compress_type:
                    raise Refused("compressed members")
                place = self._place(member)
                if member.filename == pickled:
                    content = self._bytes(place)
                elif member.filename == f"{folder}byteorder" and self._bytes(place) != b"little":
                    raise Refused("numbers of a different byte order")
                elif member.filename.startswith(f"{folder}data/"):
                    self.storages[member.filename.removeprefix(f"{folder}data/")] = place
        return self._machine().run(io.BytesIO(content))

    def _place(self, member: zipfile.ZipInfo) -> tuple[int, int]:
        """Position and length of the data of a member."""
        start = member.header_offset
        name, extra = struct.unpack_from("<HH", self.content, start + LOCAL_HEADER - 4)
        return start + LOCAL_HEADER + name + extra, member.file_size

    def _bytes(self, place: tuple[int, int]) -> bytes:
        start, length = place
        return self.content[start : start + length]

    def _read_legacy(self) -> Any:
        """Five pickles (magic number, protocol, system, content, keys), then the storages."""
        content = self.content
        magic, protocol, system = (Machine({}, MAX_STORAGE_OPCODES).run(content) for _ in range(3))
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
            (numel,) = struct.unpack("<q", content.read(8))
            length = max(0, numel) * found[key].itemsize
            self.storages[key] = content.tell(), length
            content.seek(length, io.SEEK_CUR)  # raises ValueError beyond the end
        return value

    def _storage(self, storage: External) -> Tensor:
        """The storage as a vector."""
        start, length = self.storages[storage.key]
        dtype, itemsize = storage.dtype, storage.itemsize
        if (
            dtype is None
            or length != storage.numel * itemsize
            or start + length > len(self.content)
        ):
            raise Refused(f"a storage of {storage.numel} elements in {length} bytes")
        if not length:
            return torch.empty(0, dtype=dtype)
        if start % itemsize:  # the older format does not align them
            return torch.frombuffer(bytearray(self._bytes((start, length))), dtype=dtype)
        return torch.frombuffer(self.content, dtype=dtype, count=storage.numel, offset=start)


def _external(description: Any) -> External:
    """A storage by its description: the word storage, its type, key, place, number of elements."""
    kind, dtype, key, _, numel, *views = description
    plain = kind == "storage" and all(view is None for view in views)
    if not plain or not isinstance(dtype, torch.dtype | ClassName):
        raise Refused("a storage of a different kind")
    if type(key) is not str or type(numel) is not int:
        raise Refused("a storage without key or size")
    return External(key, dtype if isinstance(dtype, torch.dtype) else None, numel)
