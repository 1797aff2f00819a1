"""The first layer of the members in training: nearly all of the weights and of the work."""

from __future__ import annotations

import torch

from labelers.ensemble.classifiers import MemberLinear


class FirstLayer:
    """Forward and backward pass of `linear` on a batch of pixels, in memory that stays allocated.

    `pixels` `[M, batch, C]` is the batch, filled by the caller; products are computed in its
    `dtype`. Written out because autograd would allocate the gradient and its copies, 100 MB at 8448
    channels, again in every step: on a CPU the page faults cost more than the products.
    """

    def __init__(self, linear: MemberLinear, batch: int, dtype: torch.dtype = torch.float32):
        self.linear = linear
        weight = linear.weight
        members, _, channels = weight.shape
        self.pixels = torch.empty(members, batch, channels, dtype=dtype, device=weight.device)
        self.gradient = torch.empty_like(weight, requires_grad=False)
        self.weight: torch.Tensor = weight
        self.product = self.gradient
        if dtype != weight.dtype:
            self.weight = torch.empty_like(weight, dtype=dtype, requires_grad=False)
            self.product = torch.empty_like(self.weight)

    @torch.no_grad()
    def forward(self) -> torch.Tensor:
        """W x + b, float32 `[M, out, batch]`: a leaf whose gradient `backward` takes."""
        if self.weight is not self.linear.weight:
            self.weight.copy_(self.linear.weight)
        x = torch.bmm(self.weight, self.pixels.transpose(1, 2)).float()
        return x.add_(self.linear.bias[:, :, None]).requires_grad_()

    @torch.no_grad()
    def backward(self, output: torch.Tensor) -> None:
        """Set the gradients of weight and bias from that of `output`, which `forward` returned."""
        assert output.grad is not None
        torch.bmm(output.grad.to(self.pixels.dtype), self.pixels, out=self.product)
        if self.product is not self.gradient:
            self.gradient.copy_(self.product)
        self.linear.weight.grad = self.gradient
        self.linear.bias.grad = output.grad.sum(2)
