"""VDVAE against the published program, and files that do not fit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from generators.encoders import vdvae_network
from generators.encoders.config import EncoderConfig
from generators.encoders.files import read_checkpoint
from generators.encoders.network import Checkpoint
from generators.encoders.vdvae import build, shape_of
from generators.encoders.vdvae_config import PRESETS, VDVAEShape
from tests.generators.encoders.published import (
    ABOUT_VDVAE,
    VDVAE,
    VDVAE_BLOCKS,
    assert_equal,
    expected,
)

WANTED = expected("vdvae")


def config(**settings: Any) -> EncoderConfig:
    return EncoderConfig(**{"weights": str(VDVAE), **VDVAE_BLOCKS, **settings})


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return read_checkpoint(VDVAE)


@torch.inference_mode()
def test_all_maps_are_those_of_the_published_program(checkpoint: Checkpoint) -> None:
    network = build(checkpoint, config())
    everything = build(checkpoint, config(layers=network.layer_names))
    assert_equal({"input": network.normalise(WANTED["image"])}, WANTED)
    maps = everything(WANTED["image"])
    assert_equal(maps, WANTED)
    assert set(maps) == {
        name for name in WANTED if name.startswith(("encoder.", "decoder.dec_blocks"))
    }
    last = maps["decoder.dec_blocks.11"]
    assert_equal({"decoder.dmol": network.decoder.pixels(last)}, WANTED)


@torch.inference_mode()
def test_latents_are_sampled_with_the_given_noise(checkpoint: Checkpoint) -> None:
    names = [f"encoder.at{r}" for r in (32, 16, 8, 4, 1)]
    network = build(checkpoint, config(layers=names))
    maps = {x.shape[-1]: x for x in network(WANTED["image"]).values()}
    eps = [WANTED[f"sample/eps.{number}"] for number in range(12)]
    walk = network.decoder.walk(maps, 2, lambda number, shape: eps[number])
    assert_equal({f"decoder.{name}": x for name, x, _ in walk}, WANTED, "sample/")


def test_the_default_is_the_last_map_of_each_resolution(checkpoint: Checkpoint) -> None:
    last = ABOUT_VDVAE["decoder_last_block"]
    assert build(checkpoint, config()).layers == (
        *(f"encoder.at{r}" for r in ABOUT_VDVAE["encoder_channels"]),
        *(f"decoder.dec_blocks.{last[r]}" for r in ("1", "4", "8", "16", "32")),
    )


def test_it_stops_after_the_last_map_that_is_needed(checkpoint: Checkpoint) -> None:
    network = build(checkpoint, config(layers=("encoder.at16",)))
    network.encoder.enc_blocks[8] = network.decoder = torch.nn.Identity()  # of no use from here on
    network.normalise = lambda images: WANTED["input"]
    assert_equal(network(WANTED["image"]), WANTED)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_the_numbers_of_blocks(name: str) -> None:
    preset = PRESETS[name]
    widths = dict.fromkeys((1, 4, 8, 16, 32, 64, 128, 256, 512, 1024), 8) | {1024: 4}
    shape = VDVAEShape(**preset._asdict(), widths=widths, zdim=2, mixtures=2)
    with torch.device("meta"):
        network = vdvae_network.VDVAE(shape)
    found = shape_of(Checkpoint(network.state_dict()), EncoderConfig(weights=""))
    assert (found.encoder, found.decoder) == (shape.encoder, shape.decoder)
    assert found.widths.items() <= widths.items()
    assert (found.zdim, found.mixtures, found.biased) == (2, 2, shape.biased)
    assert (found.shift, found.scale) == preset[2:]


def test_settings_that_do_not_fit(checkpoint: Checkpoint) -> None:
    def refusal(**settings: Any) -> str:
        with pytest.raises(ValueError, match=r".") as caught:
            build(checkpoint, config(**settings))
        message = str(caught.value)
        assert "\n" not in message
        return message

    nothing = {"encoder_blocks": None, "decoder_blocks": None}
    assert "13 encoder and 12 decoder blocks, which no preset has: set " in refusal(**nothing)
    assert "encoder has 13 blocks, the settings 33" in refusal(**nothing, preset="cifar10")
    assert "set both" in refusal(decoder_blocks=None)
    assert "the decoder ends at 8 pixels" in refusal(decoder_blocks="1x1,4m1,4x2,8m4,8x7")
    assert "8m4: no such map was made before" in refusal(decoder_blocks="1x1,8m4,32x10")
    assert "but the encoder no map" in refusal(decoder_blocks="2x1,4x2,8x2,32x7")
    for blocks, problem in (
        ("32x2,16x11", "follows one whose output has 32 pixels"),
        ("32x2,nonsense", "unknown block 'nonsense'"),
        ("32x2,32d3,8x10", "cannot be pooled by 3"),
        ("9999x9999", "expected numbers from 1 to 4096"),
        ("4096x999,4096x999", "more than 1000 blocks"),
    ):
        assert problem in refusal(encoder_blocks=blocks)
    assert "unknown layer 'encoder.at7'" in refusal(layers=("encoder.at7",))


def test_weights_that_do_not_fit(checkpoint: Checkpoint) -> None:
    def refusal(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> str:
        tensors = dict(checkpoint.tensors)
        changed = change(tensors.pop(name))
        with pytest.raises(ValueError, match=r".") as caught:
            build(Checkpoint(tensors if changed is None else tensors | {name: changed}), config())
        return str(caught.value)

    bias = "decoder.bias_xs.1"
    assert f"{bias} is missing" in refusal(bias, lambda tensor: None)
    assert "decoder.dec_blocks.0.z_proj.weight is missing" in refusal(
        "decoder.dec_blocks.0.z_proj.weight", lambda tensor: None
    )
    assert "has shape [1], expected [24]" in refusal(
        "encoder.in_conv.bias", lambda tensor: tensor[:1]
    )
    assert "is not finite" in refusal("decoder.gain", lambda tensor: tensor * float("nan"))
    assert "not the weights of a VDVAE" in refusal(
        "encoder.enc_blocks.0.c1.weight", lambda tensor: tensor.flatten()
    )
