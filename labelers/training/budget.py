"""The disk and memory that training a labeler needs, computed in advance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from generators.base import FeatureMapSpec
from labelers.config import LabelerConfig, ReferenceTraining
from labelers.training.feature_store import store_bytes


@dataclass(frozen=True)
class Budget:
    """Bytes on disk and in RAM, and `weights`, the number of weights of all members.

    Features are memory-mapped: the system keeps as many in RAM as fit. `working_bytes` is the least
    that training needs, besides the program itself.
    """

    features_bytes: int
    checkpoint_bytes: int
    working_bytes: int
    weights: int

    def __add__(self, other: Budget) -> Budget:
        """The budget of two trainings, one after the other."""
        return Budget(
            self.features_bytes + other.features_bytes,
            self.checkpoint_bytes + other.checkpoint_bytes,
            max(self.working_bytes, other.working_bytes),
            self.weights + other.weights,
        )


def budget(
    spec: Sequence[FeatureMapSpec],
    images: int,
    size: tuple[int, int],
    classes: int,
    config: LabelerConfig,
    dtype: torch.dtype = torch.float32,
) -> Budget:
    """The budget of `fit` on `images` images of `size` (H, W), if it learns from every pixel."""
    widths = [sum(m.channels for m in spec), *config.hidden_for(classes), classes]
    members, batch = config.members, config.training.batch_pixels
    weights = members * sum(i * o + 3 * o for i, o in itertools.pairwise(widths))
    # float32 weights, gradients and Adam's two moments; stopped members are kept apart;
    # in bfloat16 the product has its own weights and gradients.
    copies = 4 + isinstance(config.training, ReferenceTraining)
    state = weights * (4 * copies + (4 if dtype == torch.bfloat16 else 0))
    vectors = members * batch * widths[0] * dtype.itemsize
    layers = members * batch * sum(widths[1:]) * 4 * 6  # linear, ReLU, norm; forward and backward
    pixels = images * size[0] * size[1]
    orders = pixels * (4 * members + 8 + 1)  # int32 per member; numbers int64; labels uint8
    taps = len({(m.height, m.width) for m in spec}) * size[0] * size[1] * 4 * 12
    return Budget(
        features_bytes=store_bytes(spec, images, config.feature_dtype),
        checkpoint_bytes=weights * 4 * (copies - 1),
        working_bytes=state + vectors + layers + orders + taps,
        weights=weights,
    )
