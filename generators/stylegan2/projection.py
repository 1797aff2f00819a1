"""Projection: the latents in W+ whose images come nearest to given ones.

As in StyleGAN2 (Karras et al. 2020a, Appendix D), w is optimised by Adam in units of its standard
deviation, first one w for all layers, then one for each layer (W+, Abdal et al. 2019). The noise
maps stay fixed: detail that they explained would be missing from the activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.stylegan2.config import Noise, ProjectionConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.perceptual import PerceptualDistance

COARSEST_PX = 8  # of the pyramid that images are compared on
START_PX = 16  # at which the start is chosen; finer detail is left to the optimisation
RAMP_UP = 0.05  # share of the steps until the full learning rate; it falls from the middle on
BETAS = (0.9, 0.99)  # of Adam
CANDIDATE_BATCH = 32  # candidates synthesised at once


def learning_rate(config: ProjectionConfig, step: int) -> float:
    """The rate at step 0, 1, ...: a linear rise, constant, then half a cosine to 0."""
    share = (step + 1) / (config.steps + 1)
    fall = max(0.0, 2 * share - 1)
    return config.lr * min(1.0, share / RAMP_UP) * (1 + math.cos(math.pi * fall)) / 2


class Projector:
    """Searches latents of one network.

    The latents of an image depend on it alone: losses are summed over the batch and Adam works
    element by element, so images of one batch affect each other only through rounding.
    """

    def __init__(
        self,
        network: StyleGAN2,
        config: ProjectionConfig,
        w: Tensor,
        noise: Noise = "const",
        dtype: torch.dtype = torch.float32,
        perceptual: PerceptualDistance | None = None,
    ):
        """`w` `[K, w_dim]` are random; they give average, deviation and starting points.

        `dtype` is that of the activations: bfloat16 or float32, as float16 has too small a range.
        """
        self.synthesis, self.config = network.synthesis, config
        self.noise, self.dtype, self.perceptual = noise, dtype, perceptual
        self.layers = network.config.num_ws
        self.mean, self.std = w.mean(dim=0), w.std()
        self.candidates = torch.cat([self.mean[None], w])
        with torch.no_grad():
            batches = self.candidates.split(CANDIDATE_BATCH)
            self.previews = torch.cat([_preview(self._images(b[:, None])) for b in batches])

    def __call__(self, images: Tensor, progress: Callable[[int], None] | None = None) -> Tensor:
        """ws `[N, num_ws, w_dim]` for images `[N, 3, R, R]` in [-1, 1], float32.

        `progress` is called with the number of steps that are done.
        """
        distance = self._distance(images)
        u = (self._start(images) - self.mean) / self.std
        shared = min(self.config.shared_steps, self.config.steps)
        u = self._descend(u[:, None], range(shared), distance, progress)
        u = u.repeat(1, self.layers, 1)
        u = self._descend(u, range(shared, self.config.steps), distance, progress)
        return self._ws(u)

    def _start(self, images: Tensor) -> Tensor:
        """w `[N, w_dim]` of the candidate whose image looks most similar."""
        previews = self.previews.flatten(1)
        return self.candidates[torch.cdist(_preview(images).flatten(1), previews).argmin(dim=1)]

    def _descend(
        self,
        u: Tensor,
        steps: range,
        distance: Callable[[Tensor], Tensor],
        progress: Callable[[int], None] | None,
    ) -> Tensor:
        """u `[N, 1 or num_ws, w_dim]`, deviations from the average, after the optimisation."""
        u = u.clone().requires_grad_()
        adam = torch.optim.Adam([u], betas=BETAS)
        for step in steps:
            adam.param_groups[0]["lr"] = learning_rate(self.config, step)
            loss = distance(self._images(self._ws(u))) + self._penalty(u)
            (u.grad,) = torch.autograd.grad(loss.sum(), u)
            adam.step()
            if progress is not None:
                progress(step + 1)
        return u.detach()

    def _ws(self, u: Tensor) -> Tensor:
        return self.mean + self.std * u

    def _images(self, ws: Tensor) -> Tensor:
        """`[N, 3, R, R]` of ws `[N, 1 or num_ws, w_dim]`."""
        ws = ws.expand(-1, self.layers, -1)
        return self.synthesis(ws, self.noise, dtype=self.dtype)[0]

    def _penalty(self, u: Tensor) -> Tensor:
        """`[N]`: keeps w where the network was trained, and its layers near each other."""
        far = u.square().mean(dim=(1, 2))
        apart = (u - u.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2))
        return self.config.average_weight * far + self.config.layers_weight * apart

    def _distance(self, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Images `[N, 3, R, R]` -> how far each is from its target, `[N]`."""
        levels = _pyramid(targets)
        perceptual, weight = self.perceptual, self.config.perceptual_weight
        features = None if perceptual is None else perceptual.features(targets)

        def distance(images: Tensor) -> Tensor:
            total = _difference(_pyramid(images), levels)
            if perceptual is None or features is None:
                return total
            return total + weight * perceptual(images, features)

        return distance


def pyramid_distance(images: Tensor, others: Tensor) -> Tensor:
    """`[N]`: mean absolute differences of two sets of images, summed over the levels."""
    return _difference(_pyramid(images), _pyramid(others))


def _difference(levels: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    means = [(a - b).abs().mean(dim=(1, 2, 3)) for a, b in zip(levels, others, strict=True)]
    return torch.stack(means).sum(dim=0)


def _pyramid(images: Tensor) -> list[Tensor]:
    """The images `[N, 3, R, R]`, and halved again and again down to `COARSEST_PX`."""
    levels = [images]
    while levels[-1].shape[-1] > COARSEST_PX:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def _preview(images: Tensor) -> Tensor:
    """The images at most `START_PX` wide."""
    return F.avg_pool2d(images, max(1, images.shape[-1] // START_PX))


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images uint8 `[N, 3, H, W]`, dB `[N]`.

    Equal images get the ratio of a single value that is off by one level, which is finite.
    """
    error = (found.float() - wanted.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error.clamp_min(1 / found[0].numel()))
