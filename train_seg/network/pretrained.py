"""Pretrained encoders that are already on this machine; nothing here downloads."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from huggingface_hub import try_to_load_from_cache

from train_seg.config import SegmenterConfig

CACHED = "cached"
WEIGHTS = "imagenet"
FILES = ("config.json", "model.safetensors")  # what smp asks the hub for


def settle_encoder_weights(config: SegmenterConfig) -> SegmenterConfig:
    """`config` with `encoder_weights: cached` replaced by what is on this machine.

    That is `imagenet`, or None (random) where they were never downloaded for this encoder; timm's
    encoders (`tu-...`) count as never. What is settled is part of a training's identity, so that a
    resumed run cannot go on from other weights.
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
