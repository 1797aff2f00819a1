"""The conversion job: a published checkpoint becomes a folder that diffusers reads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError

from factory.progress import quiet_libraries

if TYPE_CHECKING:
    from generators.ddpm.checkpoints import Checkpoint


def convert(source: Path, out: Path, given: dict[str, Any], console: Console) -> None:
    """Write the network in file `source` to the new folder `out`, and print what it is.

    `given` is what the file does not say, see `generators.ddpm.checkpoints.GivenSettings`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a guided-diffusion network, or one that diffusers cannot express.
        FileExistsError: something is in `out` already.
        OSError: the disk is full.
    """
    if not source.is_file():
        found = "a folder" if source.is_dir() else "nothing"
        raise FileNotFoundError(f"{source}: found {found}, expected a guided-diffusion .pt file")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: expected a new folder")
    quiet_libraries()
    from generators.ddpm.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(source, **given)
    for name, tensor in checkpoint.unet.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{source}: {name} holds values that are not finite: it is damaged")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as folder:
        complete = Path(folder) / "network"
        try:
            checkpoint.save(complete)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(f"cannot write {out}: {error}") from error
        os.replace(complete, out)
    console.print(summary(checkpoint))
    console.print(f"network in {out}; use it as --generator {out}")


def summary(checkpoint: Checkpoint) -> Table:
    """For the terminal: what was read from the file, then what was given or assumed."""
    unet, net, settings = checkpoint
    table = Table("", "", show_header=False)
    unit = net.time_channels
    table.add_row("channels", ", ".join(map(str, net.channels)))
    table.add_row("multipliers", ", ".join(f"{width / unit:g}" for width in net.channels))
    table.add_row("residual blocks a level", str(net.resnets_per_level))
    sides = [str(settings.image_size >> level) for level, on in enumerate(net.attends) if on]
    table.add_row("attention at", ", ".join(f"{side} px" for side in sides) or "the middle alone")
    table.add_row("down and up by", "residual blocks" if net.resnet_resampling else "convolutions")
    table.add_row("scale-shift norm", "yes" if net.scale_shift else "no")
    table.add_row("learned sigma", "yes" if net.learns_sigma else "no")
    table.add_row("classes", str(net.num_classes or "none"))
    table.add_row("parameters", f"{unet.num_parameters() / 1e6:.1f} M", end_section=True)
    table.add_row("image size", f"{settings.image_size} px")
    table.add_row("channels a head", str(settings.channels_per_head))
    table.add_row("attention order", settings.attention_order)
    table.add_row("noise schedule", settings.beta_schedule)
    return table
