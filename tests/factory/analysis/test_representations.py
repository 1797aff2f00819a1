"""Table 2: the generator against encoders and baselines."""

from __future__ import annotations

import json

import torch

from factory.analysis.representing import Pixels, load_encoder, random_weights


def test_the_table(analyse, generator, tmp_path) -> None:
    recipe = tmp_path / "first.yaml"
    recipe.write_text(
        f"name: first\ngenerator: {{weights: '{generator}', features: {{blocks: [0]}}}}\n"
    )
    options = ("--encoder", f"other={generator}", "--encoder", recipe)
    result = analyse("representations", *options)
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "out" / "representations.json").read_text())
    rows = {row["representation"]: row for row in found["rows"]}
    assert set(rows) == {"ddpm", "other", "first", "random-weights", "pixels"}
    assert rows["first"]["channels"] < rows["ddpm"]["channels"]
    assert rows["pixels"]["channels"] == 3
    assert rows["other"]["mIoU"]["values"] == rows["ddpm"]["mIoU"]["values"]  # the same network
    assert "features of a diffusion model are better" in found["sentence"]
    assert found["notes"] == []


def test_an_encoder_of_another_size(analyse) -> None:
    result = analyse("representations", "--encoder", "package:factory.demo/generator")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "works on images of 64x64, the generator on 16x16" in result.err


def test_random_weights_leave_the_generator_unchanged(generator) -> None:
    encoder = load_encoder(str(generator), (16, 16), "cpu")
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    before = encoder.encode(images)
    other = random_weights(encoder)
    assert other is not None
    assert other.feature_spec == encoder.feature_spec
    assert other.digest != encoder.digest
    name = encoder.feature_spec[0].name
    assert not torch.allclose(other.encode(images)[name], before[name])
    assert torch.equal(encoder.encode(images)[name], before[name])
    again = random_weights(encoder)
    assert again is not None
    assert torch.equal(other.encode(images)[name], again.encode(images)[name])
    assert random_weights(Pixels((16, 16))) is None


def test_pixels_are_colours() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 6)
    maps = Pixels((4, 6)).encode(images)
    assert maps.spec == Pixels((4, 6)).feature_spec
    assert torch.allclose(maps["rgb"][0, :, 2, 2], torch.tensor([-1.0, 1.0, -0.6]))
