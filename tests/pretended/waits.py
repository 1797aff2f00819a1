"""Trains each kind of network on the pretended device and counts where its steps wait for it.

    python -m tests.pretended.waits OUT > waits.json

The result holds, by name of the training, the places of each step that wait for the device, or copy
from memory that is not pinned, which may wait too.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.pretended import NAME
from tests.pretended.device import NOTES
from tests.pretended.project import pretending

STEPS = 25


def watch() -> tuple[Any, list[list[str]]]:
    """A Lightning callback, and the places that it notes, step by step."""
    from lightning.pytorch.callbacks import Callback

    steps: list[list[str]] = []

    class Watch(Callback):
        def _next(self) -> None:
            steps.append([*NOTES.waits, *(f"pageable copy at {place}" for place in NOTES.pageable)])
            NOTES.waits.clear()
            NOTES.pageable.clear()

        def on_train_batch_start(self, *_: Any) -> None:
            self._next()

        def on_train_end(self, *_: Any) -> None:
            self._next()

    return Watch(), steps


def images(count: int, size: int) -> Any:
    import torch

    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def ddpm(out: Path) -> list[list[str]]:
    from generators.ddpm.config import DDPMTrainingConfig
    from generators.ddpm.training import train
    from generators.training.images import TrainingImages

    config = DDPMTrainingConfig(
        image_size=16, batch_size=2, channels=(16, 24), steps=STEPS, flips=True
    )
    callback, steps = watch()
    train(TrainingImages.of(images(6, 16)), out, config, device=NAME, progress=[callback])
    return steps


def stylegan2(out: Path) -> list[list[str]]:
    from generators.stylegan2.config import StyleGAN2TrainingConfig
    from generators.stylegan2.training import train
    from generators.training.images import TrainingImages

    config = StyleGAN2TrainingConfig(
        image_size=16,
        batch_size=2,
        steps=STEPS,
        channel_base=256,
        channel_max=16,
        latent_dim=16,
        mapping_layers=1,
        ada_kimg=1e6,  # kornia's distortions wait by themselves: let none be drawn
    )
    callback, steps = watch()
    train(TrainingImages.of(images(6, 16)), out, config, device=NAME, progress=[callback])
    return steps


def segmenter(out: Path) -> list[list[str]]:
    from train_seg.config import SegmenterConfig
    from train_seg.data.training_data import LabeledImages
    from train_seg.training.train import train

    data = LabeledImages(images(6, 32), images(6, 32)[:, 0] % 3, ["a", "b", "c"])
    config = SegmenterConfig(
        encoder="resnet18",
        encoder_depth=3,
        batch_size=2,
        max_steps=STEPS,
        num_workers=0,
        ema=0.9,
        dice=1.0,
    )
    callback, steps = watch()
    train([data], out, config, device=NAME, callbacks=[callback])
    return steps


def main() -> None:
    """Train all kinds; what they print goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr), pretending():
        found = {kind.__name__: kind(Path(sys.argv[1]) / kind.__name__) for kind in KINDS}
    json.dump(found, sys.stdout)


KINDS = (ddpm, stylegan2, segmenter)

if __name__ == "__main__":
    main()
