"""Damage to files, as hypothesis strategies: bytes, JSON values, the members of archives."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import Any

from hypothesis import strategies as st

# Values that formats and programs treat differently from what people expect.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 256, 65536, 2**31, 2**63, -(2**63), 10**30),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "../../x", "\x00", "é", "1", "null"),
    *(
        [],
        {},
        [[]],
        [None],
        {"x": {}},
        "a" * 3000,
        [0] * 300,
        "[1, 2",
        "!!python/object:os.system x",
    ),
)
# Bytes that mean something in the formats read here.
ODD_BYTES = (
    *(b"\x00", b"\xff", b"\x80\x04", b"cos\nsystem\n(S'true'\ntR.", b"PK\x03\x04", b"\x89PNG\r\n"),
    *(
        b"II*\x00",
        b"\xff\xd8\xff",
        b"<!DOCTYPE html>",
        b"\xef\xbb\xbf",
        b"{",
        b"}",
        b'"',
        b"\n",
        b".",
    ),
)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` after one to four changes: cut, overwritten, inserted, removed, repeated."""
    for _ in range(draw(st.integers(1, 4))):
        content = _change(draw, content)
    return content


def _change(draw: st.DrawFn, content: bytes) -> bytes:
    n = len(content)
    # Headers decide most: half of the changes are near the start.
    start = draw(st.integers(0, min(n, 200)) | st.integers(0, n))
    stop = min(n, start + draw(st.sampled_from((1, 2, 4, 8, 64, 1000))))
    how = draw(st.sampled_from(("cut", "flip", "set", "insert", "remove", "repeat", "swap")))
    middle = content[start:stop]
    if how == "cut":
        return content[:start]
    if how == "flip":
        mask = draw(st.integers(1, 255))
        middle = bytes(b ^ mask for b in middle)
    elif how == "set":
        middle = draw(st.sampled_from((b"\x00", b"\xff", b"\x7f", b"\x80"))) * len(middle)
    elif how == "insert":
        middle = draw(st.sampled_from(ODD_BYTES) | st.binary(max_size=8)) + middle
    elif how == "remove":
        middle = b""
    elif how == "repeat":
        middle *= draw(st.integers(2, 4))
    else:
        middle = middle[::-1]
    return content[:start] + middle + content[stop:]


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, renamed or added."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        value = _change_value(draw, value)
    return value


def _change_value(draw: st.DrawFn, value: Any) -> Any:
    """Walk down to a random part and change it."""
    is_leaf = not isinstance(value, dict | list) or not value
    if is_leaf or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(ODD_VALUES))
    if isinstance(value, list):
        i = draw(st.integers(0, len(value) - 1))
        how = draw(st.sampled_from(("walk", "walk", "walk", "remove", "repeat")))
        if how == "remove":
            return value[:i] + value[i + 1 :]
        if how == "repeat":
            return [*value, value[i]]
        return [*value[:i], _change_value(draw, value[i]), *value[i + 1 :]]
    key = draw(st.sampled_from(sorted(value)))
    how = draw(st.sampled_from(("walk", "walk", "walk", "remove", "rename", "add")))
    if how == "remove":
        return {k: v for k, v in value.items() if k != key}
    if how == "rename":
        return {(f"{k}x" if k == key else k): v for k, v in value.items()}
    if how == "add":
        return {**value, "unknown": draw(st.sampled_from(ODD_VALUES))}
    return {**value, key: _change_value(draw, value[key])}


@st.composite
def damaged_text(draw: st.DrawFn, value: Any) -> bytes:
    """A JSON document (which is YAML too) with a damaged value, or with damaged bytes."""
    text = json.dumps(value, indent=1).encode()
    if draw(st.booleans()):
        return draw(damaged_bytes(text))
    text = json.dumps(draw(damaged_json(value)), indent=1).encode(errors="surrogatepass")
    return draw(st.sampled_from((b"", b"\xef\xbb\xbf"))) + text


@st.composite
def damaged_tar(draw: st.DrawFn, content: bytes) -> bytes:
    """A tar with a member damaged, removed, renamed, repeated or turned into a link."""
    if draw(st.booleans()):
        return draw(damaged_bytes(content))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar if m.isfile()]  # type: ignore[union-attr]
    chosen = draw(st.integers(0, len(members) - 1))
    how = draw(st.sampled_from(("damage", "remove", "rename", "repeat", "link")))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for i, (info, data) in enumerate(members):
            if i == chosen and how == "remove":
                continue
            if i == chosen and how == "damage":
                data = draw(damaged_bytes(data))
            if i == chosen and how == "rename":
                info.name = draw(st.sampled_from(("../x.png", "/x", "x", "", "a.b.c.d", "é.json")))
            if i == chosen and how == "link":
                info.type, info.linkname, data = tarfile.SYMTYPE, "/etc/passwd", b""
            info.size = len(data)
            for _ in range(2 if i == chosen and how == "repeat" else 1):
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@st.composite
def damaged_zip(draw: st.DrawFn, content: bytes) -> bytes:
    """A zip archive, such as `torch.save` writes, with a member damaged or removed."""
    if draw(st.booleans()):
        return draw(damaged_bytes(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    # The pickle comes first; the tensors behind it hardly matter.
    chosen = draw(st.sampled_from((0, 0, 0, len(members) - 1)) | st.integers(0, len(members) - 1))
    is_removed = draw(st.integers(0, 4)) == 0
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i, (name, data) in enumerate(members):
            if i == chosen and is_removed:
                continue
            archive.writestr(name, draw(damaged_bytes(data)) if i == chosen else data)
    return out.getvalue()
