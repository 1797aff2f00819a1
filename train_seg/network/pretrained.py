"""Pretrained encoders: by name, from this machine's cache, or from a file that the user has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file

from train_seg.config import SegmenterConfig

CACHED = "cached"
WEIGHTS = "imagenet"
RANDOM = "random"
FILES = ("config.json", "model.safetensors")  # the files that smp requests from the hub
SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".bin"})
PREFIXES = ("", "module.", "backbone.", "encoder.", "net.encoder.")
HEADS = ("fc.", "classifier.", "aux_classifier.", "head.", "last_linear.")  # not of the encoder
COUNTERS = ".num_batches_tracked"  # of batch norms; older files lack them


def settle_encoder_weights(config: SegmenterConfig) -> SegmenterConfig:
    """`config` with `encoder_weights` settled for this machine.

    `cached` becomes `imagenet`, or None (random) if these weights were never downloaded for this
    encoder; timm's encoders (`tu-...`) count as never downloaded. A file gets its absolute path.
    The result is part of a training's identity, so a resumed run cannot continue from different
    weights. Raises ValueError or FileNotFoundError if there is no such file, or no encoder for it.
    """
    settled = config.encoder_weights
    if settled == CACHED:
        settled = WEIGHTS if _is_cached(config.encoder) else None
    elif (file := weights_file(settled)) is not None:
        if config.is_unet_gn:
            raise ValueError(
                f"encoder_weights {settled}: {config.architecture} has no encoder; leave it out"
            )
        if not file.is_file():
            raise FileNotFoundError(
                f"encoder_weights: {file} is not a file: give a state dict of {config.encoder} "
                "(.pth or .safetensors), imagenet, cached or null"
            )
        settled = str(file.absolute())
    return config.model_copy(update={"encoder_weights": settled})


def weights_file(encoder_weights: str | None) -> Path | None:
    """The file that the setting names, None if it names published weights or none."""
    if encoder_weights is None:
        return None
    path = Path(encoder_weights).expanduser()
    return path if path.suffix in SUFFIXES or len(path.parts) > 1 else None


def weights_identity(encoder_weights: str | None) -> str | None:
    """The setting, with `sha256:...` of its content in place of a file's path."""
    file = weights_file(encoder_weights)
    if file is None:
        return encoder_weights
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def describe_weights(encoder_weights: str | None) -> str:
    """What a settled encoder starts from, for people: `random`, `imagenet`, a file and its hash."""
    identity = weights_identity(encoder_weights)
    file = weights_file(encoder_weights)
    return identity or RANDOM if file is None else f"{file.name} ({identity})"


def load_encoder(encoder: torch.nn.Module, file: Path) -> None:
    """Give an encoder of segmentation-models-pytorch the weights in `file`.

    The file is a state dict of the backbone, of a classifier on it (torchvision, timm) or of a
    segmenter around it; nothing in it is executed. Raises ValueError unless every weight of the
    encoder is there in its shape, and nothing else but a head and stages that are not used.
    """
    wrapped = getattr(encoder, "model", None)  # of timm's encoders
    network = wrapped if isinstance(wrapped, torch.nn.Module) else encoder
    own = network.state_dict()
    wanted = {key for key in own if not key.endswith(COUNTERS)}
    found = _read(file)
    fits = [(prefix, len(wanted & _inside(found, prefix).keys())) for prefix in PREFIXES]
    prefix, count = max(fits, key=lambda fit: fit[1])
    state = _inside(found, prefix)
    if missing := sorted(wanted - state.keys()):
        raise ValueError(
            f"{file} has {count} of the encoder's {len(wanted)} weights, {missing[0]} is missing: "
            "expected a state dict of this encoder"
        )
    unused = (f"{n}." for n, m in network.named_children() if isinstance(m, torch.nn.Identity))
    known = (*HEADS, *unused)
    if more := sorted(k for k in state.keys() - own.keys() if not k.startswith(known)):
        raise ValueError(f"{file} also holds {more[0]}: expected a state dict of this encoder")
    for key in sorted(wanted):
        if state[key].shape != own[key].shape:
            raise ValueError(
                f"{file}: {key} has the shape {list(state[key].shape)}, expected "
                f"{list(own[key].shape)} for this encoder"
            )
    network.load_state_dict({key: state.get(key, own[key]) for key in own})


def _inside(found: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under `prefix`, without it."""
    return {k.removeprefix(prefix): t for k, t in found.items() if k.startswith(prefix)}


def _read(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file of safetensors or torch; raises ValueError in one line."""
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged: {str(error).splitlines()[0]}") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # torch raises a dozen unrelated types
        raise ValueError(
            f"{file} is damaged, or holds more than tensors: expected a state dict, as written by "
            "torch.save(network.state_dict(), file) or as safetensors"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # of a training's checkpoint
    is_state = isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )
    if not is_state:
        raise ValueError(f"{file} holds no state dict: expected names and tensors")
    return content


def _is_cached(encoder: str) -> bool:
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get(WEIGHTS)
    if settings is None:
        return False
    where = {"repo_id": settings["repo_id"], "revision": settings["revision"]}
    return all(isinstance(try_to_load_from_cache(filename=f, **where), str) for f in FILES)
