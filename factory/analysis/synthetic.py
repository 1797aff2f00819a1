"""Sets of synthetic images with masks: annotated samples, and samples labelled by a labeler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from factory.analysis.features import FeaturePool
from factory.analysis.sources import cell_name
from factory.analysis.study import Study
from factory.verdict.labels import save_tensors
from factory_core.annotated.annotations import read_annotations
from generators.base import FeatureMaps, Generator, batches


@dataclass(frozen=True)
class SyntheticSet:
    """Images with masks uint8 `[N, H, W]` that a person drew, and the features of the images."""

    name: str
    digest: str
    masks: torch.Tensor
    pool: FeaturePool

    @property
    def variant(self) -> str:
        """The name of its cells."""
        return cell_name(self.name, self.digest)


def synthetic_sets(study: Study) -> list[SyntheticSet]:
    """The folders of annotated samples that were given, with the classes of the study.

    Of a larger folder, as many images are used as the study has annotated ones. Raises ValueError
    or OSError as `read_annotations`.
    """
    sets = []
    for name, place in study.sources.synthetic.items():
        found = read_annotations(place, study.generator.image_size, study.classes, study.pictures)
        most = len(study.masks)
        pool = FeaturePool(
            study.folder / f"synthetic-{name}",
            found.images[:most],
            study.generator,
            study.settings.labeler.feature_dtype,
        )
        sets.append(SyntheticSet(name, found.digest, found.masks[:most], pool))
    return sets


def sample_pool(study: Study, count: int) -> FeaturePool:
    """Samples 0 to `count` - 1 of the generator; sampled once.

    Raises ValueError if there is no generator, only an encoder.
    """
    generator = study.generator
    if not isinstance(generator, Generator):
        raise ValueError("found an encoder, which makes no images: give --generator as well")
    path = study.folder / "samples" / f"images-{count}.safetensors"
    if not path.is_file():
        rows = batches(range(count), generator.batch_size)
        images = torch.cat([generator.sample_images(some).cpu() for some in rows])
        save_tensors(path, {"images": images.contiguous()})

    def encode(rows: range) -> FeatureMaps:
        return generator.sample(rows)[1]

    images = load_file(path)["images"]
    dtype = study.settings.labeler.feature_dtype
    return FeaturePool(path.parent / str(count), images, generator, dtype, encode=encode)
