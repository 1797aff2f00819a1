"""Random changes to a training sample, by torchvision's transforms; the mask follows."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from factory_core.dataset import IGNORE
from train_seg.config import AugmentConfig

GREY = 128  # padding, near the mean of natural images


class QuarterTurn(v2.Transform):
    """Rotate a square image and its mask by 0, 90, 180 or 270 degrees, without interpolation."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number of quarter turns."""
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn one tensor `[..., H, W]`."""
        return tv_tensors.wrap(torch.rot90(inpt, params["turns"], (-2, -1)), like=inpt)


class Augment:
    """Applies `config` to one sample; the same seed gives the same result."""

    def __init__(self, config: AugmentConfig, size: tuple[int, int]):
        """`size` is (height, width).

        Raises:
            ValueError: quarter turns are requested, but the images are not square.
        """
        if config.quarter_turns and size[0] != size[1]:
            raise ValueError(
                f"augment.quarter_turns needs square images, found {size[0]}x{size[1]}: "
                "switch it off, or set image_size"
            )
        steps: list[v2.Transform] = []
        if config.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip())
        if config.vertical_flip:
            steps.append(v2.RandomVerticalFlip())
        if config.quarter_turns:
            steps.append(QuarterTurn())
        if config.scale:
            steps.append(v2.RandomResizedCrop(size, scale=config.scale, antialias=True))
        if config.zoom:
            steps.append(v2.ScaleJitter(size, scale_range=config.zoom, antialias=True))
            fill = {tv_tensors.Image: GREY, tv_tensors.Mask: IGNORE}
            steps.append(v2.RandomCrop(size, pad_if_needed=True, fill=fill))
        strengths = (config.brightness, config.contrast, config.saturation, config.hue)
        if any(strengths):
            steps.append(v2.ColorJitter(*strengths))
        if config.blur:
            kernel = 2 * int(2 * config.blur + 0.5) + 1  # reaches two sigmas on each side
            blur = v2.GaussianBlur(max(3, kernel), sigma=(min(0.1, config.blur), config.blur))
            steps.append(v2.RandomApply([blur]))
        if config.noise:
            steps.append(v2.GaussianNoise(sigma=config.noise))
        self._transform = v2.Compose(steps) if steps else None

    def __call__(
        self, image: torch.Tensor, mask: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change image uint8 `[3, H, W]` and mask uint8 `[H, W]`; the shapes are kept."""
        if self._transform is None:
            return image, mask
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            changed = self._transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return changed[0].as_subclass(torch.Tensor), changed[1].as_subclass(torch.Tensor)
