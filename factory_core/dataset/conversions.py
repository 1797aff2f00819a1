"""A `SampleSet` as what other libraries work with; these are imported when asked for."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from factory_core.storage import Store, write_json

if TYPE_CHECKING:
    import datasets
    import fiftyone
    import webdataset

    from factory_core.dataset.sample_set import SampleSet

NUMBERS = ("seg.png", "unc.png", "prob.png")  # members that are not colours
IMAGES_DIR, MASKS_DIR, CLASSES_FILE = "images", "masks", "classes.json"


# --- webdataset ------------------------------------------------------------------------------


def to_webdataset(samples: SampleSet, **options: Any) -> webdataset.WebDataset:
    """The samples as a `WebDataset` of dicts; `options` are its own.

    A dict has the image uint8 `[H, W, 3]` (`png` or `jpg`), class ids uint8 `[H, W]` (`seg.png`),
    `json`, and uint8 levels (`unc.png`, `prob.png`) if the dataset has them. By default, shards
    keep their order and are divided among nodes and loader processes.
    """
    import webdataset as wds

    shards = samples.dataset.shards.resolve()
    settings = {"shardshuffle": False, "nodesplitter": wds.split_by_node, **options}
    data = wds.WebDataset([str(shards / name) for name in samples.shards], **settings)
    # webdataset starts a program for each bucket, has none for S3, and opens no path with a `#`.
    data.pipeline = [
        partial(_open_shards, shards) if isinstance(stage, wds.cache.StreamingOpen) else stage
        for stage in data.pipeline
    ]
    if len(samples) < samples.manifest.totals.kept:
        data = data.select(partial(_is_among, frozenset(samples.keys)))
    numbers = [wds.handle_extension(name, _stored_numbers) for name in NUMBERS]
    return data.decode(*numbers, "rgb8")


def _open_shards(shards: Store, sources: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A stage of webdataset's pipeline: each shard with its stream."""
    for source in sources:
        with shards.open(source["url"].rsplit("/", 1)[-1]) as stream:
            yield {**source, "stream": stream}


def _is_among(keys: frozenset[str], sample: dict[str, Any]) -> bool:
    return sample["__key__"] in keys


def _stored_numbers(encoded: bytes) -> np.ndarray:
    """The numbers in a PNG of one channel, uint8 `[H, W]`; in a palette file, these are ids."""
    return np.array(Image.open(io.BytesIO(encoded)))


# --- Hugging Face datasets -------------------------------------------------------------------


def to_hf(samples: SampleSet) -> datasets.Dataset:
    """The samples as a `datasets.Dataset`: `key`, `image`, `mask`, `uncertainty`, `class_pixels`.

    The pictures stay encoded in its cache and are decoded on access; the mask is a PIL image in
    palette mode, whose numbers are class ids. Raises ImportError with the command that installs
    the library.
    """
    try:
        import datasets
    except ImportError:
        raise ImportError("to_hf needs datasets: pip install 'dataset-factory[hf]'") from None
    features = datasets.Features(
        {
            "key": datasets.Value("string"),
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "uncertainty": datasets.Value("float64"),
            "class_pixels": datasets.List(datasets.Value("int64")),
        }
    )
    return datasets.Dataset.from_generator(
        _hf_rows, features=features, gen_kwargs={"samples": samples}
    )


def _hf_rows(samples: SampleSet) -> Iterator[dict[str, Any]]:
    facts = zip(samples.uncertainty.tolist(), samples.class_pixels.tolist(), strict=True)
    for (key, members), (uncertainty, pixels) in zip(samples.encoded(), facts, strict=True):
        image, mask = _pictures(dict(members), key, samples)
        yield {
            "key": key,
            "image": {"bytes": image, "path": None},
            "mask": {"bytes": mask, "path": None},
            "uncertainty": uncertainty,
            "class_pixels": pixels,
        }


def _pictures(members: dict[str, bytes], key: str, samples: SampleSet) -> tuple[bytes, bytes]:
    return members[f"{key}.{samples.manifest.image_format}"], members[f"{key}.seg.png"]


# --- folders, FiftyOne -----------------------------------------------------------------------


def to_folder(samples: SampleSet, folder: Path) -> None:
    """Write the samples as an annotated folder: `images/`, `masks/` and, last, `classes.json`.

    Every command of the factory that takes an annotated folder reads it. Raises FileExistsError if
    `folder` holds any of them.
    """
    existing = [n for n in (IMAGES_DIR, MASKS_DIR, CLASSES_FILE) if (folder / n).exists()]
    if existing:
        raise FileExistsError(f"{folder} holds {existing[0]}: give the name of a new folder")
    for name in (IMAGES_DIR, MASKS_DIR):
        (folder / name).mkdir(parents=True)
    for key, members in samples.encoded():
        image, mask = _pictures(dict(members), key, samples)
        (folder / _image_name(samples, key)).write_bytes(image)
        (folder / _mask_name(key)).write_bytes(mask)
    classes = {"classes": samples.classes, "palette": samples.manifest.palette}
    write_json(folder / CLASSES_FILE, classes)


def _image_name(samples: SampleSet, key: str) -> str:
    return f"{IMAGES_DIR}/{key}.{samples.manifest.image_format}"


def _mask_name(key: str) -> str:
    return f"{MASKS_DIR}/{key}.png"


def to_fiftyone(samples: SampleSet, folder: Path, name: str | None = None) -> fiftyone.Dataset:
    """The samples as a FiftyOne dataset `name`, whose files are written to `folder`.

    Each has `ground_truth` (its mask), `uncertainty` in nats, and `classes`, those present. Raises
    ImportError with the command that installs FiftyOne, or as `to_folder`.
    """
    try:
        import fiftyone as fo
    except ImportError:
        raise ImportError(
            "to_fiftyone needs FiftyOne: pip install 'dataset-factory[fiftyone]'"
        ) from None
    to_folder(samples, folder)
    data = fo.Dataset(name)
    data.default_mask_targets = dict(enumerate(samples.classes))
    data.add_samples(
        fo.Sample(
            filepath=facts["image"],
            ground_truth=fo.Segmentation(mask_path=facts["mask"]),
            uncertainty=facts["uncertainty"],
            classes=fo.Classifications(
                classifications=[fo.Classification(label=label) for label in facts["classes"]]
            ),
        )
        for facts in described_files(samples, folder)
    )
    return data


def described_files(samples: SampleSet, folder: Path) -> Iterator[dict[str, Any]]:
    """What FiftyOne needs of each sample that `to_folder` wrote.

    `image` and `mask` are absolute paths, `uncertainty` is in nats, `classes` are names.
    """
    present = samples.class_pixels > 0
    names = np.array(samples.classes)
    for key, uncertainty, has in zip(samples.keys, samples.uncertainty, present, strict=True):
        yield {
            "image": str(folder.absolute() / _image_name(samples, key)),
            "mask": str(folder.absolute() / _mask_name(key)),
            "uncertainty": float(uncertainty),
            "classes": names[has].tolist(),
        }
