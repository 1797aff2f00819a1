"""Downloaded encoder weights are used; others are not downloaded."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import segmentation_models_pytorch as smp

from train_seg.config import SegmenterConfig
from train_seg.network.pretrained import settle_encoder_weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which is offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def settled(encoder: str, weights: str | None = "cached") -> str | None:
    config = SegmenterConfig(encoder=encoder, encoder_weights=weights)
    return settle_encoder_weights(config).encoder_weights


def test_cached_means_downloaded_weights(cache):
    assert settled("resnet18") is None
    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    folder = cache / f"models--{settings['repo_id'].replace('/', '--')}"
    snapshot = folder / "snapshots" / settings["revision"]
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert settled("resnet18") is None  # an interrupted download
    (snapshot / "model.safetensors").touch()
    assert settled("resnet18") == "imagenet"
    assert settled("resnet34") is None


def test_weights_requested_by_name_are_kept(cache):
    assert settled("resnet18", "imagenet") == "imagenet"
    assert settled("resnet18", None) is None
    assert settled("tu-resnet18") is None
    assert settled("no such encoder") is None
