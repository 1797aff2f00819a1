"""Which kind of generator a file or folder of weights is; nothing is unpacked, torch not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from generators.stylegan2.config import INFO_FILE as STYLEGAN2_INFO

Kind = Literal["ddpm", "stylegan2"]

PICKLE_SUFFIX = ".pkl"
# StyleGAN2-ADA snapshots are pickles of these protocols; what torch.save writes is a zip archive,
# or, in old files, a pickle of protocol 2.
PICKLE_HEADS = (b"\x80\x03", b"\x80\x04")
DIFFUSERS_FILES = ("model_index.json", "config.json")


def kind_of(weights: Path) -> Kind | None:
    """The kind of generator at `weights`, or that its name tells; None if neither says it."""
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
