"""Conversion against a functional U-Net that runs on the state dict, after the paper."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.ddpm.architecture import Architecture
from generators.ddpm.guided_diffusion import build_unet, check_saveable, convert
from generators.ddpm.guided_settings import (
    IMAGENET_64,
    IMAGENET_128,
    IMAGENET_512,
    LSUN,
    Settings,
    noise_schedule,
)
from generators.ddpm.unet import cast_weights, embed, walk

TINY = Architecture(time_channels=32, channels=(32, 64), resnets_per_level=1, attends=(False, True))
IMAGENET_256 = replace(LSUN, num_classes=1000)


def random_state(net: Architecture) -> dict[str, Tensor]:
    """A random network as guided-diffusion would save it."""
    state: dict[str, Tensor] = {}
    rng = torch.Generator().manual_seed(0)

    def layer(name: str, *shape: int) -> None:
        weight = torch.randn(shape, generator=rng)
        norm = len(shape) == 1
        state[f"{name}.weight"] = 1 + 0.1 * weight if norm else weight / math.prod(shape[1:]) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=rng)

    def resnet(name: str, c_in: int, c_out: int) -> None:
        layer(f"{name}.in_layers.0", c_in)
        layer(f"{name}.in_layers.2", c_out, c_in, 3, 3)
        layer(f"{name}.emb_layers.1", (1 + net.scale_shift) * c_out, 4 * net.time_channels)
        layer(f"{name}.out_layers.0", c_out)
        layer(f"{name}.out_layers.3", c_out, c_out, 3, 3)
        if c_in != c_out:
            layer(f"{name}.skip_connection", c_out, c_in, 1, 1)

    def attention(name: str, c: int) -> None:
        layer(f"{name}.norm", c)
        layer(f"{name}.qkv", 3 * c, c, 1)
        layer(f"{name}.proj_out", c, c, 1)

    def resample(name: str, c: int, conv: str) -> None:
        if net.resnet_resampling:
            resnet(name, c, c)
        else:
            layer(f"{name}.{conv}", c, c, 3, 3)

    layer("time_embed.0", 4 * net.time_channels, net.time_channels)
    layer("time_embed.2", 4 * net.time_channels, 4 * net.time_channels)
    if net.num_classes:
        state["label_emb.weight"] = torch.randn(net.num_classes, 4 * net.time_channels)
    c = net.channels[0]
    layer("input_blocks.0.0", c, 3, 3, 3)
    skips, block = [c], 1
    for level, width in enumerate(net.channels):
        for _ in range(net.resnets_per_level):
            resnet(f"input_blocks.{block}.0", c, width)
            if net.attends[level]:
                attention(f"input_blocks.{block}.1", width)
            c, block = width, block + 1
            skips.append(c)
        if level < len(net.channels) - 1:
            resample(f"input_blocks.{block}.0", c, "op")
            block += 1
            skips.append(c)
    resnet("middle_block.0", c, c)
    attention("middle_block.1", c)
    resnet("middle_block.2", c, c)
    block = 0
    for level in reversed(range(len(net.channels))):
        for i in range(net.resnets_per_level + 1):
            resnet(f"output_blocks.{block}.0", c + skips.pop(), net.channels[level])
            c = net.channels[level]
            if net.attends[level]:
                attention(f"output_blocks.{block}.1", c)
            if level and i == net.resnets_per_level:
                resample(f"output_blocks.{block}.{2 if net.attends[level] else 1}", c, "conv")
            block += 1
    layer("out.0", c)
    layer("out.2", 6 if net.learns_sigma else 3, c, 3, 3)
    return state


class ReferenceUNet:
    """The forward pass of ADM, directly on the tensors of a state dict."""

    def __init__(
        self,
        state: dict[str, Tensor],
        net: Architecture,
        heads: Callable[[str, int], int],  # of an attention layer and its width
        order: str,
    ):
        self.state, self.net, self.heads, self.order = state, net, heads, order

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.embed(t, y)
        downs = {
            level * (self.net.resnets_per_level + 1) for level in range(len(self.net.channels))
        }
        num_blocks = len(downs) * (self.net.resnets_per_level + 1)
        h = self.affine(F.conv2d, "input_blocks.0.0", x, padding=1)
        skips = [h]
        for block in range(1, num_blocks):
            halve = (lambda h: F.avg_pool2d(h, 2)) if block in downs else (lambda h: h)
            h = self.layers(f"input_blocks.{block}", h, emb, halve)
            skips.append(h)
        h = self.layers("middle_block", h, emb)
        for block in range(num_blocks):
            h = self.layers(f"output_blocks.{block}", torch.cat([h, skips.pop()], 1), emb)
        h = F.silu(self.affine(self.group_norm, "out.0", h))
        return self.affine(F.conv2d, "out.2", h, padding=1)

    def embed(self, t: Tensor, y: Tensor | None) -> Tensor:
        half = self.net.time_channels // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        emb = torch.cat([angles.cos(), angles.sin()], 1)
        emb = self.affine(F.linear, "time_embed.0", emb)
        emb = self.affine(F.linear, "time_embed.2", F.silu(emb))
        return emb if y is None else emb + self.state["label_emb.weight"][y]

    def affine(self, function: Callable, name: str, h: Tensor, **settings) -> Tensor:
        return function(h, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **settings)

    @staticmethod
    def group_norm(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.group_norm(h, 32, weight, bias, eps=1e-5)

    def layers(
        self, block: str, h: Tensor, emb: Tensor, halve: Callable[[Tensor], Tensor] = lambda h: h
    ) -> Tensor:
        def double(h: Tensor) -> Tensor:
            return F.interpolate(h, scale_factor=2, mode="nearest")

        for i in range(3):
            name = f"{block}.{i}"
            if f"{name}.qkv.weight" in self.state:
                h = self.attention(name, h)
            elif f"{name}.op.weight" in self.state:
                h = self.affine(F.conv2d, f"{name}.op", h, stride=2, padding=1)
            elif f"{name}.conv.weight" in self.state:
                h = self.affine(F.conv2d, f"{name}.conv", double(h), padding=1)
            elif f"{name}.in_layers.0.weight" in self.state:
                up = block.startswith("output") and i > 0
                h = self.resnet(name, h, emb, double if up else halve)
        return h

    def resnet(self, name: str, x: Tensor, emb: Tensor, resample: Callable) -> Tensor:
        h = resample(F.silu(self.affine(self.group_norm, f"{name}.in_layers.0", x)))
        x = resample(x)
        h = self.affine(F.conv2d, f"{name}.in_layers.2", h, padding=1)
        e = self.affine(F.linear, f"{name}.emb_layers.1", F.silu(emb))[..., None, None]
        if self.net.scale_shift:
            scale, shift = e.chunk(2, 1)
            h = self.affine(self.group_norm, f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self.affine(self.group_norm, f"{name}.out_layers.0", h + e)
        h = self.affine(F.conv2d, f"{name}.out_layers.3", F.silu(h), padding=1)
        if f"{name}.skip_connection.weight" in self.state:
            x = self.affine(F.conv2d, f"{name}.skip_connection", x)
        return x + h

    def attention(self, name: str, x: Tensor) -> Tensor:
        n, c, *size = x.shape
        heads = self.heads(name, c)
        h = self.affine(self.group_norm, f"{name}.norm", x).flatten(2)
        h = self.affine(F.conv1d, f"{name}.qkv", h)
        if self.order == "legacy":
            q, k, v = h.reshape(n * heads, 3 * c // heads, -1).chunk(3, 1)
        else:
            q, k, v = (part.reshape(n * heads, c // heads, -1) for part in h.chunk(3, 1))
        weight = torch.softmax(q.transpose(1, 2) @ k / (c // heads) ** 0.5, dim=-1)
        h = (v @ weight.transpose(1, 2)).reshape(n, c, -1)
        return x + self.affine(F.conv1d, f"{name}.proj_out", h).reshape(n, c, *size)


VARIANTS = {
    "as published": (TINY, {}),
    "class-conditional": (replace(TINY, num_classes=7), {}),
    "convolutions between levels": (replace(TINY, resnet_resampling=False), {}),
    "convolutions, no scale": (replace(TINY, resnet_resampling=False, scale_shift=False), {}),
    "fixed sigma": (replace(TINY, learns_sigma=False), {}),
    "new attention order": (TINY, {"attention_order": "new"}),
    "attention at every level": (replace(TINY, attends=(True, True)), {}),
    "heads by number": (
        replace(TINY, attends=(True, True)),
        {"channels_per_head": None, "heads": 4},
    ),
    "fewer heads in the decoder": (
        replace(TINY, attends=(True, True)),
        {"channels_per_head": None, "heads": 4, "num_heads_upsample": 2},
    ),
    "attention in the middle alone": (replace(TINY, attends=(False, False)), {}),
    "half width at the finest level": (replace(TINY, time_channels=64), {}),
    "three levels": (
        Architecture(
            time_channels=32,
            channels=(32, 64, 64),
            resnets_per_level=2,
            attends=(False, True, False),
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_converted_network_equals_the_reference(name: str) -> None:
    net, given = VARIANTS[name]
    state = random_state(net)
    assert Architecture.read(state) == net
    settings = Settings.choose(net, **({"image_size": 16, "channels_per_head": 8} | given))
    unet = convert(state, net, settings)

    def heads(name: str, width: int) -> int:
        upsample = given.get("num_heads_upsample") if name.startswith("output") else None
        return upsample or given.get("heads") or width // 8

    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    y = torch.tensor([5, 1]) if net.num_classes else None
    expected = ReferenceUNet(state, net, heads, settings.attention_order)(x, t, y)
    assert expected.shape[1] == (6 if net.learns_sigma else 3)
    classes = None if y is None else unet.class_embedding(y)
    for found in (unet(x, t, class_labels=y).sample, walk(unet, x, embed(unet, t, classes))[0]):
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("net", "millions"),
    [
        (LSUN, 552.814086),
        (replace(IMAGENET_64, num_classes=1000), 296),  # Dhariwal & Nichol 2021, Table 4
        (replace(IMAGENET_128, num_classes=1000), 422),
        (IMAGENET_256, 554),
        (replace(IMAGENET_512, num_classes=1000), 559),
    ],
)
def test_published_networks_have_their_published_number_of_parameters(
    net: Architecture, millions: float
) -> None:
    found = build_unet(net, Settings.choose(net)).num_parameters() / 1e6
    assert (found if net == LSUN else round(found)) == millions


def test_settings_of_published_networks() -> None:
    at_64_a_head = Settings(256, channels_per_head=64, heads=None)
    assert Settings.choose(LSUN) == Settings.choose(IMAGENET_256) == at_64_a_head
    assert Settings.choose(IMAGENET_512) == replace(at_64_a_head, image_size=512)
    assert Settings.choose(IMAGENET_64) == replace(
        at_64_a_head, image_size=64, attention_order="new", schedule="cosine"
    )
    assert Settings.choose(IMAGENET_128) == Settings(128, heads=4)
    fine_tuned = replace(LSUN, num_classes=7, learns_sigma=False)
    assert Settings.choose(fine_tuned) == at_64_a_head
    given = Settings.choose(IMAGENET_64, image_size=96, heads=4, attention_order="legacy")
    assert given == Settings(96, heads=4, schedule="cosine")
    assert given.assumed == {"schedule", "train_steps", "predicts", "num_heads_upsample"}


def test_settings_of_other_networks_are_the_programs_defaults() -> None:
    net = replace(TINY, attends=(True, True))
    found = Settings.choose(net)
    assert found == Settings(16, channels_per_head=None, heads=4)
    unread = {"image_size", "heads", "attention_order", "schedule", "train_steps", "predicts"}
    assert found.assumed == unread
    given = Settings.choose(
        net,
        image_size=32,
        channels_per_head=8,
        attention_order="new",
        schedule="cosine",
        train_steps=4000,
        rescale_timesteps=True,
        predicts="v",
    )
    assert given.assumed == set()
    assert (given.channels_per_head, given.heads) == (8, None)
    assert "rescale_timesteps" in Settings.choose(net, train_steps=4000).assumed


def test_a_number_of_heads_at_a_single_width_becomes_channels_per_head() -> None:
    settings = Settings.choose(TINY, heads=4)
    assert (settings.channels_per_head, settings.heads) == (16, None)
    check_saveable(TINY, settings)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_size is 31, expected a multiple of 2"):
        Settings.choose(TINY, image_size=31)
    with pytest.raises(ValueError, match="both channels_per_head and heads"):
        Settings.choose(TINY, channels_per_head=16, heads=2)
    with pytest.raises(ValueError, match="both channels_per_head and num_heads_upsample"):
        Settings.choose(TINY, channels_per_head=16, num_heads_upsample=2)
    with pytest.raises(
        ValueError, match=r"over \[64\] channels.*multiples of 24.*channels_per_head"
    ):
        Settings.choose(TINY, channels_per_head=24)
    with pytest.raises(ValueError, match=r"over \[64\] channels.*multiples of 3: set heads"):
        Settings.choose(TINY, heads=3)
    with pytest.raises(ValueError, match=r"multiples of 3: set num_heads_upsample"):
        Settings.choose(TINY, num_heads_upsample=3)
    with pytest.raises(ValueError, match="train_steps is 20, expected more than 20"):
        noise_schedule(TINY, Settings.choose(TINY, train_steps=20))


def test_what_diffusers_cannot_express_is_not_saved() -> None:
    check_saveable(LSUN, Settings.choose(LSUN))
    with pytest.raises(ValueError, match=r"4 heads \(assumed\) of \[128, 192, 256\] channels"):
        check_saveable(IMAGENET_128, Settings.choose(IMAGENET_128))
    with pytest.raises(ValueError, match="time embedding of 256 channels over 128"):
        check_saveable(IMAGENET_512, Settings.choose(IMAGENET_512))
    with pytest.raises(ValueError, match="4 heads, and 2 in the decoder"):
        check_saveable(TINY, Settings.choose(TINY, num_heads_upsample=2))


def test_the_network_decides_the_variance_and_the_settings_the_schedule() -> None:
    cosine = noise_schedule(IMAGENET_64, Settings.choose(IMAGENET_64))
    # Nichol & Dhariwal 2021, Eq. 17: the share of signal left half way is cos²(π/4 + s) or so.
    assert float(cosine.alphas_cumprod[500]) == pytest.approx(0.49, abs=0.01)
    assert cosine.config.variance_type == "learned_range"
    fixed = replace(TINY, learns_sigma=False)
    assert noise_schedule(fixed, Settings.choose(fixed)).config.variance_type == "fixed_large"


@pytest.mark.parametrize(
    ("predicts", "theirs"), [("epsilon", "epsilon"), ("x_start", "sample"), ("v", "v_prediction")]
)
def test_more_training_steps_are_finer_steps(predicts: Any, theirs: str) -> None:
    for schedule in ("linear", "cosine"):
        given = {"schedule": schedule, "predicts": predicts}
        coarse, fine = (
            noise_schedule(TINY, Settings.choose(TINY, train_steps=steps, **given))
            for steps in (1000, 4000)
        )
        assert fine.config.prediction_type == theirs
        assert fine.config.num_train_timesteps == len(fine.alphas_cumprod) == 4000
        # The noise after a share of the steps is about the same.
        at = fine.alphas_cumprod[4 * torch.tensor([100, 500, 900])]
        assert torch.allclose(at, coarse.alphas_cumprod[[100, 500, 900]], atol=0.01)


@torch.inference_mode()
@pytest.mark.parametrize("net", [TINY, replace(TINY, time_channels=64)])
def test_rescaled_timesteps(net: Architecture) -> None:
    """The network sees t * 1000 / train_steps."""
    state, given = random_state(net), {"channels_per_head": 8, "train_steps": 4000}
    settings = Settings.choose(net, rescale_timesteps=True, **given)
    unet = convert(state, net, settings)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 3900])
    expected = ReferenceUNet(state, net, lambda _, width: width // 8, "legacy")(x, t / 4)
    output = walk(unet, x, embed(unet, t))[0]
    assert float((output - expected).abs().max() / expected.abs().max()) < 1e-5
    plain = convert(state, net, Settings.choose(net, **given))
    assert torch.allclose(walk(plain, x, embed(plain, t / 4))[0], output, atol=1e-4)
    cast_weights(unet, torch.bfloat16)
    assert torch.allclose(embed(unet, t), embed(plain, t / 4), atol=1e-4)


def test_a_damaged_state_dict_names_the_tensors() -> None:
    state = random_state(TINY)

    def read(changed: dict[str, Tensor]) -> None:
        net = Architecture.read(changed)
        convert(changed, net, Settings.choose(net, channels_per_head=16))

    def refused(changed: dict[str, Tensor], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            read(changed)

    def without(part: str) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if part not in name}

    refused(
        without("middle_block.2"),
        r"missing: middle_block.2.in_layers.0.weight, middle_block.2.in_layers.0.bias, "
        r"middle_block.2.in_layers.2.weight and 7 more$",
    )
    refused(state | {"out.3.bias": torch.zeros(3)}, r"unknown: out.3.bias$")
    refused(
        state | {"out.2.bias": torch.zeros(5)},
        r"of a different shape: out.2.bias \(found \[5\], expected \[6\]\)$",
    )
    refused(state | {"out.2.bias": torch.zeros(6, dtype=torch.int8)}, "not of floating point: out")
    refused(without("output_blocks.3"), "found 3 output_blocks and 1 upsamplers")
    refused(without("input_blocks.3"), "found no input_blocks.3.0.out_layers.3.weight")
    refused(state | {"out.2.weight": torch.zeros(())}, "found no out.2.weight")
    refused(without("output_blocks"), "not a guided-diffusion U-Net.* but no output_blocks.0.0")
    refused(state | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}, "enlarges images")
    refused(state | {"input_blocks.0.0.weight": torch.zeros(32, 1, 3, 3)}, "grey networks are not")
    refused(state | {"input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)}, "work on latents")
    refused(state | {"input_blocks.1.0.out_layers.3.weight": torch.zeros(8)}, "multiples of 32")
