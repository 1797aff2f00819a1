"""Which device and number format to compute with, and what to say when a device fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")  # exists if the driver is loaded
DETERMINISTIC = "FACTORY_DETERMINISTIC"  # environment variable: 1 asks GPUs for repeatable results
logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU.

    Warns, once per process, if `auto` is the CPU because the GPU of this machine cannot be used. On
    CUDA, the kernels are repeatable ones if the environment says `FACTORY_DETERMINISTIC=1`.
    """
    picked = _pick(device)
    if os.environ.get(DETERMINISTIC, "0") != "0":
        _make_deterministic(picked.type)
    return picked


@cache
def _make_deterministic(device_type: str) -> None:
    """Choose repeatable kernels on CUDA; elsewhere, say once what the variable does there."""
    if device_type != "cuda":
        what = "not supported on" if device_type == "mps" else "not needed on"
        logger.warning("%s is %s %s", DETERMINISTIC, what, device_type)
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    # Operators without such a kernel, a few of training, are named in a warning.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def _pick(device: str) -> torch.device:
    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            kind = DeviceFailed if isinstance(error, torch.AcceleratorError) else ValueError
            raise kind(f"--device {device} cannot be used: {reason}") from None
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    _warn_of_unused_gpu()
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@cache
def _warn_of_unused_gpu() -> None:
    if (fault := gpu_fault()) is not None:
        logger.warning("computing without the GPU: %s", fault)


def gpu_fault() -> str | None:
    """Why torch cannot use the NVIDIA GPU of this machine, in one line; None if it has none.

    GPUs that CUDA_VISIBLE_DEVICES hides do not count. Call it only where CUDA is not available.
    """
    if not NVIDIA_DRIVER.exists():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA: install a build with CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        return None if "No CUDA GPUs are available" in reason else reason
    return None


def device_kind(device: torch.device) -> str:
    """What the device is called: `cpu`, `mps`, or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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
    """The autocast dtype for `precision` (`auto`, `float32`, `bfloat16`, `float16`).

    GPUs without bfloat16 (before Ampere, such as the T4) get float32: in float16 the activations of
    some networks overflow, and no such GPU was available to measure with.
    """
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


class DeviceFailed(ValueError):
    """The device of this process is broken until the process ends; one line."""

    @classmethod
    def of(cls, error: BaseException) -> DeviceFailed:
        """From what torch raised."""
        return cls(f"the device failed ({one_line(error)}): rerun the command")


class OutOfMemory(ValueError):
    """A batch does not fit into the memory of the device; one line with what to set."""


def one_line(error: BaseException) -> str:
    """What an error of torch says, without its type and without the advice that follows."""
    text = str(error).split("\nCUDA kernel errors")[0].split("Compile with")[0]
    return " ".join(text.split()) or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left: a batch that is smaller may succeed."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    )


def has_failed(device: torch.device, error: BaseException) -> bool:
    """Whether `error` left `device` unusable for this process.

    After an illegal access, an assertion in a kernel or a hardware fault, every later call of CUDA
    in the process fails too. Libraries on top of CUDA report it as a plain RuntimeError, so then
    the device has to show that it still computes.
    """
    if is_out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    if device.type != "cuda":
        return False
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as again:
        return not is_out_of_memory(again)
    return False


@contextmanager
def naming_memory(setting: str, size: int) -> Iterator[None]:
    """Raise OutOfMemory, with the number to set, where torch runs out of the device's memory.

    `setting` is what the user gives, as `batch_size=` or `--batch-size `; `size` its value.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        if not is_out_of_memory(error):
            raise DeviceFailed.of(error) from error
        advice = f"set {setting}{size // 2}"
        if size == 1:
            advice = "use a device with more memory, or --device cpu"
        raise OutOfMemory(
            f"out of memory with {setting}{size} ({one_line(error)}): {advice}"
        ) from error


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads; the number is restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
