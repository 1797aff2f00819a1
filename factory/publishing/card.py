"""README.md of a dataset, in the form of the hub's dataset cards: a YAML head, then Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from factory.publishing.licences import OTHER
from factory.publishing.origin import Origin
from factory_core.dataset import PREVIEW_NAME, SAMPLES_NAME, SHARDS_DIR, Manifest

CARD_NAME = "README.md"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>|#"})


@dataclass(frozen=True)
class Publication:
    """What only the publisher knows: title, licence, and the link of a licence `other`."""

    title: str
    licence: str
    link: str | None = None

    @property
    def licence_text(self) -> str:
        """The licence for programs that know no identifier `other`: then the link."""
        return self.link or self.licence


def description(manifest: Manifest, origin: Origin) -> str:
    """The dataset in one sentence."""
    height, width = manifest.image_size
    made = "images made by a generative model" if origin.is_generated else "photographs"
    return (
        f"{manifest.totals.kept} {made}, {width}x{height} pixels, with a mask of "
        f"{len(manifest.classes)} classes for each, labelled by a model that was trained on a few "
        "annotated images."
    )


def card(manifest: Manifest, about: Publication, origin: Origin, version: str) -> str:
    """The text of README.md; `version` is that of this program."""
    head = yaml.safe_dump(
        _head(manifest, about, origin), sort_keys=False, allow_unicode=True, width=100
    )
    parts = [
        f"---\n{head}---",
        f"# {_plain(about.title)}",
        description(manifest, origin),
        f"![Samples with their masks, the most and the least certain]({PREVIEW_NAME})",
        "## Classes",
        _classes(manifest),
        "## Reading it",
        _reading(manifest),
        "## How it was made",
        _making(manifest, origin, version),
        "## Limits",
        _limits(manifest, origin),
        "## Licence",
        _licence(about, origin),
    ]
    return "\n\n".join(parts) + "\n"


def _head(manifest: Manifest, about: Publication, origin: Origin) -> dict[str, Any]:
    licence: dict[str, Any] = {"license": about.licence}
    if about.licence == OTHER:
        licence |= {"license_name": "other", "license_link": about.link}
    kept = manifest.totals.kept
    size = next((name for limit, name in SIZES if kept < limit), "n>1M")
    return {
        **licence,
        "pretty_name": about.title,
        "task_categories": ["image-segmentation"],
        "task_ids": ["semantic-segmentation"],
        "annotations_creators": ["machine-generated"],
        "size_categories": [size],
        "tags": [*(["synthetic"] if origin.is_generated else []), "webdataset", "croissant"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": f"{SHARDS_DIR}/*.tar"}],
            }
        ],
    }


def _classes(manifest: Manifest) -> str:
    pixels, colours = manifest.totals.class_pixels, manifest.palette
    total = max(sum(pixels), 1)
    rows = [
        f"| {i} | {_plain(name)} | {100 * count / total:.2f} % | `#{r:02x}{g:02x}{b:02x}` |"
        for i, (name, count, (r, g, b)) in enumerate(
            zip(manifest.classes, pixels, colours, strict=True)
        )
    ]
    return "\n".join(
        ["| id | class | of the pixels | colour |", "| --- | --- | --- | --- |", *rows]
    )


def _reading(manifest: Manifest) -> str:
    suffix = manifest.image_format
    return f"""Webdataset shards: `KEY.{suffix}` is the image, `KEY.seg.png` its mask (8-bit class \
ids, 255 = ignore; the palette is for viewers only), `KEY.json` the index, the uncertainty in nats \
and the pixels of each class. `{SAMPLES_NAME}` has a row per candidate, dropped ones too.

```python
import numpy as np
from datasets import load_dataset

data = load_dataset("webdataset", data_files="{SHARDS_DIR}/*.tar", split="train")
image, mask = data[0]["{suffix}"], np.asarray(data[0]["seg.png"])
```

With the program that made it, from a copy in the folder `data`:

```python
from factory import open_dataset

data = open_dataset("data")
certain = data[data.uncertainty < {_threshold(manifest)}]
```"""


def _threshold(manifest: Manifest) -> str:
    return f"{manifest.uncertainty_threshold / 2:.2g}"


def _making(manifest: Manifest, origin: Origin, version: str) -> str:
    totals = manifest.totals
    facts = [
        ("candidates", f"{totals.candidates}, of which {totals.dropped} were dropped"),
        ("largest uncertainty kept", f"{manifest.uncertainty_threshold:.4g} nats"),
        ("images from", f"{_plain(origin.name)}, sha256 `{origin.sha256}`"),
        ("labeler", f"sha256 `{manifest.weights.get('labeler.weights', 'unknown')}`"),
        ("recipe", f"digest `{manifest.recipe_digest}`, in full in `dataset.json`"),
        ("program", f"dataset-factory {version}"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in facts)])


def _limits(manifest: Manifest, origin: Origin) -> str:
    lines = ["No person has checked the masks: a labeler drew them, and it errs."]
    if origin.is_generated:
        lines.append(
            "The images show nothing real, and inherit what the generator's training images lack. "
            "A generator can repeat its training images; compare before you rely on privacy."
        )
    if manifest.totals.dropped:
        lines.append(
            "The images of which the labeler was least certain were dropped, so hard cases are "
            "rarer than among the candidates."
        )
    return "\n".join(f"- {line}" for line in lines)


def _licence(about: Publication, origin: Origin) -> str:
    text = f"[{about.licence}]({about.link})" if about.link else f"`{about.licence}`"
    source = "generator" if origin.is_generated else "photographs"
    known = f"`{origin.licence}`" if origin.licence else "not recorded"
    terms = "".join(f"; it {term}" for term in origin.forbidden)
    return f"This dataset: {text}. Licence of the {source}: {known}{terms}."


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return " ".join(text.split()).translate(MARKDOWN)
