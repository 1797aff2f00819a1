"""Layer 3 of 3 of the `.pkl` reader: a StyleGAN2-ADA snapshot as our network.

Layer 2 (`unpickling`) reads the file as data, layer 1 (`pickle_machine`) runs its opcodes; neither
executes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from factory_core.models import first_fault
from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.storage import assemble, check_shapes
from generators.stylegan2.unpickling import PersistentObject, StoredTensor, materialise, read_pickle

NETWORK = "G_ema"  # of the networks in a file, the one that makes the images
# Keyword arguments of the original's classes -> ours; both have the same defaults.
TOP = {"z_dim": "z_dim", "w_dim": "w_dim", "c_dim": "c_dim", "img_resolution": "resolution"}
MAPPING = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr"}
SYNTHESIS = {
    "channel_base": "channel_base",
    "channel_max": "channel_max",
    "architecture": "architecture",
    "conv_clamp": "conv_clamp",
    "num_fp16_res": "num_fp16_res",
}
# Arguments that must have this value, because our network supports no other.
FIXED = {"img_channels": 3, "activation": "lrelu", "resample_filter": [1, 3, 3, 1]}
FIXED |= {"use_noise": True, "embed_features": None, "layer_features": None, "kernel_size": 3}
MAX_DEPTH = 8  # of modules in modules: the networks have 4
MAX_MEMBERS = 10_000  # of all modules together: the networks have some hundreds
MAX_FILE_BYTES = 2**32  # ten times the largest network that was published
# Arguments that decide memory layout, speed or training only.
IDLE = ("fp16_channels_last", "fused_modconv_default", "w_avg_beta")


def read_generator(path: Path) -> StyleGAN2:
    """The network `G_ema` of a StyleGAN2-ADA pickle.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file contains what no such pickle has, is damaged, or is not supported;
            one line that begins with the path.
    """
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {size} bytes: expected at most {MAX_FILE_BYTES}")
    content = path.read_bytes()
    try:
        module = _find(read_pickle(content))
        config = network_config(module.state.get("_init_kwargs"))
        stored = dict(_stored_tensors(module))
        check_shapes(config, {name: t.size for name, t in stored.items()}, NETWORK)
        # Many tensors may share one storage, so their shapes alone could fill the memory.
        if 2 * sum(math.prod(t.size) for t in stored.values()) > len(content):
            raise ValueError(f"its tensors are larger than the file of {len(content)} bytes")
        tensors = {name: materialise(t) for name, t in stored.items()}
        return assemble(config, tensors, NETWORK)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _find(content: Any) -> PersistentObject:
    module = content.get(NETWORK) if isinstance(content, dict) else None
    if not isinstance(module, PersistentObject):
        raise ValueError(f"it holds no network {NETWORK}: expected a StyleGAN2-ADA snapshot")
    return module


def network_config(arguments: Any) -> NetworkConfig:
    """Our description of a network from the arguments that the original was built with.

    Raises ValueError if one is unknown, out of range, or not supported by our network.
    """
    if not isinstance(arguments, dict):
        raise ValueError(f"{NETWORK} does not say how it was built (_init_kwargs)")
    settings: dict[str, Any] = {}
    parts = {"mapping_kwargs": MAPPING, "synthesis_kwargs": SYNTHESIS}
    for name, value in arguments.items():
        if name in parts:
            if not isinstance(value, dict):
                raise ValueError(f"{NETWORK} was built with {name} that are not arguments")
            settings |= _translate(value, parts[name])
        else:
            settings |= _translate({name: value}, TOP)
    try:
        return NetworkConfig(**settings)
    except ValidationError as error:
        raise ValueError(f"{NETWORK} was built with a wrong {first_fault(error)}") from None


def _translate(arguments: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, Any]:
    settings = {}
    for name, value in arguments.items():
        if name in names:
            settings[names[name]] = value
        elif name in FIXED:
            if (list(value) if isinstance(value, tuple) else value) != FIXED[name]:
                raise ValueError(f"{NETWORK} has a different {name}: expected {FIXED[name]}")
        elif name not in IDLE:
            raise ValueError(f"{NETWORK} was built with {_shorten(name)}, which is unknown")
    return settings


def _shorten(name: Any) -> str:
    """A name from the file, made safe to print: on one line, without control characters."""
    return ascii(name[:60])[1:-1] if isinstance(name, str) else f"a {type(name).__name__}"


def _stored_tensors(module: PersistentObject) -> Iterator[tuple[str, StoredTensor]]:
    """Parameters and buffers of a module and of those inside it, by dotted name."""
    waiting = [("", module)]
    seen: set[int] = set()
    members_seen = 0
    while waiting:
        prefix, current = waiting.pop()
        if id(current) in seen or prefix.count(".") > MAX_DEPTH:
            raise ValueError(f"{NETWORK} contains the module {prefix} twice or too deep")
        seen.add(id(current))
        for kind in ("_parameters", "_buffers", "_modules"):
            members = current.state.get(kind)
            if not isinstance(members, dict):
                raise ValueError(f"the module {prefix or NETWORK} has no {kind}")
            # Modules that share one long dictionary make a long list of tensors of a small file.
            members_seen += len(members)
            if members_seen > MAX_MEMBERS:
                raise ValueError(f"{NETWORK} has more than {MAX_MEMBERS} parts")
            for name, value in members.items():
                path = prefix + _shorten(name)
                if isinstance(value, PersistentObject) and kind == "_modules":
                    waiting.append((f"{path}.", value))
                elif isinstance(value, StoredTensor) and kind != "_modules":
                    yield path, value
                elif value is not None:
                    raise ValueError(f"{path} is not a valid entry of {kind}")
