"""What the equations of the paper imply, and its numbers of parameters; in float32, to 1e-6."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from generators.ddpm.model import build_unet
from generators.ddpm.unet import embed
from generators.factorized.config import NetworkConfig, Structure
from generators.factorized.network import (
    FactorizedUNet,
    branch_inputs,
    build,
    combine,
    masks_at,
)
from generators.factorized.walking import REGIONS, FactorizedNetwork

SIZE, K = 32, 3
STRUCTURES: list[Structure] = ["factorized", "concat", "masked_middle", "unshared"]


def plain() -> UNet2DModel:
    torch.manual_seed(0)
    return build_unet(SIZE, (16, 32), resnets_per_level=1, attention_levels=1)


def network(structure: Structure = "factorized", regions: int = K) -> FactorizedUNet:
    return FactorizedUNet(plain(), regions, structure).eval()


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest one, as a share of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def t() -> torch.Tensor:
    return torch.tensor([30, 700])


@pytest.mark.parametrize("structure", STRUCTURES)
@torch.inference_mode()
def test_masks_are_distributions_that_differ(
    x: torch.Tensor, t: torch.Tensor, structure: Structure
) -> None:
    output, m = network(structure)(x, t)
    assert output.shape == x.shape
    assert m.shape == (2, K, SIZE, SIZE)
    assert (m.sum(1) - 1).abs().max() < 1e-6
    assert m.std(dim=(2, 3)).max() > 1e-3  # not uniform from the start


@torch.inference_mode()
def test_one_region_is_the_plain_unet(x: torch.Tensor, t: torch.Tensor) -> None:
    output, m = network(regions=1)(x, t)
    assert (m == 1).all()
    assert difference(output, plain().eval()(x, t).sample) < 1e-6


@torch.inference_mode()
def test_the_order_of_the_regions_does_not_matter(x: torch.Tensor, t: torch.Tensor) -> None:
    net = network()
    before, m = net(x, t)
    order = torch.tensor([2, 0, 1])
    net.masker.conv_out.weight.copy_(net.masker.conv_out.weight[order].clone())
    net.masker.conv_out.bias.copy_(net.masker.conv_out.bias[order].clone())
    after, permuted = net(x, t)
    assert (permuted - m[:, order]).abs().max() < 1e-6
    assert difference(after, before) < 1e-6


@torch.inference_mode()
def test_one_batch_of_branches_is_a_loop_over_them(x: torch.Tensor, t: torch.Tensor) -> None:
    """Eq. 6 and 7 written out."""
    net = network()
    expected, m = net(x, t)
    h, skips = net._first_half(x, emb := embed(net.unet, t))
    output = torch.zeros_like(x)
    for k in range(K):
        masked = [
            skip * mask[:, k, None] for skip, mask in zip(skips, masks_at(m, skips), strict=True)
        ]
        y = h
        for up in net.unet.up_blocks:
            count = len(up.resnets)
            masked, own = masked[:-count], tuple(masked[-count:])
            y = up(y, own, emb)
        y = net.unet.conv_out(net.unet.conv_act(net.unet.conv_norm_out(y)))
        output += y * m[:, k, None]
    assert difference(output, expected) < 1e-6


@torch.inference_mode()
def test_a_branch_sees_nothing_outside_its_region(x: torch.Tensor, t: torch.Tensor) -> None:
    """With hard masks and a fixed middle, skips changed in region 1 change nothing in branch 0."""
    net = network()
    h, skips = net._first_half(x, embed(net.unet, t))
    left = torch.arange(SIZE) < SIZE // 2
    m = torch.zeros(2, K, SIZE, SIZE)
    m[:, 0, :, left], m[:, 1, :, ~left] = 1, 1
    changed = [skip.clone() for skip in skips]
    for skip in changed:
        skip[..., skip.shape[-1] // 2 :] += 5
    for structure in ("factorized", "unshared"):
        _, before = branch_inputs(h, skips, m, structure)
        _, after = branch_inputs(h, changed, m, structure)
        assert all(torch.equal(a[0::K], b[0::K]) for a, b in zip(before, after, strict=True))
        assert not any(torch.equal(a[1::K], b[1::K]) for a, b in zip(before, after, strict=True))


def test_masks_of_all_sizes_add_up_to_one() -> None:
    m = torch.rand(2, K, SIZE, SIZE).softmax(1)
    for mask in masks_at(m, [torch.empty(2, 1, size, size) for size in (32, 16, 8)]):
        assert (mask.sum(1) - 1).abs().max() < 1e-6


def test_combining_equal_branches_gives_one_of_them() -> None:
    m, h = torch.rand(2, K, SIZE, SIZE).softmax(1), torch.randn(2, 5, 16, 16)
    assert (combine(h.repeat_interleave(K, 0), m) - h).abs().max() < 1e-6


def built(structure: Structure, padding: str) -> FactorizedUNet:
    about = {"image_size": SIZE, "channels": (16, 32), "resnets_per_level": 1}
    more = {"attention_levels": 1, "regions": K, "structure": structure, "padding": padding}
    return build(NetworkConfig(**about, **more), plain()).eval()  # type: ignore[arg-type]


@torch.inference_mode()
def test_padding_with_the_border_shows_no_convolution_where_it_is(
    x: torch.Tensor, t: torch.Tensor
) -> None:
    """One colour everywhere: the masks of the paper's network still differ along the border."""
    flat = torch.full_like(x, 0.3)
    _, m = built("factorized", "replicate")(flat, t)
    assert (m - m[:, :, :1, :1]).abs().max() < 1e-5
    _, m = built("factorized", "zeros")(flat, t)
    assert (m - m[:, :, :1, :1]).abs().max() > 1e-3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_only_the_given_share_of_the_gradient_reaches_the_masks(
    x: torch.Tensor, t: torch.Tensor, structure: Structure
) -> None:
    """The output is the same; where the share is 0, the mask generator learns nothing."""
    net, outputs, gradients = network(structure), [], []
    with torch.no_grad():
        net.unet.conv_out.weight.normal_()  # it starts at zero, and would pass nothing back
    for share in (None, torch.ones(2), torch.full((2,), 0.5), torch.zeros(2)):
        net.zero_grad()
        output, _ = net(x, t, None, share)
        output.square().mean().backward()
        outputs.append(output.detach())
        gradient = net.masker.conv_out.weight.grad
        gradients.append(0.0 if gradient is None else gradient.norm().item())
    assert all(difference(output, outputs[0]) < 1e-5 for output in outputs)
    whole, same, half, none = gradients
    assert whole == pytest.approx(same, rel=1e-4)
    assert half == pytest.approx(whole / 2, rel=1e-2)
    assert none == 0 < whole


def test_spread_logits_give_every_region_a_share(x: torch.Tensor, t: torch.Tensor) -> None:
    net = network()
    logits = []
    net.masker.conv_out.register_forward_hook(lambda *found: logits.append(found[2]))
    net.spread_logits(x, t, None, std=1.5)
    net(x, t)
    assert logits[-1].mean((0, 2, 3)).abs().max() < 1e-4
    assert (logits[-1].std((0, 2, 3), correction=0) - 1.5).abs().max() < 1e-4


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_fast_pass_computes_the_same(
    x: torch.Tensor, t: torch.Tensor, structure: Structure, padding: str
) -> None:
    """Output, masks and activations; for timesteps of each image and one for all."""
    net = built(structure, padding)
    with torch.inference_mode():
        expected = [net(x, t), net(x, t[:1].expand(2))]
    fast = FactorizedNetwork(net, torch.device("cpu"))
    for timesteps, (output, m) in zip((t, t[:1]), expected, strict=True):
        found, maps = fast(x, timesteps, blocks=(0, 2))
        assert found is not None
        assert (found - output).abs().max() < 1e-5
        assert (fast.masks - m).abs().max() < 1e-6
        assert REGIONS not in maps
        assert maps[0].shape == (2, 32, 16, 16) or maps[0].shape == (2, 32, 32, 32)
    _, only = fast(x, t, to_output=False)
    assert only == {}
    assert (fast.masks - expected[0][1]).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("size", "channels", "resnets", "plain_m", "factorized_m", "unshared_m"),
    [
        (64, (128, 256, 384, 512), 3, 115.9, 186.0, 326.1),
        (128, (128, 128, 256, 384, 512), 2, 90.9, 146.1, 256.6),
    ],
)
def test_numbers_of_parameters_of_the_paper(
    size: int,
    channels: tuple[int, ...],
    resnets: int,
    plain_m: float,
    factorized_m: float,
    unshared_m: float,
) -> None:
    def millions(module: torch.nn.Module) -> float:
        return round(sum(p.numel() for p in module.parameters()) / 1e6, 1)

    with torch.device("meta"):
        unet = build_unet(size, channels, resnets, attention_levels=2)
        assert millions(unet) == plain_m
        assert millions(FactorizedUNet(unet, 3)) == factorized_m
        assert millions(FactorizedUNet(unet, 3, "unshared")) == unshared_m
