"""The kind of generator in a file or folder, found without loading it and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from generators.encoders.kinds import INFO_FILE as ENCODER_INFO
from generators.encoders.kinds import network_of
from generators.factorized.config import INFO_FILE as FACTORIZED_INFO
from generators.files.survey import survey
from generators.stylegan2.config import INFO_FILE as STYLEGAN2_INFO
from generators.stylegan2.config import ROSINALITY_KEY

Kind = Literal["ddpm", "encoder", "factorized", "stylegan2"]

PICKLE_SUFFIX = ".pkl"
# Names in networks of NVIDIA's programs, StyleGAN2 among them.
STYLEGAN_NAMES = ("torch_utils.persistence.", "dnnlib.")
UNET_KEY = "time_embed"  # of guided-diffusion
DIFFUSERS_FILES = ("model_index.json", "config.json")


def kind_of(weights: Path) -> Kind | None:
    """The kind of generator at `weights`, by its content or its name; None if it is unknown.

    A file that is not supported has the kind whose reader says so.
    """
    if weights.is_dir():
        if (weights / STYLEGAN2_INFO).is_file():
            return "stylegan2"
        if (weights / FACTORIZED_INFO).is_file():
            return "factorized"
        if (weights / ENCODER_INFO).is_file():
            return "encoder"
        return "ddpm" if any((weights / name).is_file() for name in DIFFUSERS_FILES) else None
    if not weights.is_file():
        return "stylegan2" if weights.suffix.lower() == PICKLE_SUFFIX else None
    found = survey(weights)
    if any(name.startswith(STYLEGAN_NAMES) for name in found.names):
        return "stylegan2"
    if network_of(found.words) is not None:
        return "encoder"
    if ROSINALITY_KEY in found.words:
        return "stylegan2"
    if found.form in ("torch", "safetensors"):
        return "ddpm"
    if any(word.split(".")[0] == UNET_KEY for word in found.words):
        return "ddpm"
    is_pickle = found.form == "pickle" or weights.suffix.lower() == PICKLE_SUFFIX
    return "stylegan2" if is_pickle else "ddpm"
