"""Counts the work of a computation, and measures how fast a device can do it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

# Operations limited by arithmetic; all others move memory.
PRODUCTS = ("convolution", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product")


@dataclass(frozen=True)
class Work:
    """Floating-point operations of the products (a multiply-add is two), and the minimum number of
    bytes that all other operations read and write."""

    flops: float = 0
    other_bytes: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.other_bytes + other.other_bytes)

    def __mul__(self, times: float) -> Work:
        return Work(times * self.flops, times * self.other_bytes)


class _Traffic(TorchDispatchMode):
    """Adds up the sizes of operands and results of all operations except products."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        is_product = any(product in func.overloadpacket.__name__ for product in PRODUCTS)
        if not (is_product or func.is_view):
            tensors = [
                leaf for leaf in tree_leaves((args, kwargs, result)) if torch.is_tensor(leaf)
            ]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return result


def count(function: Callable[[], object]) -> Work:
    """The work of one call, which may run on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        function()
    return Work(flops.get_total_flops(), traffic.bytes)


def wait_for(device: torch.device) -> None:
    """Wait for the work queued on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call."""
    wait_for(device)
    started = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - started


def _best_rate(function: Callable[[], object], device: torch.device, amount: float) -> float:
    function()
    return amount / statistics.median(seconds(function, device) for _ in range(7))


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a plain matrix product or a 3x3 convolution, whichever is faster.

    On a CPU they come from different libraries, and either may be slow on a given machine.
    """
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    b = torch.randn(n, n, device=device).to(dtype)
    product = _best_rate(lambda: a @ b, device, 2 * n**3)
    c, side = 256, 64
    images = torch.randn(n // 256, c, side, side, device=device).to(dtype)
    images = images.to(memory_format=torch.channels_last)
    weight = torch.randn(c, c, 3, 3, device=device).to(dtype)
    flops = 2 * len(images) * c * 9 * c * side**2
    return max(product, _best_rate(lambda: F.conv2d(images, weight, padding=1), device, flops))


def peak_bandwidth(device: torch.device) -> float:
    """Bytes/s, reads plus writes, of a copy that does not fit into a cache."""
    a = torch.zeros(2**30 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return _best_rate(lambda: b.copy_(a), device, 2 * a.numel())
