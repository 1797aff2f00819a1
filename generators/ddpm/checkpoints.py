"""Networks from files: diffusers folders and hub ids, and guided-diffusion's `.pt` files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from diffusers import DDPMScheduler, UNet2DModel

from generators.ddpm import guided_diffusion
from generators.ddpm.guided_diffusion import Architecture, AttentionOrder, Settings
from generators.ddpm.noise import NoiseModel
from generators.ddpm.state import read_state


class GivenSettings(TypedDict, total=False):
    """Settings that a guided-diffusion file lacks; for None, see `Settings.choose`.

    `image_size` in pixels; `channels_per_head` of attention, or `heads` if their number is the same
    at all levels; `attention_order` of q, k and v.
    """

    image_size: int | None
    channels_per_head: int | None
    heads: int | None
    attention_order: AttentionOrder | None


class Checkpoint(NamedTuple):
    """A guided-diffusion network in diffusers' form, with what was read or assumed about it."""

    unet: UNet2DModel
    architecture: Architecture
    settings: Settings
    weights: str  # where they were in the file, and whether they are averaged

    @property
    def schedule(self) -> DDPMScheduler:
        """The noise schedule of training."""
        return guided_diffusion.noise_schedule(self.architecture, self.settings)

    def save(self, folder: Path) -> None:
        """Write a diffusers folder: the U-Net at its top, the schedule in `scheduler/`.

        Raises ValueError if diffusers has no settings for this network.
        """
        guided_diffusion.check_saveable(self.architecture, self.settings)
        self.unet.save_pretrained(folder)
        self.schedule.save_pretrained(folder / "scheduler")


def load_unet(
    weights: str, **given: Unpack[GivenSettings]
) -> tuple[UNet2DModel, DDPMScheduler, NoiseModel]:
    """Read a diffusers directory, a hub id or a guided-diffusion `.pt` file.

    A directory is a pipeline (`unet/`, `scheduler/`) or a bare U-Net. A bare U-Net carries no noise
    schedule: it gets that of the DDPM paper (linear, epsilon). Our own training adds `noise.json`;
    without it the noise is white.

    Raises FileNotFoundError if nothing is there, ValueError if it is not a U-Net or if settings are
    `given` for a directory, which has its own.
    """
    if Path(weights).is_file():
        checkpoint = load_checkpoint(Path(weights), **given)
        return checkpoint.unet, checkpoint.schedule, NoiseModel()
    if needless := [key for key, value in given.items() if value is not None]:
        raise ValueError(
            f"found generator.{needless[0]} with {weights}, expected it with a guided-diffusion "
            f".pt file only: set generator.{needless[0]}=null"
        )
    return _load_directory(weights)


def _load_directory(weights: str) -> tuple[UNet2DModel, DDPMScheduler, NoiseModel]:
    path = Path(weights)
    looks_local = path.exists() or weights.startswith((".", "/", "~")) or weights.count("/") != 1
    if looks_local and not any((path / f).is_file() for f in ("unet/config.json", "config.json")):
        raise FileNotFoundError(
            f"no generator at {weights}: expected a diffusers folder with unet/config.json or "
            f"config.json, or a guided-diffusion .pt file; train one with `factory "
            f"train-generator`, or give a hub id"
        )
    subfolder = None if (path / "config.json").is_file() else "unet"
    try:
        unet = UNet2DModel.from_pretrained(weights, subfolder=subfolder, low_cpu_mem_usage=False)
    except Exception as error:  # diffusers raises OSError, ValueError, RuntimeError, ...
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"cannot read the U-Net weights in {weights}: {reason}") from error
    schedule_at = path / "scheduler" / "scheduler_config.json"
    if schedule_at.is_file() or not path.exists():
        scheduler = DDPMScheduler.from_pretrained(weights, subfolder="scheduler")
    else:
        scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    return unet, scheduler, NoiseModel.load(path)


def load_checkpoint(path: Path, **given: Unpack[GivenSettings]) -> Checkpoint:
    """Read a file of a guided-diffusion network, in float32; see `read_state` for its formats.

    Tensors that need no conversion stay mapped to the file: the LSUN network (2.2 GB) is in memory
    once, not three times.

    Raises ValueError in one line if it cannot be read as such a network.
    """
    try:
        found = read_state(path)
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
