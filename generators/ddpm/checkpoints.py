"""Networks from files: diffusers folders, and guided-diffusion's `.pt` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Unpack

from diffusers import CMStochasticIterativeScheduler, DDPMScheduler, UNet2DModel

from generators.ddpm import guided_diffusion
from generators.ddpm.architecture import Architecture
from generators.ddpm.diffusers_folder import load_folder, pipeline_of
from generators.ddpm.guided_settings import (
    SCHEDULE_KEYS,
    GivenSettings,
    Settings,
    check_parametrised,
    noise_schedule,
    schedule_of,
)
from generators.ddpm.noise import NoiseModel
from generators.ddpm.state import read_state


class Checkpoint(NamedTuple):
    """A guided-diffusion network in diffusers' form, with what was read or assumed about it."""

    unet: UNet2DModel
    architecture: Architecture
    settings: Settings
    weights: str  # where they were in the file, and whether they are averaged

    @property
    def schedule(self) -> DDPMScheduler:
        """The noise schedule of training."""
        return noise_schedule(self.architecture, self.settings)

    def save(self, folder: Path) -> None:
        """Write a diffusers folder: the U-Net at its top, the schedule in `scheduler/`.

        That of a consistency model is diffusers' scheduler for these.

        Raises ValueError if diffusers has no settings for this network.
        """
        guided_diffusion.check_saveable(self.architecture, self.settings)
        self.unet.save_pretrained(folder)
        is_consistency = self.settings.parametrisation == "consistency"
        schedule = CMStochasticIterativeScheduler() if is_consistency else self.schedule
        schedule.save_pretrained(folder / "scheduler")


def load_unet(
    weights: str, **given: Unpack[GivenSettings]
) -> tuple[UNet2DModel, DDPMScheduler, NoiseModel]:
    """Read a diffusers directory or a guided-diffusion `.pt` file.

    A directory is a pipeline (`unet/`, `scheduler/`) or a bare U-Net. A bare U-Net carries no noise
    schedule: it gets the given one, or that of the DDPM paper (linear, epsilon). Our own training
    adds `noise.json`; without it the noise is white.

    Raises FileNotFoundError if nothing is there, ValueError if it is not a U-Net or if settings are
    `given` for a directory that has its own.
    """
    path = Path(weights)
    if path.is_file():
        checkpoint = load_checkpoint(path, **given)
        return checkpoint.unet, checkpoint.schedule, NoiseModel()
    path = pipeline_of(path)
    parametrisation = given.pop("parametrisation", None)
    if parametrisation == "edm":
        raise ValueError(_needless("parametrisation=edm", weights))
    check_parametrised({**given, "parametrisation": parametrisation})
    unet, schedule = load_folder(path, is_consistency=parametrisation == "consistency")
    of_schedule: dict[str, Any] = {
        k: v for k, v in given.items() if k in SCHEDULE_KEYS and v is not None
    }
    if schedule is None:
        schedule = schedule_of(**of_schedule)
    elif of_schedule:
        raise ValueError(_needless(next(iter(of_schedule)), f"{weights}, which has a schedule"))
    for key, value in given.items():
        if value is not None and key not in SCHEDULE_KEYS:
            raise ValueError(_needless(key, weights))
    return unet, schedule, NoiseModel.load(path)


def _needless(setting: str, weights: str) -> str:
    return (
        f"found generator.{setting} with {weights}, expected it with a guided-diffusion .pt file "
        f"only: set generator.{setting.split('=')[0]}=null"
    )


def load_checkpoint(path: Path, **given: Unpack[GivenSettings]) -> Checkpoint:
    """Read a file of a guided-diffusion network, in float32; see `read_state` for its formats.

    Tensors that need no conversion stay mapped to the file: the LSUN network (2.2 GB) is in memory
    once, not three times.

    Raises ValueError in one line if it cannot be read as such a network.
    """
    try:
        found = read_state(path, given.get("parametrisation"))
        architecture = Architecture.read(found.state)
        settings = Settings.choose(architecture, **given)
        unet = guided_diffusion.convert(found.state, architecture, settings)
        checkpoint = Checkpoint(unet, architecture, settings, found.description)
        if found.contradicts(checkpoint.schedule.alphas_cumprod):
            raise ValueError(
                "it holds a noise schedule (betas) that differs from the assumed or given one: set "
                "schedule and train_steps to those of its training"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return checkpoint
