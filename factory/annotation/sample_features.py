"""Features of annotated samples, after checking that each image is the sample it is named after.

Training a mask on the features of a different sample would show up only as bad labels, so every
pair is checked twice. First, the file must have the pixels recorded when it was written; renamed,
swapped, re-saved and resized images do not. Second, the generator must reproduce the image.

The second check allows for rounding. Regenerated in bfloat16 instead of float32, or in batches of a
different size, a sample differs by a mean of less than one grey level; different samples of the
same generator differ by ten or more (`python -m benchmarks.regeneration` measures both).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from factory.annotation.samples import IMAGES_DIR, Samples, pixels_sha256
from factory_core.annotated.layouts import SAMPLES_FILE
from factory_core.images import list_images

if TYPE_CHECKING:
    import torch

    from factory_core.annotated.annotations import Annotations
    from generators.base import FeatureMaps, Generator

TOLERANCE_LEVELS = 3.0  # mean absolute difference, of 0 to 255


def match_samples(
    annotations: Annotations, folder: Path, samples: Samples, generator: Generator
) -> Annotations:
    """The `annotations` of `folder` with the sample index of each image.

    Raises ValueError, naming the file, for an image that is not the sample it is named after.
    """
    for stem, image in zip(annotations.stems, annotations.images, strict=True):
        if samples.images.get(stem) != pixels_sha256(image):
            raise ValueError(_mismatch(folder, stem, image, samples, generator))
    return replace(annotations, indices=tuple(int(stem) for stem in annotations.stems))


def features_of_samples(
    annotations: Annotations, rows: range, generator: Generator, folder: Path
) -> FeatureMaps:
    """Features of the annotated samples `rows`, exactly as `generate` will see them.

    Raises ValueError, naming the file, if the generator does not reproduce an image.
    """
    assert annotations.indices is not None
    indices = annotations.indices[rows.start : rows.stop]
    images, features = generator.sample(indices)
    levels = difference(images, annotations.images[rows.start : rows.stop])
    for index, stem, found in zip(indices, annotations.stems[rows.start :], levels, strict=False):
        if found > TOLERANCE_LEVELS:
            raise ValueError(
                f"{_file(folder, stem)}: regenerated, sample {index} has a mean difference of "
                f"{found:.1f} grey levels, expected at most {TOLERANCE_LEVELS:.0f}: "
                f"{SAMPLES_FILE} was changed, or this machine computes differently; sample into a "
                "new folder"
            )
    return features


def difference(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Mean absolute difference per image, in grey levels, of two uint8 `[N, 3, H, W]`."""
    levels = (a.cpu().int() - b.cpu().int()).abs().float().mean(dim=(1, 2, 3))
    return [float(level) for level in levels]


def _mismatch(
    folder: Path, stem: str, image: torch.Tensor, samples: Samples, generator: Generator
) -> str:
    """Why the pixels of an image are not those recorded under its name."""
    file = _file(folder, stem)
    found = pixels_sha256(image)
    other = next((int(key) for key, sha256 in samples.images.items() if sha256 == found), None)
    if stem not in samples.images:
        if other is not None:
            return f"{file} is sample {other}: rename it and its mask to {other:09d}"
        return (
            f"{file} is none of the {len(samples.images)} samples in {SAMPLES_FILE}: expected "
            f"names such as {next(iter(samples.images), '000000000')}; put other annotated images "
            "into a separate folder"
        )
    index = int(stem)
    regenerated = generator.sample_images([index])
    [levels] = difference(regenerated, image[None])
    if other is not None:
        return (
            f"{file} is sample {other}, not {index} (mean difference {levels:.1f} grey levels): "
            "it was renamed or swapped; restore its name and that of its mask"
        )
    return (
        f"{file} is not sample {index} as it was written (mean difference {levels:.1f} grey "
        "levels): it was replaced, changed or re-saved; remove it and rerun `factory sample` "
        "(keep the mask if it was drawn on the sample)"
    )


def _file(folder: Path, stem: str) -> Path:
    return next(path for path in list_images(folder / IMAGES_DIR) if path.stem == stem)
