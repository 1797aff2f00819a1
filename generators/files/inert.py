"""Pickled checkpoints as data. Nothing in them is executed, imported or opened.

A pickle is a program. Two barriers make it harmless: `Machine` runs only opcodes that build plain
values, each in a short time; and the few names that a checkpoint refers to (`GLOBALS`) stand for
inert constructors defined here, whatever they mean elsewhere. Everything else is refused.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from generators.files.machine import Buildable, Inert, Machine, Refused

# Three networks of 1024² take about 100 000 opcodes, the description of a storage 60. More would
# only exhaust the memory, of which an opcode of 1 byte takes up to 100.
MAX_OPCODES, MAX_STORAGE_OPCODES = 1_000_000, 200
MAX_DIMENSIONS = 8  # of a tensor


class PersistentObject(NamedTuple):
    """A module of the network: its class's name and its `__dict__`. Its source code is dropped."""

    class_name: str
    state: dict[str, Any]


class Latin1(NamedTuple):
    """Bytes as protocol 2 writes them: as text. Encoded where they are used, as calls copy."""

    text: str

    def encode(self) -> bytes:
        """The bytes; raises UnicodeEncodeError if the text has none."""
        return self.text.encode("latin1")


class External(NamedTuple):
    """A storage beside the pickle, in a file of `torch.save`."""

    key: str
    dtype: torch.dtype | None  # None: bytes, or a type that no network has
    numel: int

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize if self.dtype else 1


class StoredTensor(NamedTuple):
    """A tensor as a view of a storage, still in the bytes that `torch.save` made of it."""

    blob: bytes | Latin1 | External
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class NumpyType(Buildable):
    """A numpy dtype: its code, such as f4, and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, align: Any, copy: Any):
        self.code, self.order = code, "="

    def build(self, state: Any) -> None:
        self.order = state[1]


def _empty_dictionary() -> dict[str, Any]:
    """EasyDict and OrderedDict. Entries follow as opcodes; those of an argument would be copied."""
    return {}


def _persistent_object(meta: Any) -> PersistentObject:
    if not isinstance(meta, dict) or (meta.get("type"), meta.get("version")) != ("class", 6):
        raise Refused("a persistent object that is not of type 'class', version 6")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise Refused("a persistent object without class_name and state")
    return PersistentObject(name, state)


def _tensor(
    blob: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    metadata: Any = None,
) -> StoredTensor:
    for numbers in (size, stride):
        if type(numbers) is not tuple or len(numbers) > MAX_DIMENSIONS:
            raise Refused("a tensor without a proper size or stride")
    numbers = (offset, *size, *stride)
    stored = type(blob) in (bytes, Latin1, External)
    if not stored or any(type(n) is not int or n < 0 for n in numbers):
        raise Refused("a tensor without a proper storage, offset, size or stride")
    return StoredTensor(blob, offset, size, stride)


def _encode(text: Any, encoding: Any) -> Latin1:
    if type(text) is not str or encoding != "latin1":
        raise Refused("bytes in an unknown encoding")
    return Latin1(text)


def _numpy_scalar(dtype: Any, data: Any) -> float | int | bool:
    formats = {"f2": "e", "f4": "f", "f8": "d", "i4": "i", "i8": "q", "u1": "B", "b1": "?"}
    code = dtype.code if isinstance(dtype, NumpyType) and dtype.order != ">" else None
    data = data.encode() if isinstance(data, Latin1) else data
    if type(code) is not str or code not in formats:
        raise Refused("a numpy scalar of an unknown type")
    return struct.unpack(f"<{formats[code]}", data)[0]


GLOBALS: Mapping[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Inert(_persistent_object),
    ("torch._utils", "_rebuild_tensor_v2"): Inert(_tensor),
    ("torch._utils", "_rebuild_parameter"): Inert(lambda tensor, requires_grad, hooks: tensor),
    ("torch.storage", "_load_from_bytes"): Inert(lambda blob: blob),
    ("collections", "OrderedDict"): Inert(_empty_dictionary),
    ("dnnlib.util", "EasyDict"): Inert(_empty_dictionary),
    ("numpy", "dtype"): Inert(NumpyType),
    ("numpy._core.multiarray", "scalar"): Inert(_numpy_scalar),
    ("numpy.core.multiarray", "scalar"): Inert(_numpy_scalar),
    ("builtins", "set"): Inert(lambda members: members),
    ("__builtin__", "set"): Inert(lambda members: members),  # its name in protocol 2
    ("_codecs", "encode"): Inert(_encode),  # of bytes in protocol 2
}
STORAGE_TYPES: Mapping[tuple[str, str], torch.dtype] = {
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}


def guarded(read: Callable[[], Any]) -> Any:
    """`read()`, with any error of a damaged pickle turned into ValueError."""
    try:
        return read()
    except Refused as error:
        raise ValueError(
            f"refused, and nothing was run: it contains {error}, which no supported file has"
        ) from None
    except Exception as error:  # of a dozen unrelated types
        reason = ascii(" ".join(str(error).split())[:120])[1:-1]
        kind = type(error).__name__
        raise ValueError(
            f"it is damaged or not a checkpoint ({reason or kind}): download or copy it again"
        ) from None


MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the legacy format of torch.save


def _read_storage(blob: bytes) -> Tensor:
    """The storage in a legacy `torch.save` file, as a vector.

    Five pickles (magic number, protocol, system, storage, keys), then the number of elements and
    the data. torch.load would allocate what the file declares before it looks for the data, and
    opens source files that a hostile one may name, even with weights_only=True.
    """
    stream = io.BytesIO(blob)
    magic, protocol, system, description, keys = (
        Machine(names, MAX_STORAGE_OPCODES, external=lambda description: description).run(stream)
        for names in ({}, {}, {}, STORAGE_TYPES, {})
    )
    if (magic, protocol) != (MAGIC, PROTOCOL) or system["little_endian"] is not True:
        raise Refused("a storage of a different format")
    kind, dtype, key, _, declared, view = description
    if kind != "storage" or not isinstance(dtype, torch.dtype) or view is not None:
        raise Refused("a storage of a different kind")
    # Types come first: comparing or printing deeply nested values would take forever.
    if type(key) is not str or keys != [key] or type(declared) is not int:
        raise Refused("a storage without key or size")
    (numel,) = struct.unpack("<q", stream.read(8))
    data = bytearray(stream.read())
    if numel != declared or numel * dtype.itemsize != len(data):
        raise Refused(f"a storage of {numel} or {declared} elements in {len(data)} bytes")
    return torch.frombuffer(data, dtype=dtype) if numel else torch.empty(0, dtype=dtype)


def materialise(stored: StoredTensor) -> Tensor:
    """The tensor that `stored` describes, in its own memory.

    Raises ValueError if it is damaged or reaches beyond its storage.
    """

    def read() -> Tensor:
        blob = stored.blob.encode() if isinstance(stored.blob, Latin1) else stored.blob
        assert isinstance(blob, bytes), "the file of the storage reads an External one"
        return view(stored, _read_storage(blob)).clone()

    return guarded(read)


def view(stored: StoredTensor, storage: Tensor) -> Tensor:
    """The part of `storage` that `stored` describes; raises Refused if it reaches beyond."""
    reach = stored.offset + 1
    reach += sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
    if math.prod(stored.size) and max(reach, math.prod(stored.size)) > len(storage):
        raise Refused(f"a tensor of {reach} elements in a storage of {len(storage)}")
    return storage.as_strided(stored.size, stored.stride, stored.offset)
