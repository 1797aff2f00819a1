"""Reading StyleGAN2-ADA pickles as data: nothing in them is executed, imported or opened.

A pickle is a program. Two barriers make it harmless: only opcodes that build plain values pass
`check_opcodes`, with every declared length and memo index bounded by the file; and the few names
that a pickle of this kind refers to (`GLOBALS`) stand for inert constructors defined here, whatever
they mean elsewhere. Everything else is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

# fmt: off
OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES",
    "BINBYTES8", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BINGET",
    "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ",
    "BUILD",
})
# fmt: on
STORAGE_OPCODES = OPCODES | {"BINPERSID"}
# Three networks of 1024² are about 100 000 opcodes, 6000 of them tuples. More only serve to exhaust
# the memory (an opcode of 1 byte makes an object of 64) or, in tuples of tuples, the stack.
MAX_OPCODES, MAX_TUPLES = 1_000_000, 20_000


class Refused(ValueError):
    """What a pickle contains that a StyleGAN2-ADA pickle does not."""


class PersistentObject(NamedTuple):
    """A module of the network: its class's name and its `__dict__`. The program text is dropped."""

    class_name: str
    state: dict[str, Any]


class StoredTensor(NamedTuple):
    """A tensor as a view of a storage, still in the bytes that `torch.save` made of it."""

    blob: bytes
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class PlainDict(dict[Any, Any]):
    """Stands for EasyDict and OrderedDict."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if state:  # old versions of Python note down an empty one
            raise Refused("a dictionary with attributes")


class NumpyType:
    """A numpy dtype: its code, such as f4, and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, align: bool, copy: bool):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class Inert(NamedTuple):
    """A callable that a pickle cannot alter, unlike a function, which has attributes."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


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
    numbers = (offset, *size, *stride)
    if not isinstance(blob, bytes) or any(type(n) is not int or n < 0 for n in numbers):
        raise Refused("a tensor without a proper storage, offset, size or stride")
    return StoredTensor(blob, offset, tuple(size), tuple(stride))


def _numpy_scalar(dtype: Any, data: Any) -> float | int | bool:
    formats = {"f2": "e", "f4": "f", "f8": "d", "i4": "i", "i8": "q", "u1": "B", "b1": "?"}
    if not isinstance(dtype, NumpyType) or dtype.code not in formats or dtype.order == ">":
        raise Refused("a numpy scalar of an unknown type")
    return struct.unpack(f"<{formats[dtype.code]}", data)[0]


GLOBALS: Mapping[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Inert(_persistent_object),
    ("torch._utils", "_rebuild_tensor_v2"): Inert(_tensor),
    ("torch._utils", "_rebuild_parameter"): Inert(lambda tensor, requires_grad, hooks: tensor),
    ("torch.storage", "_load_from_bytes"): Inert(lambda blob: blob),
    ("collections", "OrderedDict"): PlainDict,
    ("dnnlib.util", "EasyDict"): PlainDict,
    ("numpy", "dtype"): Inert(NumpyType),
    ("numpy._core.multiarray", "scalar"): Inert(_numpy_scalar),
    ("numpy.core.multiarray", "scalar"): Inert(_numpy_scalar),
    ("builtins", "set"): set,
}
STORAGE_TYPES: Mapping[tuple[str, str], torch.dtype] = {
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "BoolStorage"): torch.bool,
}


class _Unpickler(pickle.Unpickler):
    """Resolves a pickle's names from a fixed table, in protocols 0 to 5 alike."""

    def __init__(self, stream: io.BytesIO, names: Mapping[tuple[str, str], Any]):
        super().__init__(stream)
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        _check_name(module, name, self._names)
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        return pid  # only where BINPERSID passes `check_opcodes`: the description of a storage


def _check_name(module: str, name: str, names: Mapping[tuple[str, str], Any]) -> None:
    if (module, name) not in names:  # as a pair: "collections", "OrderedDict.x" is another name
        raise Refused(f"the name {f'{module}.{name}'[:80]!r}")


def check_opcodes(
    stream: io.BytesIO, opcodes: frozenset[str], names: Mapping[tuple[str, str], Any]
) -> None:
    """Walk through one pickle without building anything and leave `stream` where it was.

    Raises:
        Refused: an opcode or a name that is not allowed, or memo indices or counts out of bounds.
        ValueError: the file ends early, or declares more bytes than it has.
    """
    start = stream.tell()
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            _check_name(module, name, names)
        if opcode.name not in opcodes:
            raise Refused(f"the opcode {opcode.name}")
        # Python numbers what it memorises; a far index would make a table of that length.
        if opcode.name.endswith("BINPUT") and int(argument or 0) > count:
            raise Refused(f"memo index {argument}")
        tuples += opcode.name.startswith("TUPLE")
        if count > MAX_OPCODES or tuples > MAX_TUPLES:
            raise Refused(f"more than {MAX_OPCODES} opcodes or {MAX_TUPLES} tuples")
    stream.seek(start)


def read_pickle(content: bytes) -> Any:
    """The values in a StyleGAN2-ADA pickle; modules and tensors as inert descriptions.

    Raises ValueError, in one line, for anything that such a pickle does not contain.
    """
    return _guarded(lambda: _read(io.BytesIO(content), OPCODES, GLOBALS))


def _guarded(read: Callable[[], Any]) -> Any:
    """`read()`, with whatever a damaged pickle raises turned into ValueError."""
    try:
        return read()
    except Refused as error:
        raise ValueError(f"refused: it contains {error}, which no StyleGAN2-ADA file has") from None
    except Exception as error:  # the unpickler raises a dozen unrelated types
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"it is damaged or no pickle ({reason or type(error).__name__})") from None


def _read(stream: io.BytesIO, opcodes: frozenset[str], names: Mapping[tuple[str, str], Any]) -> Any:
    check_opcodes(stream, opcodes, names)
    return _Unpickler(stream, names).load()


MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the legacy format of torch.save


def _read_storage(blob: bytes) -> Tensor:
    """The storage in a legacy `torch.save` of one, as a vector.

    Five pickles (magic number, protocol, system, storage, keys), then the number of elements and
    the data. torch.load would allocate what the file declares before it looks for the data, and
    opens source files that a hostile one may name, even with weights_only=True.
    """
    stream = io.BytesIO(blob)
    header = [_read(stream, STORAGE_OPCODES, dtypes) for dtypes in ({}, {}, {}, STORAGE_TYPES, {})]
    magic, protocol, system, description, keys = header
    if (magic, protocol) != (MAGIC, PROTOCOL) or system["little_endian"] is not True:
        raise Refused("a storage of another format")
    kind, dtype, key, _, declared, view = description
    if kind != "storage" or not isinstance(dtype, torch.dtype) or keys != [key] or view is not None:
        raise Refused("a storage of another kind")
    (numel,) = struct.unpack("<q", stream.read(8))
    data = bytearray(stream.read())
    if numel != declared or numel * dtype.itemsize != len(data):
        raise Refused(f"a storage of {numel} or {declared} elements in {len(data)} bytes")
    return torch.frombuffer(data, dtype=dtype) if numel else torch.empty(0, dtype=dtype)


def materialise(stored: StoredTensor) -> Tensor:
    """The tensor that `stored` describes, with a memory of its own.

    Raises ValueError if it is damaged or reaches beyond its storage.
    """

    def read() -> Tensor:
        storage = _read_storage(stored.blob)
        reach = stored.offset + 1
        reach += sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
        if math.prod(stored.size) and max(reach, math.prod(stored.size)) > len(storage):
            raise Refused(f"a tensor of {reach} elements in a storage of {len(storage)}")
        return storage.as_strided(stored.size, stored.stride, stored.offset).clone()

    return _guarded(read)
