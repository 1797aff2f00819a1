"""A factorized diffusion model as a `Generator`: images, their regions, decoder activations.

Its feature maps are those of a plain diffusion model and one more, `regions`: the masks m
`[N, K, H, W]`. Those of a sample are from the sampler's last pass and cost nothing more; those of a
photograph are from a pass at a low noise level (Yuan & Maire 2023: t = 30).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from factory_core.device import send
from generators.base import REGIONS_MAP, FeatureMaps, FeatureMapSpec, batches, check_batch
from generators.colours import makes_grey
from generators.ddpm import samplers
from generators.ddpm.model import DDPMGenerator, to_unit_range
from generators.factorized.config import FactorizedConfig
from generators.factorized.network import FactorizedUNet
from generators.factorized.storage import load
from generators.factorized.walking import FactorizedNetwork


class FactorizedGenerator(DDPMGenerator):
    """Samples images with their regions."""

    config: FactorizedConfig
    network: FactorizedNetwork

    @classmethod
    def load(cls, config: FactorizedConfig, device: str = "auto") -> FactorizedGenerator:  # type: ignore[override]
        """Read the folder that `config` names; raises as `generators.factorized.storage.load`."""
        net, _, schedule, noise = load(Path(config.weights))
        last = schedule.config.num_train_timesteps - 1
        if config.features.region_timestep > last:
            raise ValueError(
                f"generator.features.region_timestep is {config.features.region_timestep}, but the "
                f"noise schedule has 0 to {last}"
            )
        return cls(net, schedule, noise, config, device, is_grey=makes_grey(config.weights))

    def _original(self) -> FactorizedUNet:
        net: Any = load(Path(self.config.weights))[0]
        return net.unet

    def _prepared(self, unet: FactorizedUNet) -> FactorizedNetwork:
        return FactorizedNetwork(unet, self.device, self.dtype, self.config.compile)

    @property
    def regions(self) -> int:
        """K."""
        return self.network.net.regions

    def _sample(
        self, indices: Sequence[int], record_at: Sequence[int] = ()
    ) -> tuple[Tensor, FeatureMaps]:
        images, maps = super()._sample(indices, record_at)
        return images, FeatureMaps({**maps, REGIONS_MAP: self.network.masks})

    def _sample_pass(self, indices: Sequence[int]) -> tuple[Tensor, FeatureMaps]:
        filled, count = self._filled(indices), len(indices)
        record = self.config.features.record
        recorded = self.config.features.timesteps if record == "trajectory" else ()
        images, maps = self._sample(filled, recorded)
        if record == "renoise":
            maps = FeatureMaps({**super()._encode(images, filled), **maps})
        return images[:count], maps.select(slice(count))

    def _encode(self, images: Tensor, indices: Sequence[int]) -> FeatureMaps:
        found = {} if self._regions_only else dict(super()._encode(images, indices))
        return FeatureMaps({**found, REGIONS_MAP: self._find_regions(images)})

    @property
    def _regions_only(self) -> bool:
        return self.config.features.record == "regions"

    @torch.inference_mode()
    def _find_regions(self, images: Tensor, class_ids: Sequence[int] | None = None) -> Tensor:
        """m of images uint8 `[N, 3, H, W]`, the mean over the noises, float32 `[N, K, H, W]`."""
        features, classes = self.config.features, self._class_of_features()
        if class_ids is not None:
            classes = self.network.unet.class_embedding.weight[list(class_ids)]
        t = torch.tensor([features.region_timestep])
        abar = send(self.schedule.alphas_cumprod[t], self.device).view(-1, 1, 1, 1)
        x_0 = to_unit_range(send(images, self.device))
        stream = torch.Generator().manual_seed(features.noise_seed)
        total = torch.zeros(())
        for _ in range(features.region_noises):
            eps = send(torch.randn(1, *x_0.shape[1:], generator=stream), self.device)
            x_t = samplers.q_sample(x_0, eps, abar)
            self.network(x_t, t, classes, to_output=False)
            total = self.network.masks + total
        return total / features.region_noises

    def find_regions(self, images: Tensor, class_ids: Sequence[int] | None = None) -> Tensor:
        """The regions of one batch of photographs uint8 `[N, 3, H, W]`, without other features.

        `class_ids` are those of the images, for a class-conditional network; by default, `class_id`
        of the settings is that of all. Float32 `[N, K, H, W]`, Σ_k m_k = 1. Raises ValueError for
        more than `batch_size`.
        """
        check_batch(len(images), self.batch_size)
        found = []
        for rows in batches(range(len(images)), self.pass_size):
            part = slice(rows.start, rows.stop)
            ids = None if class_ids is None else class_ids[part]
            found.append(self._find_regions(images[part], ids))
        return torch.cat(found)

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        names = ("region_timestep", "region_noises")
        ours = {f"features.{name}": getattr(self.config.features, name) for name in names}
        return {**super().feature_settings, **ours}

    @cached_property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        found = () if self._regions_only else super().feature_spec
        return (*found, FeatureMapSpec(REGIONS_MAP, self.regions, *self.image_size))
