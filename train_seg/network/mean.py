"""The mean of several networks, as one: a deep ensemble (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from factory_core.symmetries import mean_logits
from train_seg.config import SegmenterConfig
from train_seg.network.network import Network, build


class MeanNetwork(torch.nn.Module):
    """Networks of any kind, with the same classes: their class probabilities are averaged."""

    def __init__(self, members: Sequence[Network]):
        super().__init__()
        # ModuleList hides the type of its items.
        self.networks = cast(Sequence[Network], torch.nn.ModuleList(members))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float `[N, K, h, w]` of the mean probabilities, images uint8 `[N, 3, h, w]`."""
        return mean_logits([network(images) for network in self.networks])

    @property
    def normalisation(self) -> dict[str, list[float]]:
        """That of the first network: each applies its own."""
        return self.networks[0].normalisation

    @property
    def input_size(self) -> tuple[int, ...]:
        """(height, width) of the largest input."""
        return max(network.input_size for network in self.networks)


def build_trained(
    configs: Sequence[SegmenterConfig], classes: int, image_size: tuple[int, int]
) -> Network | MeanNetwork:
    """The network of one config, or the mean of those of several, to load weights into.

    Raises ValueError as `build`.
    """
    networks = [build(config, classes, image_size, pretrained=False) for config in configs]
    return networks[0] if len(networks) == 1 else MeanNetwork(networks)
