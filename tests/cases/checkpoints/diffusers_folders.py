"""Folders that diffusers writes."""

from __future__ import annotations

from pathlib import Path

from diffusers import DDPMPipeline, DDPMScheduler

from generators.ddpm.model import build_unet
from tests.cases.checkpoints.case import Bench, Case


def pipeline(bench: Bench) -> Path:
    unet = build_unet(16, (8, 16), resnets_per_level=1, attention_levels=1)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(bench.folder / "ddpm")
    return bench.folder / "ddpm"


CASES = (Case("diffusers", "folder of a DDPM pipeline", True, "", pipeline),)
