"""The training jobs: folders are read here and handed to the packages that train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console


def train_generator(
    kind: str,
    images: Path,
    out: Path,
    settings: dict[str, Any],
    init: str | None,
    device: str,
    console: Console,
) -> None:
    """Train a generator of `kind` on the images of a folder and write it to `out`."""
    from factory.progress import TrainingProgress, quiet_libraries
    from generators.config import DDPMTrainingConfig
    from generators.ddpm.training import train
    from labelers.annotations import ImageFolder

    if kind != "ddpm":
        raise ValueError(f"unknown kind of generator {kind!r}: expected ddpm")
    quiet_libraries()
    config = DDPMTrainingConfig(**settings)
    size = (config.image_size, config.image_size)
    dataset = ImageFolder(images, size)
    console.print(f"{len(dataset)} images at {size[0]} x {size[1]} from [bold]{images}[/]")
    train(
        dataset,
        out,
        config,
        init=init,
        device=device,
        provenance={"images": len(dataset)},
        progress=[TrainingProgress("training", console)],
    )
    console.print(f"generator in [bold]{out}[/]; samples in {out / 'samples'}")
