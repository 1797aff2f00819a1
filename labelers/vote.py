"""Votes of an ensemble, accumulated in one pass over its members."""

from __future__ import annotations

import torch

from labelers.config import Vote


class Tally:
    """What a vote and the uncertainty need, without keeping the members' probabilities.

    Sums over the members seen so far: probabilities `[N, K, H, W]`, entropies `[N, H, W]` in
    nats and, by `vote`, counts of first choices or log-probabilities `[N, K, H, W]`.
    """

    def __init__(self, vote: Vote):
        self.vote = vote
        self.members = 0
        self._probabilities = self._entropies = self._votes = torch.zeros(())

    def add(self, logits: torch.Tensor) -> None:
        """Count one member's logits `[N, K, H, W]`."""
        if self.members == 0:
            self._probabilities = torch.zeros_like(logits)
            self._entropies = torch.zeros_like(logits[:, 0])
            self._votes = torch.zeros_like(logits)
        log_p = torch.log_softmax(logits, dim=1)
        p = log_p.exp()
        self._probabilities += p
        if self.vote == "majority":
            first = logits.argmax(1, keepdim=True)
            self._votes.scatter_add_(1, first, torch.ones_like(logits[:, :1]))
        elif self.vote == "log_soft":
            self._votes += log_p
        # p·log p with a finite log p is 0, not NaN, where p underflows.
        self._entropies -= p.mul_(log_p).sum(1)
        self.members += 1

    @property
    def mean_probability(self) -> torch.Tensor:
        """Mean class probabilities `[N, K, H, W]`."""
        return self._probabilities / self.members

    @property
    def mean_entropy(self) -> torch.Tensor:
        """Mean entropy of the members `[N, H, W]`, nats."""
        return self._entropies / self.members

    def mask(self) -> torch.Tensor:
        """The winning class of each pixel, uint8 `[N, H, W]`; ties go to the smallest id."""
        votes = self._probabilities if self.vote == "soft" else self._votes
        # `max` and `mode` leave ties to the device; the first index that holds the maximum
        # does not.
        ids = torch.arange(votes.shape[1], device=votes.device).view(1, -1, 1, 1)
        winners = torch.where(votes == votes.amax(1, keepdim=True), ids, votes.shape[1])
        return winners.amin(1).to(torch.uint8)
