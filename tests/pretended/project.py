"""The project on the pretended device: its modules read with `"cuda"` replaced, its libraries
patched where they would ask the driver."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.pretended import NAME
from tests.pretended.device import DEVICE, OURS, PINNED, Pretending


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        source = Path(self.path).read_text().replace('"cuda"', f'"{NAME}"')
        return compile(source, self.path, "exec", dont_inherit=True)


class Reading(importlib.abc.MetaPathFinder):
    """Finds the project's modules: torch's slot for other backends cannot be called `cuda`."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.split(".")[0] not in OURS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


assert not any(name.split(".")[0] in OURS for name in sys.modules), "the project was imported"
sys.meta_path.insert(0, Reading())


def _pin(self: torch.Tensor, *_: Any) -> torch.Tensor:
    pinned = self.clone()
    PINNED.add(pinned.data_ptr())
    return pinned


def _trainer(make: Any) -> Any:
    """`lightning.Trainer` that knows the device."""
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.plugins import MixedPrecision
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class Accelerator(CPUAccelerator):
        def setup_device(self, device: torch.device) -> None:
            assert device.type == NAME, device

    def trainer(
        *, accelerator: str, devices: Any = 1, precision: Any = "32-true", **settings: Any
    ) -> Any:
        if accelerator not in ("gpu", NAME):
            return make(accelerator=accelerator, devices=devices, precision=precision, **settings)
        strategy = SingleDeviceStrategy(DEVICE, accelerator=Accelerator())
        plugins = [] if precision == "32-true" else [MixedPrecision(precision, NAME)]
        return make(strategy=strategy, plugins=plugins, **settings)

    return trainer


@contextlib.contextmanager
def pretending() -> Iterator[None]:
    """The device exists in this context."""
    import lightning

    answers = {
        "is_bf16_supported": True,
        "get_device_capability": (9, 0),
        "get_device_name": "pretended GPU",
        "max_memory_reserved": 2**30,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(lightning, "Trainer", _trainer(lightning.Trainer)))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", _pin))
        for name, answer in answers.items():
            patch = mock.patch.object(torch.cuda, name, lambda *_, _a=answer, **__: _a)
            stack.enter_context(patch)
        stack.enter_context(Pretending())
        yield
