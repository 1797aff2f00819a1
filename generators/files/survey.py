"""What a checkpoint mentions: names of its program and its keys, without running or loading it.

Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import json
import mmap
import pickletools
import struct
import zipfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

ZIP_HEAD = b"PK\x03\x04"
# torch.save before version 1.6 wrote several pickles, of which the first is this number.
LEGACY_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
HEAD_BYTES = 32
LEGACY_CONTENT = 3  # the index of the pickle that holds the content
PICKLE_HEADS = tuple(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5))
MAX_OPCODES = 1_000_000
MAX_WORD = 200  # characters of a key
MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, as its format has it
Form = Literal["torch", "pickle", "safetensors", "other"]


@dataclass(frozen=True)
class Survey:
    """What a file is made of. `names` are module.name; `words` are its keys and other short texts.

    Of a damaged file, they are those before the damage.
    """

    form: Form
    names: frozenset[str] = field(default=frozenset())
    words: frozenset[str] = field(default=frozenset())


def survey(path: Path) -> Survey:
    """The survey of a file; it may be of any kind, damaged or hostile."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if head.startswith(ZIP_HEAD):
            return _of_zip(path)
        if head.startswith(PICKLE_HEADS):
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                legacy = is_legacy(head)
                return _of_pickle(content, "torch" if legacy else "pickle", legacy)
        found = _of_safetensors(file)
        is_named = path.suffix == ".safetensors" and found.form == "other"
        return Survey("safetensors") if is_named else found


def is_legacy(head: bytes) -> bool:
    """Whether the first bytes of a file are those that torch.save wrote before version 1.6."""
    return head.startswith(PICKLE_HEADS) and LEGACY_NUMBER in head[:HEAD_BYTES]


def pickle_member(archive: zipfile.ZipFile) -> str:
    """The name of the pickle in a zip archive of torch.save; raises ValueError if it has none."""
    names = [name for name in archive.namelist() if name.count("/") == 1]
    found = [name for name in names if name.endswith("/data.pkl")]
    if len(found) != 1 or archive.getinfo(found[0]).compress_type:
        raise ValueError("a zip archive that torch.save did not write")
    return found[0]


def _of_zip(path: Path) -> Survey:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(pickle_member(archive)) as file:
            return _of_pickle(file, "torch")
    except (ValueError, OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError):
        return Survey("other")


def _of_pickle(file: IO[bytes] | mmap.mmap, form: Form, legacy: bool = False) -> Survey:
    names: set[str] = set()
    words: set[str] = set()
    try:
        for _ in range(LEGACY_CONTENT if legacy else 0):
            deque(itertools.islice(pickletools.genops(file), MAX_OPCODES), maxlen=0)  # type: ignore
        for kind, text in itertools.islice(_texts(file), MAX_OPCODES):
            if kind == "name":
                names.add(text)
            elif len(text) <= MAX_WORD:
                words.add(text)
    except Exception:  # of a dozen types: what was found before the damage is enough
        pass
    return Survey(form, frozenset(names), frozenset(words))


def _texts(file: IO[bytes] | mmap.mmap) -> Iterator[tuple[Literal["name", "word"], str]]:
    """Names and texts in a pickle, in order."""
    memo: dict[int, str] = {}
    last: str | None = None  # the text on top of the stack, if there is one
    recent: deque[str] = deque(maxlen=2)
    opcodes = pickletools.genops(file)  # type: ignore[arg-type]  # an mmap will do
    for opcode, argument, _ in itertools.islice(opcodes, MAX_OPCODES):
        name = opcode.name
        if name == "GLOBAL":
            yield "name", str(argument).replace(" ", ".")
            last = None
        elif name == "STACK_GLOBAL":
            yield "name", ".".join(recent)
            last = None
        elif name == "MEMOIZE" or name.endswith("PUT"):
            index = len(memo) if argument is None else argument
            memo[index] = last if last is not None else ""
        elif name.endswith("GET"):
            assert isinstance(argument, int)
            last = memo.get(argument, "")
            recent.append(last)
        elif isinstance(argument, str):
            last = argument
            recent.append(last)
            yield "word", argument
        else:
            last = None


def _of_safetensors(file: IO[bytes]) -> Survey:
    head = file.read(9)
    if len(head) == 9 and head.endswith(b"{"):
        (length,) = struct.unpack("<Q", head[:8])
        if length < MAX_HEADER_BYTES:
            content = b"{" + file.read(length - 1)
            if len(content) < length:  # cut off
                return Survey("safetensors")
            try:
                header = json.loads(content)
                return Survey("safetensors", words=frozenset(map(str, header)))
            except (ValueError, RecursionError):
                pass
    return Survey("other")
