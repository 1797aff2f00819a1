"""A copy of dataset.json in the footer of samples.parquet: either file can restore the other.

samples.parquet is written after the shards, so its footer can hold all of dataset.json except the
entry for samples.parquet itself.
"""

from __future__ import annotations

import json
from hashlib import sha256

import pyarrow.parquet as pq

from factory_core.dataset.files import MANIFEST_NAME, SAMPLES_NAME
from factory_core.dataset.manifest import FORMAT_VERSION, FileInfo, Manifest, read_manifest
from factory_core.storage import Place, open_store

# In the key-value metadata of the parquet file:
KEY = MANIFEST_NAME.encode()
DIGEST_KEY = b"sha256 of " + KEY


def footer(manifest: Manifest) -> dict[bytes, bytes]:
    """Metadata for the footer of samples.parquet, as `recover_manifest` reads it."""
    content = manifest.model_dump(mode="json", exclude={"samples"})
    text = json.dumps(content, ensure_ascii=False).encode()  # keys in the order of dataset.json
    return {KEY: text, DIGEST_KEY: sha256(text).hexdigest().encode()}


def recover_manifest(folder: Place) -> Manifest | None:
    """The manifest from the footer of samples.parquet in `folder`.

    None if that file is damaged too, or has a different format version. All rows are checked
    against their CRCs, because the sha256 of the file is only in dataset.json.
    """
    try:
        with (
            open_store(folder).local_copy(SAMPLES_NAME) as path,
            pq.ParquetFile(path, page_checksum_verification=True) as rows,
        ):
            metadata = rows.metadata.metadata
            count = sum(len(batch) for batch in rows.iter_batches())
            samples = FileInfo.of(path, count).model_copy(update={"name": SAMPLES_NAME})
        text = metadata[KEY]
        content = json.loads(text)
        is_complete = sha256(text).hexdigest().encode() == metadata[DIGEST_KEY]
        if not is_complete or content["format_version"] != FORMAT_VERSION:
            return None
        return Manifest.model_validate({**content, "samples": samples})
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow raises the first two
        return None


def restore_manifest(folder: Place, manifest: Manifest) -> None:
    """Write dataset.json if the existing one cannot be read."""
    try:
        read_manifest(folder)
    except (OSError, ValueError):
        manifest.write(folder)
