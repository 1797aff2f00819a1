"""Adaptive discriminator augmentation (Karras et al. 2020b), for GANs trained on few images.

Both real and generated images are distorted before the discriminator sees them, each distortion
with probability p. Below about 0.8 the generator still learns the undistorted images (Sec. 2.2 of
the paper). p grows while the discriminator is too sure about real images, and shrinks otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from factory_core.device import send

P_MAX = 0.8  # beyond, distortions leak into the generated images


def differentiable_distortions() -> list[Callable[[Tensor], Tensor]]:
    """Random maps of images in [0, 1], drawn from torch's global stream."""
    try:
        import kornia.augmentation as K
    except ImportError:
        raise ImportError(
            "training a GAN needs kornia: pip install 'dataset-factory[gan]', or set ada_target=0 "
            "to train without augmentation"
        ) from None
    wide = (2**-0.5, 2**0.5)
    return [
        K.RandomHorizontalFlip(p=0.5),
        K.RandomRotation90(times=(0, 3), p=1.0),
        K.RandomAffine(
            degrees=180.0,
            translate=(0.125, 0.125),
            scale=(*wide, *wide),
            padding_mode="reflection",
            p=1.0,
        ),
        # Unclipped: clipping would hide values out of range from the generator.
        K.RandomBrightness(brightness=(0.8, 1.2), clip_output=False, p=1.0),
        K.RandomContrast(contrast=(0.5, 2.0), clip_output=False, p=1.0),
    ]


class AdaptiveAugment(nn.Module):
    """Distorts images and adapts how many of them; p is part of its state.

    `applied_p` is the value of p that is in use: reading p waits for the GPU, so it is taken over
    by `apply_p` now and then. Between two looks it moves by a fraction of a per cent.
    """

    p: Tensor

    def __init__(self, target: float, images_to_full: float):
        """`target` is that of E[sign D(real)]; p can grow from 0 to 1 in `images_to_full` images.

        Raises ImportError, with what to do, if kornia is missing and `target` is not 0.
        """
        super().__init__()
        self.target, self.images_to_full = target, images_to_full
        self.distortions = differentiable_distortions() if target else []
        self.register_buffer("p", torch.zeros(()))
        self.applied_p = 0.0

    def apply_p(self) -> None:
        """Distort a share p of the images from now on."""
        self.applied_p = float(self.p)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[N, 3, H, W]` in [-1, 1], each distortion applied to a share p of them."""
        if self.applied_p == 0:
            return images
        x = (images + 1) / 2
        for distort in self.distortions:
            chosen = send((torch.rand(len(x)) < self.applied_p).nonzero().squeeze(1), x.device)
            if len(chosen):
                x = x.index_copy(0, chosen, distort(x[chosen]))
        return x * 2 - 1

    @torch.no_grad()
    def adapt(self, real_logits: Tensor) -> None:
        """Move p a little, by the share of real images that the discriminator recognised."""
        if self.target:
            sign = torch.sign(real_logits.sign().mean() - self.target)
            self.p.add_(sign * len(real_logits) / self.images_to_full).clamp_(0, P_MAX)
