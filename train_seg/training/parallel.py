"""Several processes that train one network, each on its part of every batch.

Each step equals that of a single process on the whole batch: losses are means over the pixels of
all parts, whatever the number in each part, and batch normalisation sees all of them. Sums over
processes are added in a different order, so results agree up to rounding, not to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def rank() -> int:
    """The number of this process; 0 if there is only one."""
    return distributed.get_rank() if _joined() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if _joined() else 1


def barrier() -> None:
    """Wait for the other processes."""
    if _joined():
        distributed.barrier()


def whole(part: torch.Tensor) -> torch.Tensor:
    """The sum of `part` over all processes; its gradient reaches only the part of this process.

    A loss made of such sums is the same in every process. DistributedDataParallel averages
    gradients, so multiply the loss by `world_size()` before `backward`.
    """
    if not _joined():
        return part
    total = part.detach().clone()
    distributed.all_reduce(total)
    return part + (total - part.detach())


def union(part: dict[str, str]) -> dict[str, str]:
    """The entries of all processes together."""
    parts: list[dict[str, str]] = [part] * world_size()
    if _joined():
        distributed.all_gather_object(parts, part)
    return {key: value for found in parts for key, value in found.items()}


def synchronise(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """`network` with batch normalisation over all processes; unchanged if there is only one.

    GPUs use torch's implementation, which does not support CPUs.
    """
    if world_size() == 1:
        return network
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # torch's loses the activations of timm's

        return convert_sync_batchnorm(network)
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is torch.nn.BatchNorm2d:  # a subclass may do more than normalise
                setattr(module, name, SyncedBatchNorm2d.of(child))
    return network


class SyncedBatchNorm2d(torch.nn.BatchNorm2d):
    """Batch normalisation with moments over the parts of all processes, on any device."""

    @classmethod
    def of(cls, norm: torch.nn.BatchNorm2d) -> SyncedBatchNorm2d:
        """Shares the parameters and buffers of `norm`, without copying them."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine)
        new.__dict__.update(norm.__dict__)
        return new

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise `[N, C, H, W]`; N may differ between processes."""
        if not self.training:
            return super().forward(x)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        values = x.float()
        size = values.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat([values.sum((0, 2, 3)), size]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        # A second exchange: subtracting the squared mean from the mean of squares loses digits.
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        total = part.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()
