"""StyleGAN2 snapshots (`.pkl`) as our network, as StyleGAN2-ADA and StyleGAN3's program write them.

`generators.files` reads them as data: nothing in them is executed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from factory_core.models import first_fault
from generators.files.inert import PersistentObject
from generators.files.modules import printable, stored_tensors
from generators.files.survey import survey
from generators.files.torch_file import STRICT, TorchFile
from generators.files.unsupported import describe
from generators.stylegan2.config import ROSINALITY_KEY, NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.rosinality import NETWORKS as RENAMED
from generators.stylegan2.rosinality import read_rosinality
from generators.stylegan2.storage import assemble, check_shapes

# Of the networks in a file, those that make images; the first is averaged over training.
NETWORKS = ("G_ema", "G")
# Keyword arguments of the originals' classes -> ours.
TOP = {"z_dim": "z_dim", "w_dim": "w_dim", "c_dim": "c_dim", "img_resolution": "resolution"}
MAPPING = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr"}
SYNTHESIS = {
    "channel_base": "channel_base",
    "channel_max": "channel_max",
    "architecture": "architecture",
    "conv_clamp": "conv_clamp",
    "num_fp16_res": "num_fp16_res",
}
# The order of arguments without a keyword.
POSITIONS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
# Our defaults are StyleGAN2-ADA's. StyleGAN3's program takes the arguments of the synthesis network
# at the top level and has other defaults.
NEWER_DEFAULTS = {"conv_clamp": 256, "num_fp16_res": 4}
NEWER_ARGUMENTS = (*SYNTHESIS, "fused_modconv_default", "fp16_channels_last", "resample_filter")
# Arguments that must have this value, because our network supports no other.
FIXED = {"img_channels": 3, "activation": "lrelu", "resample_filter": [1, 3, 3, 1]}
FIXED |= {"use_noise": True, "kernel_size": 3}
WIDTHS = ("embed_features", "layer_features")  # those of w, by default (None) too
MAX_FILE_BYTES = 2**32  # ten times the largest network that was published
# Arguments that decide memory layout, speed or training only.
IDLE = ("fp16_channels_last", "fused_modconv_default", "w_avg_beta")


class Snapshot(NamedTuple):
    """A network from a file, and its name there, with whether it is averaged."""

    network: StyleGAN2
    name: str


def read_snapshot(path: Path) -> Snapshot:
    """The network of a StyleGAN2 pickle that makes its images, averaged if it has one.

    The pickle may be in a file of `torch.save`, and may be the network alone. Files of
    rosinality/stylegan2-pytorch are read as well.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file contains what no such pickle has, is damaged, or is not supported;
            one line that begins with the path.
    """
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {size} bytes: expected at most {MAX_FILE_BYTES}")
    try:
        return _read(path, size)
    except ValueError as error:
        raise ValueError(f"{path}: {describe(path) or error}") from None


def read_generator(path: Path) -> StyleGAN2:
    """The network of `read_snapshot`."""
    return read_snapshot(path).network


def _read(path: Path, size: int) -> Snapshot:
    if ROSINALITY_KEY in survey(path).words:
        network, name = read_rosinality(path)
        return Snapshot(network, name + (" (averaged)" if name == RENAMED[0] else ""))
    file = TorchFile(path, STRICT)
    name, module = _find(file.value)
    config = network_config(_arguments(module, name), _is_newer(module))
    stored = dict(stored_tensors(module, name))
    check_shapes(config, {name: t.size for name, t in stored.items()}, name)
    # Many tensors may share one storage, so their shapes alone could fill the memory.
    if 2 * sum(math.prod(t.size) for t in stored.values()) > size:
        raise ValueError(f"its tensors are larger than the file of {size} bytes")
    tensors = {name: file.tensor(t) for name, t in stored.items()}
    averaged = " (averaged)" if name == NETWORKS[0] else ""
    return Snapshot(assemble(config, tensors, name), name + averaged)


def _find(content: Any) -> tuple[str, PersistentObject]:
    """The network that makes the images and its name; a module alone is that network."""
    if isinstance(content, PersistentObject):
        return content.class_name[:60], content
    found = content if isinstance(content, dict) else {}
    for name in NETWORKS:
        if isinstance(module := found.get(name), PersistentObject):
            return name, module
    names = ", ".join(map(printable, list(found)[:5])) or f"a {type(content).__name__}"
    raise ValueError(f"it holds no network {NETWORKS[0]}, but {names}: give a StyleGAN2 snapshot")


def _arguments(module: PersistentObject, name: str) -> dict[str, Any]:
    """The arguments that the original was built with, by keyword."""
    arguments, positional = module.state.get("_init_kwargs"), module.state.get("_init_args", ())
    if not isinstance(arguments, dict) or not isinstance(positional, tuple):
        raise ValueError(f"{name} does not say how it was built (_init_kwargs)")
    if len(positional) > len(POSITIONS):
        raise ValueError(f"{name} was built with {len(positional)} arguments without a name")
    return dict(zip(POSITIONS, positional, strict=False)) | arguments


def _is_newer(module: PersistentObject) -> bool:
    """Whether StyleGAN3's program wrote the network, by what that keeps in its modules alone."""
    modules = module.state.get("_modules")
    synthesis = modules.get("synthesis") if isinstance(modules, dict) else None
    return isinstance(synthesis, PersistentObject) and "num_fp16_res" in synthesis.state


def network_config(arguments: Mapping[Any, Any], newer: bool = False) -> NetworkConfig:
    """Our description of a network from the arguments that the original was built with.

    `newer`: StyleGAN3's program wrote it, which the arguments may also show.

    Raises ValueError if one is unknown, out of range, or not supported by our network.
    """
    newer = newer or any(name in arguments for name in NEWER_ARGUMENTS)
    settings: dict[str, Any] = dict(NEWER_DEFAULTS) if newer else {}
    parts = {"mapping_kwargs": MAPPING, "synthesis_kwargs": SYNTHESIS}
    widths: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in parts:
            if not isinstance(value, dict):
                raise ValueError(f"it was built with {name} that are not arguments")
            widths |= {key: value[key] for key in WIDTHS if key in value}
            settings |= _translate(value, parts[name])
        else:
            settings |= _translate({name: value}, TOP | SYNTHESIS)
    try:
        config = NetworkConfig(**settings)
    except ValidationError as error:
        raise ValueError(f"it was built with a wrong {first_fault(error)}") from None
    for name, width in widths.items():
        if width not in (None, config.w_dim):
            raise ValueError(f"it has a different {name}: expected {config.w_dim}, the w_dim")
    return config


def _translate(arguments: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, Any]:
    settings = {}
    for name, value in arguments.items():
        if name in names:
            settings[names[name]] = value
        elif name in FIXED:
            if (list(value) if isinstance(value, tuple) else value) != FIXED[name]:
                raise ValueError(f"it has a different {name}: expected {FIXED[name]}")
        elif name not in IDLE and name not in WIDTHS:
            raise ValueError(f"it was built with {printable(name)}, which is unknown")
    return settings
