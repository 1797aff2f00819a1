"""The training loss: cross-entropy, with class weights and the ETF regulariser as options.

The regulariser is that of DDPM_E ("Diffusion-Based Semantic Segmentation Using Feature
Regularization and Soft Voting", 2025). A second, fixed classifier reads the last hidden layer h of
a member: the vertices of a simplex equiangular tight frame, K unit vectors with pairwise cosines of
-1/(K-1). Its cross-entropy, added to that of the trained classifier, draws the features of the
classes to those directions, as far from each other as K directions can be.

This differs from the authors' published code, where the regulariser is a network of its own that is
thrown away after training, so that it cannot regularise anything. Here it shares h with the
classifier.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labelers.ensemble.classifiers import Ensemble

# Well-classified pixels have gradients down to 1e-45, and products with such denormal numbers
# more than halve the speed on a CPU. Far below Adam's eps (1e-8), they change nothing.
TINY_GRADIENT = 1e-20


def check_etf(width: int, classes: int) -> None:
    """Raise ValueError unless a last hidden layer of `width` units has room for a simplex."""
    if width < classes:
        raise ValueError(
            "the ETF regulariser needs as many units in the last hidden layer as there are "
            f"classes, found {width} units for {classes} classes: set labeler.hidden to wider "
            "layers, or labeler.etf_weight to 0"
        )


def simplex_etf(width: int, classes: int, rng: torch.Generator) -> torch.Tensor:
    """M = sqrt(K/(K-1)) · U (I - 11ᵀ/K), float32 `[d, K]`, U a random orthonormal `[d, K]` matrix.

    Raises the ValueError of `check_etf`.
    """
    check_etf(width, classes)
    u = torch.linalg.qr(torch.randn(width, classes, generator=rng, dtype=torch.float64)).Q
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return ((classes / (classes - 1)) ** 0.5 * u @ centring).float()


def balanced_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weight of each class, float32 `[K]`, that makes all of them count equally in `labels` `[P]`.

    The mean weight of a label is 1; a class that does not occur gets 0.
    """
    counts = torch.bincount(labels.long(), minlength=classes)
    weights = len(labels) / (counts.clamp(min=1) * (counts > 0).sum())
    return torch.where(counts > 0, weights, 0.0)


class PixelLoss:
    """Loss of each member on its own batch of pixels.

    `class_weights` float32 `[K]` weigh the pixels; `etf` are the members' frames `[M, d, K]`, whose
    cross-entropy counts `etf_weight` times.
    """

    def __init__(
        self,
        class_weights: torch.Tensor | None = None,
        etf: torch.Tensor | None = None,
        etf_weight: float = 0.0,
    ):
        self.class_weights = class_weights
        self.etf = etf
        self.etf_weight = etf_weight

    def __call__(
        self, ensemble: Ensemble, first: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses `[M]` and logits `[M, K, B]` of pixels of classes `[M, B]`.

        `first` `[M, width, B]` is the output of the first linear layer for them.
        """
        hidden = ensemble.hidden(first)
        logits = ensemble.linears[-1](hidden)
        losses = self._cross_entropy(logits, target)
        if self.etf is not None:
            fixed = self.etf.transpose(1, 2) @ hidden
            losses = losses + self.etf_weight * self._cross_entropy(fixed, target)
        return losses, logits.detach()

    def _cross_entropy(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if logits.requires_grad:
            logits.register_hook(lambda gradient: F.hardshrink(gradient, TINY_GRADIENT))
        return F.cross_entropy(logits, target, self.class_weights, reduction="none").mean(1)
