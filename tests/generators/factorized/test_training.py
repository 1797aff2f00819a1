"""Training a tiny factorized model, resuming it exactly, and starting from a plain one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import generators
from factory_core.segmentation_unet import SegmentationUNet
from generators.base import REGIONS_MAP
from generators.config import FactorizedConfig
from generators.ddpm import training as plain
from generators.ddpm.config import DDPMTrainingConfig
from generators.factorized import storage, training
from generators.factorized.config import FactorizedFeatures, FactorizedTrainingConfig
from generators.factorized.model import FactorizedGenerator
from generators.factorized.storage import WEIGHTS_FILE
from generators.factorized.training import (
    FactorizedTraining,
    imbalance,
    mask_statistics,
    start,
    start_on,
)
from generators.kind import kind_of
from generators.training.images import TrainingImages

TINY = {
    "image_size": 16,
    "channels": (8, 16),
    "steps": 6,
    "batch_size": 4,
    "checkpoint_every": 3,
    "preview_every": 6,
    "flips": True,
    "quarter_turns": True,
    "precision": "float32",
}


def config(**settings) -> FactorizedTrainingConfig:
    return FactorizedTrainingConfig(**(TINY | settings))


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    return TrainingImages.of(torch.randint(0, 256, (10, 3, 16, 16), generator=rng).to(torch.uint8))


@pytest.fixture(scope="module")
def folder(images: TrainingImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("factorized")
    training.train(images, out, config(), device="cpu")
    return out


def load(folder: Path, **features) -> FactorizedGenerator:
    about = FactorizedFeatures(blocks=(1,), timesteps=(50,), **features)
    settings = FactorizedConfig(
        weights=str(folder), steps=2, batch_size=3, precision="float32", features=about
    )
    generator = generators.load(settings, "cpu")
    assert isinstance(generator, FactorizedGenerator)
    return generator


def test_samples_come_with_their_regions(folder: Path) -> None:
    assert kind_of(folder) == "factorized"
    generator = load(folder)
    found, maps = generator.sample([0, 1])
    assert found.shape == (2, 3, 16, 16)
    assert tuple(maps.spec) == generator.feature_spec
    assert maps[REGIONS_MAP].shape == (2, 3, 16, 16)
    assert (maps[REGIONS_MAP].sum(1) - 1).abs().max() < 1e-6
    assert [spec.name for spec in generator.feature_spec] == ["t50.b1", REGIONS_MAP]
    alone, _ = generator.sample([1])
    assert torch.equal(alone, found[1:])


def test_regions_alone_need_no_other_pass(folder: Path) -> None:
    passes = {}
    for record in ("renoise", "regions"):
        generator = load(folder, record=record)
        count, run = [0], generator.network._run

        def counted(*args, count=count, run=run):
            count[0] += 1
            return run(*args)

        generator.network._run = counted  # type: ignore[method-assign]
        _, maps = generator.sample([0])
        passes[record] = count[0]
    assert passes == {"renoise": 3, "regions": 2}  # of which 2 are the sampler's
    assert list(maps) == [REGIONS_MAP]


def test_photographs_are_segmented_in_one_pass(folder: Path) -> None:
    generator = load(folder, record="regions")
    photographs = torch.randint(0, 256, (2, 3, 16, 16)).to(torch.uint8)
    maps = generator.encode(photographs)
    assert tuple(maps.spec) == generator.feature_spec
    assert torch.equal(maps[REGIONS_MAP], generator.find_regions(photographs))
    averaged = load(folder, record="regions", region_noises=3).find_regions(photographs)
    assert (averaged.sum(1) - 1).abs().max() < 1e-6
    assert not torch.equal(averaged, maps[REGIONS_MAP])


def test_the_sheet_shows_images_and_regions(folder: Path) -> None:
    width, height = Image.open(folder / "samples" / "step_000006.png").size
    assert width == 2 * height


@pytest.mark.parametrize("structure", ["factorized", "unshared"])
def test_an_interrupted_run_resumes_exactly(
    images: TrainingImages, tmp_path: Path, stop_after: Callable, structure: str
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = config(structure=structure)
    training.train(images, whole, settings, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        training.train(images, broken, settings, device="cpu", progress=[stop_after(4)])
    training.train(images, broken, settings, device="cpu")
    expected, found = load_file(whole / WEIGHTS_FILE), load_file(broken / WEIGHTS_FILE)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_it_starts_from_a_plain_model(images: TrainingImages, tmp_path: Path) -> None:
    plain.train(images, tmp_path, DDPMTrainingConfig(**TINY, prediction="epsilon"), device="cpu")
    net = start(config(), str(tmp_path))
    theirs = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    ours = net.unet.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    masker = net.masker.state_dict()
    copied = [name for name in masker if not name.startswith("conv_out.")]
    assert copied
    assert all(torch.equal(masker[name], theirs[name]) for name in copied)
    with pytest.raises(ValueError, match="set channels, resnets_per_level"):
        start(config(channels=(8, 8)), str(tmp_path))


def test_it_starts_from_another_factorized_model(folder: Path) -> None:
    net = start(config(seed=5), str(folder))
    expected = load_file(folder / WEIGHTS_FILE)
    assert all(torch.equal(t, expected[name]) for name, t in net.state_dict().items())
    with pytest.raises(ValueError, match="has regions 3, expected 4: set regions=3"):
        start(config(regions=4), str(folder))


def test_every_region_starts_with_a_share_of_the_pixels(images: TrainingImages) -> None:
    """Otherwise some seeds start with one region that has all of them."""
    x = torch.stack([images.image(row) for row in range(10)]) / 127.5 - 1
    largest = {}
    for logit_std in (0.0, 1.5):
        shares = []
        for seed in range(4):
            net = start_on(images, config(logit_std=logit_std, seed=seed), None)
            with torch.inference_mode():
                _, m = net(x, torch.full((10,), 100))
            shares.append(mask_statistics(m)["largest"].item())
        largest[logit_std] = max(shares)
    assert largest[1.5] < 0.6 < largest[0.0]


def test_imbalance_is_the_divergence_from_equal_shares() -> None:
    uniform, hard = torch.full((2, 3, 4, 4), 1 / 3), torch.zeros(2, 3, 4, 4)
    hard[:, 0] = 1
    assert imbalance(uniform).item() == pytest.approx(0, abs=1e-6)
    assert imbalance(hard).item() == pytest.approx(math.log(3), abs=1e-6)
    halves = hard.clone()
    halves[0] = halves[0].roll(1, 0)
    assert imbalance(halves).item() == pytest.approx(math.log(3 / 2), abs=1e-6)


def test_balance_pushes_apart_what_one_region_has(images: TrainingImages, tmp_path: Path) -> None:
    """From the same start, the mean masks are closer to each other after a training with it."""
    found = {}
    for balance in (0.0, 10.0):
        out = tmp_path / str(balance)
        settings = config(balance=balance, logit_std=0.0, ema_decay=0.0, lr=0.01, steps=12)
        training.train(images, out, settings, device="cpu")
        batch = torch.stack([images.image(row) for row in range(3)])
        m = load(out, record="regions").find_regions(batch)
        found[balance] = imbalance(m).item()
    assert found[10.0] < found[0.0]


def test_a_collapse_is_reported_once(images: TrainingImages) -> None:
    settings = config()
    module = FactorizedTraining(settings, images, start(settings, None))
    module.trainer = type("Trainer", (), {"global_step": 600})()  # type: ignore[assignment]
    with pytest.warns(UserWarning, match=r"one of 3 has 99\.5% of the pixels at step 600"):
        module._warn_of_collapse(0.995)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module._warn_of_collapse(0.995)


def test_statistics_of_masks() -> None:
    uniform = torch.full((2, 4, 8, 8), 0.25)
    found = mask_statistics(uniform)
    assert found["entropy"].item() == pytest.approx(math.log(4))
    assert found["spread"].item() == pytest.approx(0, abs=1e-6)
    hard = torch.zeros(1, 2, 8, 8)
    hard[:, 0, :6], hard[:, 1, 6:] = 1, 1
    found = mask_statistics(hard)
    assert found["entropy"].item() == pytest.approx(0, abs=1e-6)
    assert found["largest"].item() == pytest.approx(0.75)


def test_damaged_folders_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no factorized diffusion model at"):
        load(tmp_path)
    for name in ("factorized.json", WEIGHTS_FILE):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file(
        {**tensors, "unet.conv_in.bias": torch.full((8,), torch.nan)}, tmp_path / WEIGHTS_FILE
    )
    with pytest.raises(ValueError, match=r"unet\.conv_in\.bias is not finite"):
        load(tmp_path)
    del tensors["unet.conv_in.bias"]
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=r"1 tensors differ, such as unet\.conv_in\.bias"):
        load(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path)


def test_a_segmenter_starts_with_the_same_padding(images: TrainingImages, folder: Path) -> None:
    """The encoder's first maps are those of the generator, up to the border."""
    unet = SegmentationUNet(load(folder).describe_unet(), classes=2).unet
    assert {m.padding_mode for m in unet.modules() if isinstance(m, nn.Conv2d)} == {
        "replicate",
        "zeros",  # of convolutions that see one pixel
    }
    x = torch.from_numpy(images.pixels[:2]).float()
    theirs = storage.load(folder)[0].unet.conv_in
    torch.testing.assert_close(unet.conv_in(x), theirs(x))
