"""Which device and number format to compute with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU."""
    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"--device {device} cannot be used: {reason}") from None
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware.

    On a CPU this means AMX or AVX512_BF16: without them oneDNN emulates the convolutions, measured
    10x slower than float32 on a Zen 3. With AMX they were 3x faster, with AVX512_BF16 (Zen 5) 2x.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The autocast dtype for `precision` (`auto`, `float32`, `bfloat16`, `float16`)."""
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(device) else "float32"
    return DTYPES[precision]


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to `device` without waiting for the work that is queued on a GPU.

    The host runs ahead of the GPU, so it draws the noise of the next pass during this one.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads; the number is restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
