"""Images and masks at another size, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:  # imported where used: annotations are converted without it
    import torch

Size = tuple[int, int]


def image_tensor(image: Image.Image, size: Size | None, crop: bool = False) -> torch.Tensor:
    """uint8 `[3, H, W]`, resized to `size` (H, W) by antialiased bicubic.

    `crop` keeps the aspect ratio and crops the longer side equally at both ends.
    """
    import torch

    resized = _resize(image, size, Image.Resampling.BICUBIC, crop)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def mask_tensor(ids: np.ndarray, size: Size | None, crop: bool = False) -> torch.Tensor:
    """uint8 `[H, W]`, resized by nearest neighbour and cropped as `image_tensor` does."""
    import torch

    resized = _resize(Image.fromarray(ids), size, Image.Resampling.NEAREST, crop)
    return torch.from_numpy(np.array(resized))


def wxh(shape: Sequence[int]) -> str:
    """Shape (H, W) as `WxH`."""
    return f"{shape[1]}x{shape[0]}"


def _resize(
    image: Image.Image, size: Size | None, method: Image.Resampling, crop: bool
) -> Image.Image:
    if size is None or image.size == size[::-1]:
        return image
    return ImageOps.fit(image, size[::-1], method) if crop else image.resize(size[::-1], method)
