"""Folders on this machine or in a bucket, in which every file is complete or absent."""

from __future__ import annotations

from pathlib import Path

from factory_core.storage.disk import DiskStore
from factory_core.storage.files import (
    DISK_FULL,
    TEMPORARY_PREFIX,
    MeasuredFile,
    atomic_file,
    atomic_path,
    file_sha256,
    json_bytes,
    naming_full_disk,
    sweep_temporaries,
    write_bytes,
    write_json,
)
from factory_core.storage.store import Entry, Store

__all__ = [
    "DISK_FULL",
    "TEMPORARY_PREFIX",
    "DiskStore",
    "Entry",
    "MeasuredFile",
    "Place",
    "Store",
    "atomic_file",
    "atomic_path",
    "file_sha256",
    "json_bytes",
    "naming_full_disk",
    "open_store",
    "sweep_temporaries",
    "write_bytes",
    "write_json",
]


Place = str | Path | Store  # what `open_store` takes


def open_store(place: Place) -> Store:
    """The folder at a path, or at a URL such as `s3://BUCKET/FOLDER`; a `Store` is returned as is.

    Raises ValueError or ImportError as `BucketStore.of`.
    """
    if isinstance(place, str) and "://" in place:
        from factory_core.storage.bucket import BucketStore

        return BucketStore.of(place)
    if place == "":
        raise ValueError("found an empty path, expected a folder")
    return DiskStore(Path(place).expanduser()) if isinstance(place, str | Path) else place
