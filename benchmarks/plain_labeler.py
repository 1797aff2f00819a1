"""The published way to label pixels, in plain code: the baseline of the labelers.

Every feature map is upsampled to the image size and all are concatenated, so that a pixel is a row
of `[pixels, ΣC]`. The members of the ensemble are separate networks, trained and evaluated one
after another (Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion Models").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from generators.base import FeatureMaps, FeatureMapSpec

LSUN_SIZE = (256, 256)
LSUN_TIMESTEPS = (50, 150, 250)
LSUN_BLOCKS = {5: (1024, 32), 6: (512, 32), 7: (512, 32), 8: (512, 64), 12: (256, 128)}
"""Decoder block -> (channels, height = width at native size)."""

BATCH_PIXELS = 64
LR = 1e-3
INIT_STD = 0.02
MIN_EPOCHS = 4
MAX_EPOCHS = 100
PATIENCE_BATCHES = 51


def lsun_spec() -> tuple[FeatureMapSpec, ...]:
    """The 15 feature maps of the LSUN setting, 8448 channels in total."""
    return tuple(
        FeatureMapSpec(f"b{block}_t{t}", channels, side, side)
        for t in LSUN_TIMESTEPS
        for block, (channels, side) in LSUN_BLOCKS.items()
    )


def random_features(spec: Sequence[FeatureMapSpec], images: int, seed: int) -> FeatureMaps:
    """Standard normal float32 features of `images` images."""
    rng = torch.Generator().manual_seed(seed)
    return FeatureMaps(
        {m.name: torch.randn(images, m.channels, m.height, m.width, generator=rng) for m in spec}
    )


class PixelClassifier(nn.Module):
    """One member: Linear -> ReLU -> BatchNorm for each hidden width, then Linear to K classes."""

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.BatchNorm1d(width)]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, INIT_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """`[pixels, ΣC]` -> logits `[pixels, K]`."""
        return self.layers(pixels)


def random_members(inputs: int, classes: int, members: int, seed: int) -> list[PixelClassifier]:
    """Members in eval mode that disagree, with the paper's hidden widths for < 30 classes."""
    torch.manual_seed(seed)
    made = [PixelClassifier(inputs, (128, 32), classes) for _ in range(members)]
    for member in made:
        for layer in member.layers:
            if isinstance(layer, nn.BatchNorm1d):
                # Statistics as after training, so that units differ and logits spread.
                nn.init.uniform_(layer.get_buffer("running_mean"), 0, 1)
                nn.init.uniform_(layer.get_buffer("running_var"), 0.01, 0.1)
    return [member.eval() for member in made]


def upsample(features: FeatureMaps, size: tuple[int, int]) -> torch.Tensor:
    """Every pixel of N images of `size` (H, W) as a row, `[N·H·W, ΣC]`, in the maps' dtype."""
    maps = [
        # Channels last: pixels become rows, and a CPU is twice as fast.
        F.interpolate(
            f.contiguous(memory_format=torch.channels_last), size, mode="bilinear"
        ).permute(0, 2, 3, 1)
        for f in features.values()
    ]
    return torch.cat(maps, 3).flatten(0, 2)


@torch.inference_mode()
def predict(
    members: Sequence[PixelClassifier], features: FeatureMaps, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask int64 `[H, W]` by majority vote and JS divergence `[H, W]`, nats, of one image.

    Members are in eval mode.
    """
    pixels = upsample(features, size)
    choices, probabilities, entropies = [], [], []
    for member in members:
        logits = member(pixels)
        p = torch.softmax(logits, 1)
        choices.append(logits.argmax(1))
        probabilities.append(p)
        entropies.append(torch.special.entr(p).sum(1))
    # On a CPU, `mode` resolves ties to the smallest id, as the published masks do.
    mask = torch.stack(choices, 1).mode(1).values
    mean_probability = torch.stack(probabilities).mean(0)
    js = torch.special.entr(mean_probability).sum(1) - torch.stack(entropies).mean(0)
    return mask.view(size), js.view(size)


def train(
    pixels: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    hidden: Sequence[int],
    seed: int,
    max_steps: int | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> tuple[PixelClassifier, int]:
    """Train one member on rows `[pixels, ΣC]` and labels int64 `[pixels]`; return it and its steps.

    The published procedure: Adam, batches of 64 pixels, at least four passes, then stop after 51
    consecutive batches that do not beat the best single-batch loss. `max_steps` stops earlier, to
    measure a part; `on_step(step, loss)` is called after each step.
    """
    torch.manual_seed(seed)
    member = PixelClassifier(pixels.shape[1], hidden, classes)
    optimizer = torch.optim.Adam(member.parameters(), lr=LR)
    best, since, step = float("inf"), 0, 0
    for epoch in range(MAX_EPOCHS):
        order = torch.randperm(len(pixels))
        for start in range(0, len(pixels) - BATCH_PIXELS + 1, BATCH_PIXELS):
            rows = order[start : start + BATCH_PIXELS]
            loss = F.cross_entropy(member(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            value = loss.item()
            if on_step is not None:
                on_step(step, value)
            if epoch >= MIN_EPOCHS:
                since = 0 if value < best else since + 1
                best = min(best, value)
            if since >= PATIENCE_BATCHES or step == max_steps:
                return member.eval(), step
    return member.eval(), step


def train_ensemble(
    features: FeatureMaps,
    masks: torch.Tensor,
    classes: int,
    hidden: Sequence[int],
    members: int,
    seed: int,
    ignore: int = 255,
) -> list[PixelClassifier]:
    """Train `members` members one after another on N images and masks uint8 `[N, H, W]`.

    Pixels with the id `ignore` are left out; member m is seeded with seed + m.
    """
    pixels = upsample(features, (masks.shape[1], masks.shape[2]))
    labels = masks.flatten().long()
    known = labels != ignore
    if not known.all():
        pixels, labels = pixels[known], labels[known]
    return [train(pixels, labels, classes, hidden, seed + m)[0] for m in range(members)]
