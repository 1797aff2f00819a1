"""A U-Net of two levels, and images whose colours show their classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from factory_core.segmentation_unet import UNetDescription
from labelers.config import LabelerConfig, NetworkTraining
from labelers.labeler import GeneratorInfo, Labeler
from labelers.network.fit import fit_network

CONFIG = LabelerConfig(
    kind="network",
    min_class_pixels=1,
    network=NetworkTraining(members=2, steps=30, batch_size=4, lr=5e-3, ema=0.9),
)


def toy(seed: int = 0, images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 `[N, 3, 16, 16]`, noisy, and masks of three classes."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.zeros(images, 16, 16, dtype=torch.uint8)
    for i, mask in enumerate(masks):
        mask[2 + i % 4 : 10, 1:7], mask[6:14, 8 + i % 4 :] = 1, 2
    colours = torch.tensor([[40, 60, 70], [200, 80, 60], [60, 90, 210]])
    clean = colours[masks.long()].permute(0, 3, 1, 2)
    noise = torch.randint(-25, 26, clean.shape, generator=rng)
    return (clean + noise).to(torch.uint8), masks


@pytest.fixture(scope="session")
def start() -> UNetDescription:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=4,
            dropout=0.5,  # which must not draw from the global random state
        )
    return UNetDescription(dict(unet.config), unet.state_dict())


@pytest.fixture(scope="session")
def train(start: UNetDescription) -> Callable[..., Labeler]:
    """`train(config, images=..., progress=...)`; by default on `toy()`."""

    def run(config: LabelerConfig = CONFIG, **extra: Any) -> Labeler:
        images, masks = toy()
        return fit_network(
            extra.pop("images", images),
            extra.pop("masks", masks),
            extra.pop("start", start),
            config,
            classes=["background", "left", "right"],
            generator=GeneratorInfo(digest="g" * 64, config={"weights": "here"}),
            data_digest="d" * 64,
            **extra,
        )

    return run


@pytest.fixture(scope="session")
def trained(train: Callable[..., Labeler]) -> Labeler:
    return train()
