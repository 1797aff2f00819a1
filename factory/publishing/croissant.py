"""croissant.json: what the files of a dataset hold, in the vocabulary of Croissant 1.0."""

from __future__ import annotations

from typing import Any

from factory.publishing.origin import Origin
from factory_core.dataset import SAMPLES_NAME, SHARDS_DIR, Manifest

CROISSANT_NAME = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
# The terms of the standard; complete, so that no program has to fetch them.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
} | {
    term: f"cr:{term}"
    for term in (
        *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty"),
        *("fileObject", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5"),
        *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
        *("samplingRate", "separator", "source", "subField", "transform"),
    )
}
KEY_OF_FILE = r"([0-9]+)\..*"  # the key, from the name of a member


def croissant(
    manifest: Manifest, title: str, description: str, licence: str, origin: Origin
) -> dict[str, Any]:
    """The content of croissant.json; `licence` is an identifier or a link.

    It has no date, so that equal datasets have equal files, and no `url` before it has a page.
    """
    based_on: dict[str, Any] = {"@type": "sc:CreativeWork", "name": origin.name}
    if origin.licence is not None:
        based_on["license"] = origin.licence
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": title,
        "description": description,
        "conformsTo": CONFORMS_TO,
        "license": licence,
        "version": "1.0.0",
        "citeAs": f"{title}, dataset with recipe digest {manifest.recipe_digest}",
        "isBasedOn": based_on,
        "distribution": _files(manifest),
        "recordSet": [_rows(), _images(), _masks(manifest)],
    }


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    shards = [
        _file(f"{SHARDS_DIR}/{shard.name}", "application/x-tar", shard.bytes, shard.sha256)
        for shard in manifest.shards
    ]
    suffix = manifest.image_format
    kinds = (
        ("images", f"[0-9]*[0-9].{suffix}", "image/jpeg" if suffix == "jpg" else "image/png"),
        ("masks", "*.seg.png", "image/png"),
    )
    members = [
        {
            "@type": "cr:FileSet",
            "@id": f"{name}-files",
            "name": f"{name}-files",
            "containedIn": [{"@id": shard["@id"]} for shard in shards],
            "encodingFormat": encoding,
            "includes": pattern,
        }
        for name, pattern, encoding in kinds
    ]
    samples = manifest.samples
    rows = _file(SAMPLES_NAME, "application/x-parquet", samples.bytes, samples.sha256)
    return [*shards, *members, rows]


def _file(path: str, encoding: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _rows() -> dict[str, Any]:
    columns = (
        ("key", "sc:Text", "nine digits; the name of the members of its shard"),
        ("shard", "sc:Text", "the shard that holds it; none if it was dropped"),
        ("uncertainty", "sc:Float", "of the labeler about the image, in nats"),
        ("kept", "sc:Boolean", "whether it is in a shard"),
    )
    fields = [
        {
            **_field("samples", name, kind, description),
            "source": {"fileObject": {"@id": SAMPLES_NAME}, "extract": {"column": name}},
        }
        for name, kind, description in columns
    ]
    return _record_set("samples", "One row per candidate, dropped ones too.", fields)


def _images() -> dict[str, Any]:
    fields = [_key("images"), _content("images", "image", "RGB")]
    return _record_set("images", "The image of each sample that is kept.", fields)


def _masks(manifest: Manifest) -> dict[str, Any]:
    classes = ", ".join(f"{i} {name}" for i, name in enumerate(manifest.classes))
    fields = [
        _key("masks"),
        _content("masks", "mask", f"class ids, one channel: {classes}; 255 ignore"),
    ]
    return _record_set("masks", "The mask of the image with the same key.", fields)


def _key(records: str) -> dict[str, Any]:
    source = _member(records, "filename") | {"transform": {"regex": KEY_OF_FILE}}
    return {**_field(records, "key", "sc:Text", "nine digits"), "source": source}


def _content(records: str, name: str, description: str) -> dict[str, Any]:
    field = _field(records, name, "sc:ImageObject", description)
    return {**field, "source": _member(records, "content")}


def _member(records: str, what: str) -> dict[str, Any]:
    return {"fileSet": {"@id": f"{records}-files"}, "extract": {"fileProperty": what}}


def _field(records: str, name: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{name}",
        "name": name,
        "description": description,
        "dataType": kind,
    }


def _record_set(name: str, description: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/key"},
        "description": description,
        "field": fields,
    }
