"""StyleALAE against the published program, and files that do not fit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from generators.encoders.alae import ALAE, build
from generators.encoders.config import EncoderConfig
from generators.encoders.files import read_checkpoint
from generators.encoders.network import Checkpoint
from tests.generators.encoders.published import GOLDEN, assert_equal, expected

FILE = GOLDEN / "alae" / "model_final.pth"
CONFIG = EncoderConfig(weights=str(FILE))
WANTED = expected("alae")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return read_checkpoint(FILE)


@torch.inference_mode()
def test_all_maps_are_those_of_the_published_program(checkpoint: Checkpoint) -> None:
    names = build(checkpoint, CONFIG).layer_names
    network = build(checkpoint, CONFIG.model_copy(update={"layers": names}))
    maps = network(WANTED["image"])
    assert_equal(maps, WANTED)
    assert set(maps) == {n for n in WANTED if n.startswith(("encoder.", "decoder."))}
    found = dict(network.walk(WANTED["input"]))
    assert_equal({"w": found["w"][:, None], "reconstruction": found["reconstruction"]}, WANTED)


@torch.inference_mode()
def test_images_of_half_the_size_enter_at_the_second_block(checkpoint: Checkpoint) -> None:
    found = dict(build(checkpoint, CONFIG).walk(WANTED["half/input"]))
    assert "encoder.0.out" not in found
    found = {"encoder.5.out": found["encoder.5.out"], "w": found["w"][:, None]}
    assert_equal(found, WANTED, "half/")


def test_the_default_is_the_second_convolution_of_each_block(checkpoint: Checkpoint) -> None:
    network = build(checkpoint, CONFIG)
    assert network.layers == tuple(f"encoder.{number}.conv_2" for number in range(6))
    assert network.native_size == 128


def test_a_network_of_nine_blocks_sees_1024_pixels() -> None:
    assert ALAE([1] * 10, [1] * 9, latent=1).native_size == 1024


def test_averages_are_used_and_other_networks_refused(checkpoint: Checkpoint) -> None:
    plain = {
        name.replace("_s.", ".", 1): tensor
        for name, tensor in checkpoint.tensors.items()
        if "_s." in name
    }
    with torch.inference_mode():
        assert_equal(build(Checkpoint(plain), CONFIG)(WANTED["image"]), WANTED)
    with pytest.raises(ValueError, match="found a network 'critic' in it"):
        build(Checkpoint(plain | {"critic.weight": torch.zeros(1)}), CONFIG)


def test_weights_that_do_not_fit(checkpoint: Checkpoint) -> None:
    def refusal(name: str, change: Callable[[Tensor], Tensor | None]) -> str:
        tensors = dict(checkpoint.tensors)
        changed = change(tensors.pop(name))
        with pytest.raises(ValueError, match=r".") as caught:
            build(Checkpoint(tensors if changed is None else tensors | {name: changed}), CONFIG)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    encoder, generator = "discriminator_s.encode_block", "generator_s.decode_block"
    assert "found 3 encoder and 6 generator blocks" in refusal(
        f"{encoder}.3.bias_1", lambda t: None
    )
    assert "found 6 encoder and 2 generator" in refusal(f"{generator}.2.bias_2", torch.flatten)
    assert "discriminator.encode_block.0.conv_1.weight is missing" in refusal(
        f"{encoder}.0.conv_1.weight", lambda t: None
    )
    assert "has shape [1, 1, 3, 3]" in refusal(f"{generator}.0.blur.weight", lambda t: t[:1])
    assert "is not finite" in refusal("generator_s.const", lambda t: t / 0)


def test_layers_that_do_not_exist(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"unknown layer 'encoder\.6\.out'"):
        build(checkpoint, CONFIG.model_copy(update={"layers": ("encoder.6.out",)}))
