"""Checkpoints as published, in their variants; damaged and hostile ones."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from generators.encoders.files import read_checkpoint
from generators.encoders.kinds import network_of
from generators.kind import kind_of

NETWORKS = ("mae", "swav", "dinov2", "dinov3", "vdvae", "alae", "e4e")
BARE = ("mae", "swav", "dinov2", "dinov3", "vdvae", "alae")  # need nothing beside the tensors
PLAIN = ("mae", "swav", "dinov2", "dinov3", "vdvae")  # a state dict, and nothing else to check
# A tensor that every file of the network has, and the state dict's place in the file.
PLACES = {
    "mae": ("model", "blocks.1.norm1.weight"),
    "swav": ("state_dict", "module.layer2.0.bn1.weight"),
    "dinov2": (None, "blocks.1.norm1.weight"),
    "dinov3": (None, "blocks.1.norm1.weight"),
    "vdvae": (None, "decoder.dec_blocks.1.z_proj.bias"),
}


@pytest.fixture
def changed(checkpoint: Callable, tmp_path: Path) -> Callable[..., Path]:
    """`changed(network, change)` -> a copy of its file after `change(state dict)`."""

    def write(network: str, change: Callable[[dict], Any], **how: Any) -> Path:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(checkpoint(network), weights_only=True)
        place, _ = PLACES[network]
        change(content if place is None else content[place])
        file = tmp_path / f"{network}.pth"
        torch.save(content, file, **how)
        return file

    return write


@pytest.mark.parametrize("network", NETWORKS)
def test_the_kind_of_a_file_is_known_without_torch(checkpoint: Callable, network: str) -> None:
    assert kind_of(checkpoint(network)) == "encoder"
    assert network_of(read_checkpoint(checkpoint(network)).tensors) == network


@pytest.mark.parametrize("network", BARE)
@pytest.mark.parametrize("form", ["bare", "legacy", "safetensors"])
def test_other_forms_of_the_same_weights(
    checkpoint: Callable, load: Callable, tmp_path: Path, network: str, form: str
) -> None:
    tensors = dict(read_checkpoint(checkpoint(network)).tensors)
    file = tmp_path / "weights"
    if form == "safetensors":
        save_file({n: t.clone() for n, t in tensors.items()}, file)
    else:
        named = {f"module.{n}": t for n, t in tensors.items()} if form == "legacy" else tensors
        torch.save(named, file, _use_new_zipfile_serialization=form == "bare")
    assert load(network, weights=file).digest == load(network).digest


def test_an_encoder_alone_asks_which_it_is(changed: Callable, load: Callable) -> None:
    def without_decoder(state: dict) -> None:
        for name in [n for n in state if n.startswith(("decoder_", "mask_token"))]:
            del state[name]

    file = changed("mae", without_decoder)
    with pytest.raises(ValueError, match=r"vision transformer.*--set generator\.network=mae"):
        load("mae", weights=file)
    assert load("mae", weights=file, network="mae").digest == load("mae").digest


def test_heads_that_cannot_be_known_are_asked_for(load: Callable) -> None:
    with pytest.raises(ValueError, match=r"width 64.*--set generator\.heads="):
        load("mae", heads=None)
    with pytest.raises(ValueError, match="divisor of the width"):
        load("mae", heads=5)
    assert load("dinov3", heads=None).network.transformer.blocks[0].attn.num_heads == 3


@pytest.mark.parametrize("network", PLAIN)
def test_wrong_tensors_are_refused(changed: Callable, load: Callable, network: str) -> None:
    _, name = PLACES[network]
    short = name.removeprefix("module.")
    faults: list[tuple[Callable[[dict], Any], str]] = [
        (lambda state: state.pop(name), f"{short} is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra is unexpected"),
        (lambda state: state.update({name: torch.ones(3)}), rf"{short} has shape \[3\], expected"),
        (lambda state: state[name].fill_(float("nan")), f"{short} is not finite"),
        (lambda state: state.update({name: "text"}), f"{short}, which is no tensor"),
    ]
    for change, message in faults:
        with pytest.raises(ValueError, match=message) as error:
            load(network, weights=changed(network, change))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_in_a_file_is_executed(
    checkpoint: Callable, load: Callable, evil: Any, tmp_path: Path, network: str
) -> None:
    tensors = dict(read_checkpoint(checkpoint(network)).tensors)
    file = tmp_path / "weights.pth"
    for content in ({"model": tensors, "args": evil}, {**tensors, "more": evil}, evil):
        torch.save(content, file)
        with pytest.raises(ValueError, match=r"weights\.pth: refused, and nothing") as error:
            load(network, weights=file)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(
    checkpoint: Callable, load: Callable, tmp_path: Path, network: str, share: float
) -> None:
    content = checkpoint(network).read_bytes()
    file = tmp_path / "weights.pth"
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"weights\.pth: ") as error:
        load(network, weights=file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ],
)
def test_what_came_instead_of_the_file(
    load: Callable, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load("mae", weights=tmp_path / "weights.pth")


def test_files_of_other_networks(load: Callable, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    for content, message in (
        ({"time_embed.0.weight": torch.zeros(1)}, "found no encoder by the names"),
        ({"state_dict": {}}, "expected the checkpoint of an encoder"),
        ([torch.zeros(1)], "expected the checkpoint of an encoder"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=message):
            load("mae", weights=file)
    with pytest.raises(FileNotFoundError, match="no encoder at"):
        load("mae", weights=tmp_path / "none.pth")


def test_the_wrong_network_is_refused(checkpoint: Callable, load: Callable) -> None:
    with pytest.raises(ValueError, match="not the weights of a SwAV ResNet"):
        load("swav", weights=checkpoint("mae"), network="swav")
    with pytest.raises(ValueError, match="not the weights of a MAE"):
        load("mae", weights=checkpoint("dinov3"), network="mae")
