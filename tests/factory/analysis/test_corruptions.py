"""Figure 6: 18 corruptions of the image, before any features."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from factory.analysis.corruptions import SEVERITIES, corruptions


def test_there_are_18_without_glass_blur() -> None:
    names = corruptions()
    assert len(names) == 18
    assert "glass_blur" not in names
    assert {"speckle_noise", "gaussian_blur", "spatter", "saturate"} < set(names)


def test_small_images_are_refused_before_any_work(analyse, tmp_path) -> None:
    result = analyse("corruptions")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "corruptions need images of at least 32 pixels per side, found 16x16" in result.err
    assert not (tmp_path / "out").exists()


class TestLargerImages:
    @pytest.fixture
    def generator(self, tmp_path: Path) -> Path:
        """An untrained diffusion model of 32x32 pixels."""
        from diffusers import DDPMPipeline

        from generators.ddpm.model import build_unet
        from generators.ddpm.training import noise_schedule

        torch.manual_seed(0)
        unet = build_unet(32, (8, 16), resnets_per_level=1, attention_levels=1)
        folder = tmp_path / "generator"
        DDPMPipeline(unet, noise_schedule("v_prediction")).save_pretrained(folder)
        return folder

    def test_the_table(self, analyse, tmp_path) -> None:
        result = analyse("corruptions", test_images=1)
        assert result.code == 0, result.err
        out = tmp_path / "out"
        found = json.loads((out / "corruptions.json").read_text())
        assert [row["representation"] for row in found["rows"]] == ["ddpm", "pixels"]
        assert list(found["rows"][0]) == ["representation", "clean", "weak", "medium", "strong"]
        assert (out / "corruptions-each.png").exists()
        cell = json.loads(next((out / "cells" / "corruptions").glob("ddpm-*-0.json")).read_text())
        numbers = cell["numbers"]
        for severity in SEVERITIES:
            of_each = [numbers[f"{name}.{severity}"] for name in corruptions()]
            assert numbers[f"severity.{severity}"] == pytest.approx(sum(of_each) / 18)
