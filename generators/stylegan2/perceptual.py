"""A perceptual distance of images, by a classifier's features (Zhang et al. 2018, Eq. 1, w = 1).

The classifiers are torchvision's VGG16 and AlexNet, with weights that this machine already has.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# In order of preference: patterns of file names in torch.hub's cache.
CACHED = ("vgg16-*.pth", "alexnet-*.pth")
LARGEST_PX = 256  # larger images are averaged down: the classifiers saw objects of that size
SMALLEST_PX = 32  # smaller ones are enlarged: they would vanish before the last layer
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours in [0, 1]
EPS = 1e-10


def find_weights(perceptual: str) -> Path | None:
    """The file that `generator.projection.perceptual` names; None for no perceptual loss.

    Raises FileNotFoundError if the named file does not exist.
    """
    if perceptual == "none":
        return None
    if perceptual == "auto":
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        found = [path for pattern in CACHED for path in sorted(cache.glob(pattern))]
        return found[0] if found else None
    path = Path(perceptual).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"generator.projection.perceptual: no file {path}: expected torchvision's weights of "
            "VGG16 or AlexNet, or auto or none"
        )
    return path


class PerceptualDistance(nn.Module):
    """Compares the activations of a classifier's convolutions."""

    mean: Tensor
    std: Tensor

    def __init__(self, layers: nn.Sequential, taps: tuple[int, ...]):
        """`layers` in order, of which those numbered `taps` are compared."""
        super().__init__()
        self.layers, self.taps = layers[: taps[-1] + 1], taps
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    @classmethod
    def load(cls, path: Path) -> PerceptualDistance:
        """Read torchvision's weights of VGG16 or AlexNet; raises ValueError for other files."""
        # It takes longer to import than 60 samples to make, and only projections need it.
        from torchvision.models import alexnet, vgg16

        wrong = ValueError(
            f"{path} does not hold torchvision's weights of VGG16 or AlexNet: set "
            "generator.projection.perceptual to a file that does, or to none"
        )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError):
            raise wrong from None
        if not isinstance(state, Mapping):
            raise wrong
        prefix = "features."
        state = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
        # The last ReLU before each pooling, of VGG16 five; every ReLU of AlexNet.
        known = {"28.weight": (vgg16, (3, 8, 15, 22, 29)), "10.weight": (alexnet, (1, 4, 7, 9, 11))}
        build, taps = next((found for key, found in known.items() if key in state), (None, ()))
        if build is None:
            raise wrong
        with torch.device("meta"):
            layers = build(weights=None).features
        try:
            layers.load_state_dict(state, assign=True)
        except RuntimeError:
            raise wrong from None
        return cls(layers, taps).requires_grad_(False).eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """Features of images `[N, 3, H, W]` in [-1, 1]: maps of unit vectors, one per tap."""
        while images.shape[-1] > LARGEST_PX:
            images = F.avg_pool2d(images, 2)
        if images.shape[-1] < SMALLEST_PX:
            images = F.interpolate(images, size=SMALLEST_PX, mode="bilinear")
        x, maps = ((images + 1) / 2 - self.mean) / self.std, []
        for i, layer in enumerate(self.layers):
            # Not in place: the output of a tap is still needed.
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            if i in self.taps:
                maps.append(x * (x.square().sum(dim=1, keepdim=True) + EPS).rsqrt())
        return maps

    def forward(self, images: Tensor, targets: list[Tensor]) -> Tensor:
        """Distances `[N]` of images from those with the features `targets`."""
        distances = [
            (a - b).square().sum(dim=1).mean(dim=(1, 2))
            for a, b in zip(self.features(images), targets, strict=True)
        ]
        return torch.stack(distances).sum(dim=0)
