"""`factory sample`: images to annotate, from any generator, deterministic and resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import generators
from factory.annotation.samples import find_samples
from factory.recipe.weights import find_weights
from generators.ddpm.config import DDPMConfig
from generators.stylegan2.config import StyleGAN2Config
from generators.stylegan2.model import StyleGAN2Generator

DEMO = "package:factory.demo/generator"


@pytest.fixture
def sample(factory: Callable, gan: Path, tmp_path: Path, monkeypatch) -> Callable:
    """`sample("--n", 3)` from the tiny GAN into `out`, in a new folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, generator: object = gan, out: str = "out") -> Any:
        given = () if generator is None else ("--generator", generator)
        return factory("sample", *given, "--out", out, "--device", "cpu", *arguments)

    return run


def pixels(index: int, folder: str = "out") -> torch.Tensor:
    with Image.open(Path(folder) / "images" / f"{index:09d}.png") as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def stems(folder: str = "out") -> list[int]:
    return sorted(int(path.stem) for path in (Path(folder) / "images").iterdir())


def test_images_are_the_samples_of_their_names(sample: Callable, gan: Path) -> None:
    result = sample("--n", 3, "--start", 5, "--set", "generator.truncation=0.5", "--seed", 2)
    assert result.code == 0, result.err
    assert "factory train-labeler --labeled out" in result.out
    assert {path.name for path in Path("out").iterdir()} == {
        "images",
        "samples.json",
        "preview.png",
    }
    config = StyleGAN2Config(weights=str(gan), truncation=0.5, seed=2)
    generator = generators.load(config, "cpu")
    images, _ = generator.sample([5, 6, 7])
    assert stems() == [5, 6, 7]
    for index, image in zip([5, 6, 7], images, strict=True):
        assert torch.equal(pixels(index), image)
    _, found = find_samples(Path("out"))
    assert found is not None
    assert (found.digest, found.generator) == (generator.digest, config)
    assert list(found.images) == ["000000005", "000000006", "000000007"]


def test_a_diffusion_model(sample: Callable) -> None:
    settings = ("--set", "generator.steps=2", "--set", "generator.batch_size=2")
    assert sample("--n", 3, *settings, generator=DEMO).code == 0
    found = json.loads(Path("out/samples.json").read_text())
    assert found["generator"]["weights"] == DEMO  # valid wherever the package is
    weights = str(find_weights("weights", DEMO))
    config = DDPMConfig(weights=weights, steps=2, batch_size=2)
    generator = generators.load(config, "cpu")
    images = torch.cat([generator.sample(batch)[0] for batch in ([0, 1], [2])])
    assert all(torch.equal(pixels(i), images[i]) for i in range(3))
    assert sample("--n", 3, *settings, generator=DEMO, out="again").code == 0
    for name in ("samples.json", "preview.png", "images/000000002.png"):
        assert Path("out", name).read_bytes() == Path("again", name).read_bytes()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Stop the process, as Ctrl-C does, once this many batches are made."""
    make, made = StyleGAN2Generator.sample, []

    def until(self: StyleGAN2Generator, indices: Sequence[int]) -> Any:
        if len(made) == batch:
            raise KeyboardInterrupt
        made.append(indices)
        return make(self, indices)

    monkeypatch.setattr(StyleGAN2Generator, "sample", until)


def test_an_interrupted_run_resumes(sample: Callable, tree: Callable, monkeypatch) -> None:
    settings = ("--n", 6, "--set", "generator.batch_size=2")
    assert sample(*settings, out="whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert sample(*settings).code == 130
    assert stems() == [0, 1, 2, 3]
    written = Path("out/images/000000001.png").stat().st_mtime_ns
    assert sample(*settings).code == 0
    assert tree(Path("out")) == tree(Path("whole"))
    assert Path("out/images/000000001.png").stat().st_mtime_ns == written


def test_more_samples_and_lost_ones(sample: Callable, tree: Callable) -> None:
    settings = ("--set", "generator.precision=float32")
    assert sample("--n", 2, *settings).code == 0
    assert sample("--n", 2, "--start", 6, *settings).code == 0
    assert stems() == [0, 1, 6, 7]
    before = tree(Path("out"))
    Path("out/images/000000001.png").unlink()
    (Path("out") / "masks").mkdir()
    (Path("out") / "masks" / "000000000.png").write_bytes(b"mine")
    assert sample("--n", 2, *settings).code == 0
    after = tree(Path("out"))
    assert after.pop("masks/000000000.png")
    assert after == before


def test_mismatched_samples_are_refused(
    sample: Callable, tree: Callable, tmp_path: Path, make_gan: Callable
) -> None:
    assert sample("--n", 2).code == 0
    before = tree(Path("out"))

    def refused(result: Any, *words: str) -> None:
        assert (result.code, len(result.err.splitlines())) == (1, 1), result.err
        for word in words:
            assert word in result.err
        assert tree(Path("out")) == before

    changed = sample("--n", 3, "--set", "generator.truncation=0.5")
    refused(changed, "sampled with generator.truncation=0.7, found 0.5")
    refused(sample("--n", 3, "--seed", 1), "give --set generator.seed=0")
    other = make_gan(tmp_path / "other", seed=1)
    refused(sample("--n", 3, generator=other), "its images are from generator", "found generator")
    refused(sample("--set", "generator.steps=10"), "not a setting of kind 'stylegan2'")
    refused(sample(generator=None), "found no generator: give --generator DIR")
    refused(sample(generator="nowhere.pkl"), "generator.weights: nowhere.pkl does not exist")
    refused(sample("--start", 999_999_999, "--n", 2), "expected indices below 1000000000")
    Path("out/samples.json").write_text("{}")
    before = tree(Path("out"))
    refused(sample(), "samples.json is damaged ('digest': Field required)")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    refused(sample(out="full"), "--out full holds no samples but notes.txt")
    assert [path.name for path in Path("full").iterdir()] == ["notes.txt"]
