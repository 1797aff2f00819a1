"""A tiny untrained diffusion model, saved once as a diffusers pipeline folder."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline

from generators.ddpm.model import build_unet
from generators.ddpm.training import noise_schedule


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    unet = build_unet(16, (8, 16), resnets_per_level=1, attention_levels=1)
    folder = tmp_path_factory.mktemp("ddpm") / "generator"
    DDPMPipeline(unet, noise_schedule("v_prediction")).save_pretrained(folder)
    return folder
