"""Files of a dataset: their names, deterministic tars, canonical JSON."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from factory_core.storage import Entry, Store

MANIFEST_NAME = "dataset.json"
SAMPLES_NAME = "samples.parquet"
SHARDS_DIR = "shards"
CANDIDATES_DIR = "candidates"  # while the job runs
JOB_NAME = "job.json"  # in that folder: what the job makes
PREVIEW_NAME = "preview.png"
MARKER_SUFFIX = "_stats.json"  # of a finished candidate shard
MARKER_NAME = re.compile(rf"\d{{6,}}{re.escape(MARKER_SUFFIX)}")

Member = tuple[str, bytes]


def canonical_json(value: Any) -> bytes:
    """JSON of `value` with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class TarWriter:
    """Writes a byte-reproducible tar to an open binary file: fixed times, owner and mode."""

    def __init__(self, file: BinaryIO):
        # USTAR: plain 512-byte headers that every reader knows, never PAX records.
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, members: Iterable[Member]) -> None:
        """Append members (name, bytes) in the order given."""
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), 0, 0o644
            info.uname = info.gname = "root"
            self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive; the file itself stays open."""
        self._tar.close()


def read_tar(path: Path) -> Iterator[tuple[str, list[Member]]]:
    """Samples (key, members) of the tar at `path`; see `read_open_tar`."""
    with path.open("rb") as file:
        yield from read_open_tar(file, path)


def read_open_tar(
    file: BinaryIO, name: object, keys: Collection[str] | None = None
) -> Iterator[tuple[str, list[Member]]]:
    """Samples (key, members) of a tar; the key is the member's name up to its first dot.

    With `keys`, the contents of other samples are skipped unread. Raises ValueError naming `name`
    if the tar is damaged.
    """
    key, members = "", list[Member]()
    with _naming(name), tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            if members and info.name.split(".", 1)[0] != key:
                yield key, members
                members = []
            key = info.name.split(".", 1)[0]
            if keys is None or key in keys:
                content = tar.extractfile(info)
                if content is None:
                    raise tarfile.ReadError(f"{info.name} is not a plain file")
                members.append((info.name, content.read()))
    if members:
        yield key, members


Extent = tuple[str, int, int]  # name of a member, offset and number of its bytes in the tar


def tar_index(file: BinaryIO, name: object) -> dict[str, list[Extent]]:
    """Where the members of each sample are in a tar, by key; only headers are read.

    Raises ValueError naming `name` if the tar is damaged.
    """
    index: dict[str, list[Extent]] = {}
    with _naming(name), tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            extent = (info.name, info.offset_data, info.size)
            index.setdefault(info.name.split(".", 1)[0], []).append(extent)
    return index


def read_members(file: BinaryIO, extents: Iterable[Extent], name: object) -> list[Member]:
    """The members at these places of a tar; raises ValueError naming `name` if it ends earlier."""
    members = []
    with _naming(name):
        for member, offset, size in extents:
            file.seek(offset)
            data = file.read(size)
            if len(data) < size:
                raise tarfile.ReadError(f"it is cut off in {member}")
            members.append((member, data))
    return members


@contextmanager
def _naming(name: object) -> Iterator[None]:
    """Turn an error of a damaged tar into a ValueError that names it."""
    try:
        yield
    except tarfile.TarError as error:
        raise ValueError(f"{name} is damaged ({error}): copy it again or regenerate it") from None


def markers(candidates: Store) -> list[Entry]:
    """Completion markers of the shards in a folder of candidates, by shard number."""
    return [entry for entry in candidates.entries() if MARKER_NAME.fullmatch(entry.name)]
