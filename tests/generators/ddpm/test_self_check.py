"""A trained network denoises with its own settings, and only with them."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from generators.ddpm.architecture import Architecture
from generators.ddpm.checkpoints import load_checkpoint, load_unet
from generators.ddpm.guided_settings import Settings, schedule_of
from generators.ddpm.self_check import TRAINED, SelfCheck

ROOT = Path(__file__).parents[3]
TRAINED_NETWORK = ROOT / "factory" / "demo" / "generator"
UNTRAINED = ROOT / "tests" / "golden" / "guided_diffusion" / "default_heads.pt"
ANY = Architecture(time_channels=32, channels=(32,), resnets_per_level=1, attends=(True,))


@pytest.fixture(scope="module")
def trained() -> tuple[SelfCheck, DDPMScheduler]:
    unet, schedule, noise = load_unet(str(TRAINED_NETWORK))
    check = SelfCheck.of(unet, "cpu")
    return SelfCheck(check.network, check.image_size, check.samples, noise), schedule


def test_a_trained_network_denoises(trained: tuple[SelfCheck, DDPMScheduler]) -> None:
    check, schedule = trained
    assert check.error(schedule) < TRAINED / 2


@pytest.mark.parametrize(
    "wrong",
    [
        schedule_of("cosine", predicts="v"),
        schedule_of("linear", predicts="epsilon"),
        schedule_of("linear", predicts="x_start"),
        schedule_of("linear", train_steps=4000, predicts="v"),
    ],
)
def test_with_wrong_settings_it_does_not(
    trained: tuple[SelfCheck, DDPMScheduler], wrong: DDPMScheduler
) -> None:
    assert trained[0].error(wrong) > 1.4 * TRAINED


def test_the_right_settings_are_found_among_those_assumed(
    trained: tuple[SelfCheck, DDPMScheduler],
) -> None:
    check, _ = trained
    settings = Settings(64, schedule="cosine", assumed=frozenset({"schedule", "predicts"}))
    better = check.better(ANY, settings)
    assert better is not None
    assert (better[0].schedule, better[0].predicts) == ("linear", "v")
    assert better[1] < TRAINED
    given = Settings(64, schedule="cosine", assumed=frozenset({"predicts"}))
    assert check.better(ANY, given) is None


def test_untrained_and_broken_networks_do_not_denoise() -> None:
    checkpoint = load_checkpoint(UNTRAINED, image_size=32)
    check = SelfCheck.of(checkpoint.unet, "cpu")
    assert check.error(checkpoint.schedule) > 1.4 * TRAINED
    assert check.better(checkpoint.architecture, checkpoint.settings) is None
    assert isinstance(check.network.unet, UNet2DModel)
    nn.init.constant_(check.network.unet.conv_out.bias, torch.nan)
    assert check.error(checkpoint.schedule) == float("inf")
