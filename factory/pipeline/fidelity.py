"""Comparing the images of a dataset with real ones, in the features of their generator."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console

from factory_core.dataset import read_manifest, read_samples
from factory_core.spacing import spaced
from factory_core.storage import Place

if TYPE_CHECKING:
    import numpy as np
    import torch

    from factory.reports.fidelity import Fidelity
    from factory_core.annotated.annotations import ImageFolder
    from generators.base import Encoder

FIDELITY_NAME = "fidelity.json"
FIDELITY_IMAGES = 500  # of each kind: enough for the noise floor, minutes at most on a laptop


def measure_fidelity(
    generator: Encoder | None, dataset: Place, real: ImageFolder, console: Console
) -> Fidelity:
    """Compare a finished dataset with real images, at its size; raises as `fidelity.compare`.

    Without its generator, or with one that has features only of its own images, there are no
    distances of features.
    """
    import numpy as np
    import torch

    from factory.annotation.encoding import encode_batches
    from factory.reports import fidelity
    from generators.base import Projecting

    real.size = read_manifest(dataset).image_size
    real_images = torch.stack([real[i] for i in spaced(len(real), FIDELITY_IMAGES)])
    samples = islice(read_samples(dataset), FIDELITY_IMAGES)
    synthetic = torch.stack([torch.from_numpy(sample.image) for sample in samples])

    if generator is None or isinstance(generator, Projecting):
        why = (
            "found no generator"
            if generator is None
            else "a GAN has features only of its own images"
        )
        console.print(f"no Fréchet distance: {why}")
        return fidelity.compare(synthetic, real_images)

    def pooled(images: torch.Tensor) -> np.ndarray:
        batches = encode_batches(generator, images, console)
        return np.concatenate([features.pooled() for features in batches])

    return fidelity.compare(synthetic, real_images, (pooled(synthetic), pooled(real_images)))
