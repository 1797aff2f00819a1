"""Regions of any generator: k-means on the features of its pixels (DatasetDDPM-unsup).

The baseline of Yuan & Maire 2023: features as for the ensemble, standardised, K clusters. The
distance to a centre is affine in the features but for a term that all centres share,

    -|x - c_k|² = 2 c_k·x - |c_k|² - |x|²,

so it is projected at native size and upsampled afterwards, as the first layer of an ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from factory_core.clustering import fit_centres
from generators.base import FeatureMaps, FeatureMapSpec
from labelers.ensemble.classifiers import Tables, group_by_size
from labelers.regions.naming import resized
from labelers.training.pixel_features import CONSTANT, PixelReader

PIXELS = 10_000  # that the centres are fitted on, from all images


@dataclass(frozen=True)
class Clusters:
    """What gives pixels their cluster: `weight` `[K, ΣC_l]` and `bias` `[K]`, float32.

    Channels are in the order of `group_by_size`. Logits of cluster k are -|x - c_k|² over the mean
    squared distance of pixels to their centre, but for what all clusters share.
    """

    spec: tuple[FeatureMapSpec, ...]
    weight: Tensor
    bias: Tensor

    def regions(self, features: FeatureMaps, size: tuple[int, int]) -> Tensor:
        """m float32 `[N, K, H, W]`, Σ_k m_k = 1, on the device of the features."""
        groups = group_by_size(self.spec)
        channels = [m.channels for group in groups.values() for m in group]
        parts = iter(self.weight.split(channels, 1))
        logits = self.bias.view(1, -1, 1, 1)
        for group in groups.values():
            maps = [features[m.name].float() for m in group]
            projected = [torch.einsum("kc,nchw->nkhw", next(parts).to(h.device), h) for h in maps]
            logits = logits.to(maps[0].device) + resized(torch.stack(projected).sum(0), size)
        return logits.softmax(1)

    def state(self) -> dict[str, Tensor]:
        """For `labeler.safetensors`."""
        return {"weight": self.weight, "bias": self.bias}


def pixel_vectors(
    tables: Tables, size: tuple[int, int], images: Sequence[int], count: int, seed: int
) -> Tensor:
    """Features float32 `[count, ΣC_l]` of random pixels of some of the images of `tables`."""
    rng = np.random.default_rng(seed)
    area = size[0] * size[1]
    chosen = rng.choice(len(images) * area, min(count, len(images) * area), replace=False)
    pixels = np.asarray(images)[chosen // area] * area + chosen % area
    return PixelReader(tables, size).gather(torch.from_numpy(pixels))


def fit_clusters(
    vectors: Tensor, spec: Sequence[FeatureMapSpec], clusters: int, seed: int
) -> Clusters:
    """k-means on the vectors of `pixel_vectors`.

    Raises ValueError if there are fewer distinct pixels than clusters.
    """
    variance, mean = torch.var_mean(vectors, 0, correction=0)
    std = variance.sqrt()
    scale = torch.where(std > CONSTANT * mean.abs(), std, 1.0).reciprocal()
    shift = -mean * scale
    x = torch.addcmul(shift, vectors, scale).cpu().numpy()
    try:
        best, inertia = fit_centres(x, clusters, seed)
    except ValueError:
        raise ValueError(
            f"found fewer than {clusters} kinds of pixels: set labeler.clusters lower"
        ) from None
    centres = torch.from_numpy(best).float()
    temperature = max(inertia, float(np.finfo(np.float32).tiny))
    scale, shift = scale.cpu(), shift.cpu()
    return Clusters(
        tuple(spec),
        2 * centres * scale / temperature,
        (2 * centres @ shift - centres.square().sum(1)) / temperature,
    )
