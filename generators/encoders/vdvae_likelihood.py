"""The distribution of a pixel: a mixture of discretised logistics (Salimans et al. 2017, Eq. 1-3).

Parameters are laid out as in the published VDVAEs: `mixtures` logits, then for each colour as many
means, log scales and coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_LEVEL = 1 / 255  # half the distance of two levels, in [-1, 1]
EDGE = 1 - HALF_LEVEL  # beyond it, a level reaches to infinity
MIN_LOG_SCALE = -7.0


class Mixture(NamedTuple):
    """Log weights `[N, K, H, W]`; means, log scales and coefficients `[N, 3, K, H, W]`."""

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> Mixture:
        """From the network's output `[N, 10 K, H, W]`."""
        K = parameters.shape[1] // 10
        logits, rest = parameters.float().split([K, 9 * K], dim=1)
        means, log_scales, coefficients = rest.unflatten(1, (3, 3, K)).unbind(dim=2)
        return cls(
            F.log_softmax(logits, dim=1),
            means,
            log_scales.clamp(min=MIN_LOG_SCALE),
            torch.tanh(coefficients),
        )

    def conditional_means(self, x: Tensor) -> Tensor:
        """Of colours x `[N, 3, 1 or K, H, W]`: green depends on red, blue on both (Eq. 3)."""
        (red, green, blue), (a, b, c) = self.means.unbind(1), self.coefficients.unbind(1)
        return torch.stack([red, green + a * x[:, 0], blue + b * x[:, 0] + c * x[:, 1]], dim=1)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p of images `[N, 3, H, W]` in [-1, 1], in nats, `[N]`."""
        x = x[:, :, None]
        centred, sharpness = x - self.conditional_means(x), torch.exp(-self.log_scales)
        upper = sharpness * (centred + HALF_LEVEL)
        lower = sharpness * (centred - HALF_LEVEL)
        # σ(u) - σ(l) = σ(u) σ(-l) (1 - e^(l - u)), in logarithms: exact, and finite at any scale.
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        within = below + above + torch.log(-torch.expm1(lower - upper))
        log_p = torch.where(x < -EDGE, below, torch.where(x > EDGE, above, within)).sum(dim=1)
        return (self.log_weights + log_p).logsumexp(dim=1).sum(dim=(1, 2))

    def likeliest(self) -> Tensor:
        """Images `[N, 3, H, W]` in [-1, 1]: the mean of each pixel's heaviest logistic."""
        chosen = self.log_weights.argmax(dim=1)[:, None, None].expand(-1, 3, -1, -1, -1)
        means = self.means.gather(2, chosen)
        only = self._replace(means=means, coefficients=self.coefficients.gather(2, chosen))
        x = means.clamp(-1, 1)
        for _ in range(2):  # green follows red, then blue follows green
            x = only.conditional_means(x).clamp(-1, 1)
        return x[:, :, 0]
