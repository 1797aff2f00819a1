"""Where a training starts: at random weights, a generator's U-Net, or a finished segmenter."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from factory_core.dataset import canonical_json
from factory_core.segmentation_unet import UNetDescription
from train_seg.config import NETWORK_SETTINGS, UNET_GN, SegmenterConfig
from train_seg.network.network import Network, build
from train_seg.network.segmenter import Segmenter

LAST_LAYERS = ("net.segmentation_head.", "net.unet.conv_out.")  # of smp's models and of ours

Start = UNetDescription | Segmenter

log = logging.getLogger(__name__)


def start_size(init: Start | None) -> tuple[int, int] | None:
    """(height, width) of the images that `init` was trained on, if it says so."""
    if init is None:
        return None
    if isinstance(init, Segmenter):
        return init.image_size
    size = init.config.get("sample_size")
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def settle_start(config: SegmenterConfig, init: Start | None) -> SegmenterConfig:
    """`config` for a network that takes the weights of `init`.

    Raises ValueError if the two describe different networks.
    """
    if init is None:
        return config
    if isinstance(init, Segmenter):
        if init.members:
            raise ValueError(
                f"the segmenter to start from is a mean of {len(init.members)}: start from one of "
                "them"
            )
        return _settle_segmenter(config, init.config)
    if not config.is_unet_gn:
        raise ValueError(
            f"a generator's U-Net is the start of {UNET_GN} only, found {config.architecture}: "
            f"set architecture={UNET_GN}, or start from a segmenter"
        )
    shape = {k: v for k, v in init.config.items() if not k.startswith("_")}
    return config.model_copy(update={"unet": shape})


def _settle_segmenter(config: SegmenterConfig, theirs: SegmenterConfig) -> SegmenterConfig:
    wanted = network_settings(theirs)
    if config.is_unet_gn and theirs.is_unet_gn:
        config = config.model_copy(update={key: wanted[key] for key in ("unet", "width")})
    found = network_settings(config)
    for key, value in wanted.items():
        if str(found[key]).lower() != str(value).lower():
            raise ValueError(
                f"the segmenter to start from has {key}={value}, found {key}={found[key]}: "
                "a training continues the same network"
            )
    return config


def network_settings(config: SegmenterConfig) -> dict[str, Any]:
    """The settings on which the shapes of the weights depend."""
    used = ("architecture", "width", "unet") if config.is_unet_gn else NETWORK_SETTINGS
    return config.model_dump(include=set(used))


def build_from(
    init: Start | None, config: SegmenterConfig, classes: Sequence[str], image_size: tuple[int, int]
) -> Network:
    """The network of `config` (see `settle_start`) with the weights of `init`.

    The last layer stays random after a generator, and after a segmenter of different classes; the
    latter is logged. Raises ValueError as `build`.
    """
    if not isinstance(init, Segmenter):
        return build(config, len(classes), image_size, start=None if init is None else init.weights)
    network = build(config, len(classes), image_size, pretrained=False)
    state = init.network.state_dict()
    if list(init.classes) != list(classes):
        log.warning(
            "the segmenter to start from has the classes %s, the data %s: the last layer starts "
            "at random",
            ", ".join(init.classes),
            ", ".join(classes),
        )
        own = network.state_dict()
        state |= {k: own[k] for k in own if k.startswith(LAST_LAYERS)}
    network.load_state_dict(state)
    return network


def start_digest(init: Start | None) -> str | None:
    """sha256 of the weights and settings of `init`."""
    if init is None:
        return None
    if isinstance(init, Segmenter):
        return _digest(init.network.state_dict(), [network_settings(init.config), init.classes])
    shape = {k: v for k, v in init.config.items() if not k.startswith("_")}
    return _digest(init.weights, shape)


def _digest(weights: Mapping[str, torch.Tensor], about: Any) -> str:
    h = hashlib.sha256(canonical_json(about))
    for name, tensor in sorted(weights.items()):
        h.update(name.encode())
        h.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()
