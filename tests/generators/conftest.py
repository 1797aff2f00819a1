"""A tiny untrained diffusion model, interrupted trainings, and the payload of a hostile pickle."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline
from lightning.pytorch.callbacks import Callback

from generators.ddpm.model import build_unet
from generators.ddpm.training import noise_schedule


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers pipeline folder."""
    torch.manual_seed(0)
    unet = build_unet(16, (8, 16), resnets_per_level=1, attention_levels=1)
    folder = tmp_path_factory.mktemp("ddpm") / "generator"
    DDPMPipeline(unet, noise_schedule("v_prediction")).save_pretrained(folder)
    return folder


class StopAfter(Callback):
    """Interrupts a training after a step, as Ctrl-C does."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def stop_after() -> Callable[[int], Callback]:
    """`stop_after(step)` -> a callback that interrupts the training after that step."""
    return StopAfter


class Evil:
    """Runs a shell command if it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def evil(tmp_path: Path) -> Evil:
    """An object that writes the file `ran` into `tmp_path` if it is unpickled."""
    return Evil(tmp_path / "ran")
