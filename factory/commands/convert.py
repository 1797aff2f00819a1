"""`factory convert`: a published checkpoint becomes a folder of safetensors and JSON.

Diffusion models are written in diffusers' format, StyleGAN2 networks in that of
`generators.stylegan2.storage`. The file's content is read, never run.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError

from factory.terminal.progress import quiet_libraries
from generators.kind import kind_of

if TYPE_CHECKING:
    from diffusers import UNet2DModel

    from generators.ddpm.architecture import Architecture
    from generators.ddpm.checkpoints import Checkpoint
    from generators.ddpm.guided_settings import Settings
    from generators.stylegan2.pickles import Snapshot


def convert(source: Path, out: Path, given: dict[str, Any], check: bool, console: Console) -> None:
    """Write the network in file `source` to the new folder `out`, and print a description.

    `given` holds settings that a diffusion model's file lacks (None: not given), see
    `generators.ddpm.guided_settings.GivenSettings`. With `check`, a diffusion model that sees
    timesteps is tried, and a warning names the settings to doubt if it does not denoise.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a guided-diffusion network that diffusers can express nor a StyleGAN2
            snapshot, or settings are `given` for a StyleGAN2 file, which contains its own.
        FileExistsError: `out` is not empty.
        OSError: the disk is full.
    """
    if not source.is_file():
        found = "a folder" if source.is_dir() else "nothing"
        raise FileNotFoundError(
            f"{source}: found {found}, expected a guided-diffusion .pt or StyleGAN2 .pkl file"
        )
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: expected a new folder")
    quiet_libraries()
    if kind_of(source) == "stylegan2":
        console.print(_convert_stylegan2(source, out, given))
    else:
        _convert_ddpm(source, out, given, check, console)
    kind = given.get("parametrisation")
    more = f" --set generator.parametrisation={kind}" if kind else ""
    console.print(f"network in {out}; use it as --generator {out}{more}", soft_wrap=True)


def _convert_ddpm(
    source: Path, out: Path, given: dict[str, Any], check: bool, console: Console
) -> None:
    from generators.ddpm.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(source, **given)
    for name, tensor in checkpoint.unet.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{source}: {name} holds values that are not finite: it is damaged")
    _write(checkpoint.save, out)
    console.print(summary(checkpoint))
    if check and checkpoint.settings.parametrisation is None:
        with console.status("trying the network on noisy images; --no-check leaves this out"):
            found = doubt(checkpoint.unet, checkpoint.architecture, checkpoint.settings)
        if found:
            console.print(f"warning: {found}", soft_wrap=True)


def doubt(unet: UNet2DModel, net: Architecture, settings: Settings) -> str | None:
    """Why the settings, or the network, may be wrong; None if it denoises. Takes over `unet`."""
    from generators.ddpm.guided_settings import noise_schedule
    from generators.ddpm.self_check import TRAINED, SelfCheck

    trial = SelfCheck.of(unet)
    error = trial.error(noise_schedule(net, settings))
    if error < TRAINED:
        return None
    found = (
        f"the network does not denoise its own samples (error {error:.2f}, of trained networks "
        f"below {TRAINED})"
    )
    if better := trial.better(net, settings):
        other, error = better
        options = [
            f"--{key} {getattr(other, key)}"
            for key in ("schedule", "predicts")
            if getattr(other, key) != getattr(settings, key)
        ]
        return f"{found}, but with {' '.join(options)} it does ({error:.2f}): convert it with that"
    assumed = sorted(f"--{key.replace('_', '-')}" for key in settings.assumed)
    if assumed:
        return f"{found}: it is untrained, or what was assumed is wrong: {', '.join(assumed)}"
    return f"{found}: it is untrained, or one of the given settings is wrong"


def _convert_stylegan2(source: Path, out: Path, given: dict[str, Any]) -> Table:
    from generators.stylegan2 import storage
    from generators.stylegan2.pickles import read_snapshot

    if needless := [name for name, value in given.items() if value is not None]:
        option = needless[0].replace("_", "-")
        raise ValueError(f"--{option} is for diffusion models; {source} contains its settings")
    snapshot = read_snapshot(source)
    _write(partial(storage.save, snapshot.network), out)
    return stylegan2_summary(snapshot)


def _write(save: Callable[[Path], object], out: Path) -> None:
    """Create the folder `out` with what `save` writes, completely or not at all; raises OSError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as folder:
        complete = Path(folder) / "network"
        try:
            save(complete)
        except SafetensorError as error:  # safetensors' error for a full disk
            raise OSError(f"cannot write {out}: {error}") from error
        os.replace(complete, out)


def summary(checkpoint: Checkpoint) -> Table:
    """A table for the terminal: what was read from the file, then what was given or assumed."""
    unet, net, settings, weights = checkpoint
    table = Table("", "", show_header=False)
    table.add_row("weights", weights)
    unit = net.time_channels
    table.add_row("channels", ", ".join(map(str, net.channels)))
    table.add_row("multipliers", ", ".join(f"{width / unit:g}" for width in net.channels))
    table.add_row("residual blocks per level", str(net.resnets_per_level))
    sides = [str(settings.image_size >> level) for level, on in enumerate(net.attends) if on]
    table.add_row("attention at", ", ".join(f"{side} px" for side in sides) or "the middle only")
    table.add_row("down and up by", "residual blocks" if net.resnet_resampling else "convolutions")
    table.add_row("scale-shift norm", "yes" if net.scale_shift else "no")
    table.add_row("learned sigma", "yes" if net.learns_sigma else "no")
    table.add_row("classes", str(net.num_classes or "none"))
    table.add_row("parameters", f"{unet.num_parameters() / 1e6:.1f} M", end_section=True)
    for label, value, keys in _unread(settings):
        table.add_row(label, f"{value} (assumed)" if settings.assumed & keys else value)
    return table


def _unread(settings: Settings) -> Iterator[tuple[str, str, set[str]]]:
    """What the file does not say: label, value, and the settings that it comes from."""
    yield "image size", f"{settings.image_size} px", {"image_size"}
    yield "channels per head", str(settings.channels_per_head), {"channels_per_head", "heads"}
    yield "attention order", settings.attention_order, {"attention_order"}
    if settings.parametrisation:
        yield "parametrisation", settings.parametrisation, set()
        return
    yield "noise schedule", settings.schedule, {"schedule"}
    yield "training steps", str(settings.train_steps), {"train_steps"}
    if settings.train_steps != 1000:
        rescaled = "yes" if settings.rescale_timesteps else "no"
        yield "rescaled timesteps", rescaled, {"rescale_timesteps"}
    yield "predicts", settings.predicts, {"predicts"}


def stylegan2_summary(snapshot: Snapshot) -> Table:
    """A table for the terminal: the network's shape, feature layers and digest."""
    from generators.stylegan2.model import weights_digest

    network, name = snapshot
    config, layers = network.config, network.synthesis.layers
    widths = [config.channels(resolution) for resolution in config.block_resolutions]
    # Two convolutions per block, one in the first; each gives a feature map of the block's width.
    features = 2 * sum(widths) - widths[0]
    parameters = sum(p.numel() for p in network.parameters())
    table = Table("", "", show_header=False)
    table.add_row("weights", name)
    table.add_row("resolution", f"{config.resolution} px")
    table.add_row("architecture", config.architecture)
    table.add_row("classes", str(config.c_dim or "none"))
    table.add_row("channels", ", ".join(map(str, widths)))
    table.add_row("layers", f"{len(layers)} ({layers[0]} to {layers[-1]}), {features} channels")
    table.add_row("latents z, w", f"{config.z_dim}, {config.w_dim}")
    table.add_row("mapping layers", str(config.mapping_layers))
    table.add_row("parameters", f"{parameters / 1e6:.1f} M", end_section=True)
    table.add_row("digest", weights_digest(network)[:12])
    return table
