"""The kind of generator in a file or folder, found without loading it and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from generators.stylegan2.config import INFO_FILE as STYLEGAN2_INFO

Kind = Literal["ddpm", "stylegan2"]

PICKLE_SUFFIX = ".pkl"
# StyleGAN2-ADA snapshots are pickles of these protocols; torch.save writes a zip archive, or wrote,
# in old versions, a pickle of protocol 2.
PICKLE_HEADS = (b"\x80\x03", b"\x80\x04")
DIFFUSERS_FILES = ("model_index.json", "config.json")


def kind_of(weights: Path) -> Kind | None:
    """The kind of generator at `weights`, by its content or its name; None if it is unknown."""
    if weights.is_dir():
        if (weights / STYLEGAN2_INFO).is_file():
            return "stylegan2"
        return "ddpm" if any((weights / name).is_file() for name in DIFFUSERS_FILES) else None
    if weights.suffix.lower() == PICKLE_SUFFIX:
        return "stylegan2"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        return "stylegan2" if file.read(2) in PICKLE_HEADS else "ddpm"
