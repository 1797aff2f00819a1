"""Pretrained encoders that are already on this machine; nothing here downloads."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from huggingface_hub import try_to_load_from_cache

from train_seg.config import SegmenterConfig

CACHED = "cached"
WEIGHTS = "imagenet"
FILES = ("config.json", "model.safetensors")  # the files that smp requests from the hub


def settle_encoder_weights(config: SegmenterConfig) -> SegmenterConfig:
    """`config` with `encoder_weights: cached` replaced by what this machine has.

    The result is `imagenet`, or None (random) if these weights were never downloaded for this
    encoder; timm's encoders (`tu-...`) count as never downloaded. The result is part of a
    training's identity, so a resumed run cannot continue from different weights.
    """
    if config.encoder_weights != CACHED:
        return config
    found = WEIGHTS if _is_cached(config.encoder) else None
    return config.model_copy(update={"encoder_weights": found})


def _is_cached(encoder: str) -> bool:
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get(WEIGHTS)
    if settings is None:
        return False
    where = {"repo_id": settings["repo_id"], "revision": settings["revision"]}
    return all(isinstance(try_to_load_from_cache(filename=f, **where), str) for f in FILES)
