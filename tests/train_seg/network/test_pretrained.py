"""Encoder weights: downloaded ones are used, others not downloaded; and those of a file."""

from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub.constants
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from train_seg.config import SegmenterConfig
from train_seg.network.network import build
from train_seg.network.pretrained import (
    describe_weights,
    settle_encoder_weights,
    weights_identity,
)


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


# --- a file --------------------------------------------------------------------------------------


def network(weights: Path | None, encoder: str = "resnet18", seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    name = None if weights is None else str(weights)
    config = SegmenterConfig(encoder=encoder, encoder_depth=3, encoder_weights=name)
    return build(settle_encoder_weights(config), 2, (32, 32)).net


def backbone(prefix: str = "") -> dict[str, torch.Tensor]:
    """A ResNet-18 as torchvision saves it, with its classifier."""
    torch.manual_seed(5)
    state = dict(smp.encoders.get_encoder("resnet18", weights=None).state_dict())
    state |= {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def assert_loaded(net: torch.nn.Module) -> None:
    state, wanted = net.encoder.state_dict(), backbone()
    assert state
    for key, tensor in state.items():
        assert torch.equal(tensor, wanted[key]), key


def test_a_file_of_torchvision_or_safetensors(tmp_path):
    torch.save(backbone(), tmp_path / "resnet18.pth")
    assert_loaded(network(tmp_path / "resnet18.pth"))
    torch.save({"state_dict": backbone("module."), "epoch": 3}, tmp_path / "run.pt")
    assert_loaded(network(tmp_path / "run.pt"))
    segmenter = backbone("backbone.") | {"classifier.0.weight": torch.ones(3)}
    save_file(segmenter, tmp_path / "deeplab.safetensors")
    assert_loaded(network(tmp_path / "deeplab.safetensors"))
    counted = {k: t for k, t in backbone().items() if not k.endswith("num_batches_tracked")}
    torch.save(counted, tmp_path / "old.pth")
    assert_loaded(network(tmp_path / "old.pth"))


def test_the_encoder_of_a_segmenter_of_ours(tmp_path):
    first = network(None, seed=7)
    state = {f"net.{k}": t.contiguous() for k, t in first.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    second = network(tmp_path / "model.safetensors").encoder.state_dict()
    assert all(torch.equal(second[k], t) for k, t in first.encoder.state_dict().items())


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path):
    def refused(state: object, match: str, encoder: str = "resnet18") -> None:
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=match) as error:
            network(tmp_path / "w.pth", encoder)
        assert "\n" not in str(error.value)

    state = backbone()
    less = {k: t for k, t in state.items() if k != "layer2.0.conv1.weight"}
    refused(less, r"layer2.0.conv1.weight is missing: expected a state dict of this encoder")
    refused(state, r"has \d+ of the encoder's \d+ weights, layer1.2.* is missing", "resnet34")
    refused(state | {"more": torch.ones(1)}, "also holds more")
    refused(state | {"conv1.weight": torch.ones(64, 1, 7, 7)}, r"shape \[64, 1, 7, 7\], expected")
    refused([1, 2], "holds no state dict")
    refused({"conv1.weight": print}, "damaged, or holds more than tensors")
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"w\.safetensors is damaged"):
        network(tmp_path / "w.safetensors")
    with pytest.raises(FileNotFoundError, match=r"encoder_weights: .*none\.pth is not a file"):
        network(tmp_path / "none.pth")


def test_nothing_in_a_file_is_executed(tmp_path):
    class Program:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'run'}",)

    torch.save(backbone() | {"more": Program()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        network(tmp_path / "w.pth")
    assert not (tmp_path / "run").exists()


def test_what_was_used_is_described_by_content(tmp_path):
    file, same = tmp_path / "a.pth", tmp_path / "moved.pth"
    file.write_bytes(b"1")
    same.write_bytes(b"1")
    assert weights_identity(str(file)) == weights_identity(str(same))
    assert describe_weights(str(file)) == f"a.pth ({weights_identity(str(file))})"
    assert (describe_weights(None), describe_weights("imagenet")) == ("random", "imagenet")
