"""What is said when a device is missing, full or broken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from factory_core import device
from factory_core.device import DeviceFailed, OutOfMemory, has_failed, naming_memory

CPU = torch.device("cpu")
ILLEGAL_ACCESS = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be "
    "asynchronously reported\nCompile with `TORCH_USE_CUDA_DSA`"
)


@pytest.mark.parametrize(
    ("setting", "size", "line"),
    [
        (
            "--batch-size ",
            16,
            r"^out of memory with --batch-size 16 \(no room\): set --batch-size 8$",
        ),
        ("batch_size=", 1, r"batch_size=1 \(no room\): use a device with more memory"),
    ],
)
def test_a_full_device_names_the_number_to_set(setting: str, size: int, line: str) -> None:
    with pytest.raises(OutOfMemory, match=line), naming_memory(setting, size):
        raise torch.OutOfMemoryError("no\nroom")


def test_a_broken_device_is_one_line_without_the_advice_of_torch() -> None:
    line = r"^the device failed \(CUDA error: an illegal memory access was encountered\): rerun"
    with pytest.raises(DeviceFailed, match=line), naming_memory("batch_size=", 16):
        raise torch.AcceleratorError(ILLEGAL_ACCESS)


def test_what_breaks_a_device() -> None:
    assert has_failed(CPU, torch.AcceleratorError(ILLEGAL_ACCESS))
    assert not has_failed(CPU, torch.AcceleratorError("CUDA error: out of memory"))
    assert not has_failed(CPU, RuntimeError("shapes differ"))
    # No GPU here: a device that cannot compute has failed.
    if not torch.cuda.is_available():
        assert has_failed(torch.device("cuda"), RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"))


@pytest.mark.parametrize(
    ("raised", "fault"),
    [
        (
            "The NVIDIA driver on your system\nis too old",
            "The NVIDIA driver on your system is too old",
        ),
        ("No CUDA GPUs are available", None),
    ],
)
def test_a_gpu_that_cannot_be_used_is_named_once(
    raised: str,
    fault: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def init() -> None:
        raise RuntimeError(raised)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    device._warn_of_unused_gpu.cache_clear()
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path / "none")
    assert device.gpu_fault() is None
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path)
    for _ in range(2):
        device.pick_device("auto")
    device._warn_of_unused_gpu.cache_clear()
    expected = [] if fault is None else [f"computing without the GPU: {fault}"]
    assert [record.getMessage() for record in caplog.records] == expected


def test_torch_without_cuda_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA: install a build with CUDA" in str(device.gpu_fault())


@pytest.fixture
def _settings_of_torch() -> Iterator[None]:
    device._make_deterministic.cache_clear()
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
    device._make_deterministic.cache_clear()


@pytest.mark.usefixtures("_settings_of_torch")
@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), (None, False)])
def test_repeatable_kernels_on_a_gpu_if_asked_for(
    value: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is named here, not used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.delenv(device.DETERMINISTIC, raising=False)
    if value is not None:
        monkeypatch.setenv(device.DETERMINISTIC, value)
    torch.backends.cudnn.benchmark = True
    assert device.pick_device("auto").type == "cuda"
    assert torch.are_deterministic_algorithms_enabled() is expected
    assert torch.is_deterministic_algorithms_warn_only_enabled() is expected
    assert torch.backends.cudnn.benchmark is not expected
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if expected else None)


@pytest.mark.usefixtures("_settings_of_torch")
def test_a_cpu_needs_no_repeatable_kernels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(device.DETERMINISTIC, "1")
    for _ in range(2):
        device.pick_device("cpu")
    assert [r.getMessage() for r in caplog.records] == [
        "FACTORY_DETERMINISTIC is not needed on cpu"
    ]
    assert not torch.are_deterministic_algorithms_enabled()
