"""The early-exit walk against forward hooks on the whole network."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from generators.ddpm.model import build_unet, load_unet
from generators.ddpm.unet import decoder_features, default_blocks, num_decoder_blocks


def hooked_features(unet, x: Tensor, t: Tensor) -> list[Tensor]:
    """Outputs of all decoder blocks of a full forward pass, each with what follows its resnet."""
    outputs: list[Tensor] = []
    hooks = []
    for up in unet.up_blocks:
        modules = [
            list(pair)
            for pair in zip(up.resnets, getattr(up, "attentions", up.resnets), strict=True)
        ]
        modules[-1] += list(up.upsamplers or [])
        for block in modules:
            hooks.append(block[-1].register_forward_hook(lambda _m, _i, out: outputs.append(out)))
    with torch.no_grad():
        unet(x, t)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("upsampling", ["conv", "resnet"])
@pytest.mark.parametrize("attention_levels", [0, 1])
def test_walk_equals_the_full_forward_pass(upsampling: str, attention_levels: int) -> None:
    torch.manual_seed(0)
    unet = build_unet(16, (8, 16, 16), 2, attention_levels).eval()
    if upsampling == "resnet":
        unet = (
            type(unet)
            .from_config(dict(unet.config, upsample_type="resnet", downsample_type="resnet"))
            .eval()
        )
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([50, 250])
    expected = hooked_features(unet, x, t)
    assert len(expected) == num_decoder_blocks(unet) == 9
    with torch.no_grad():
        recorded = decoder_features(unet, x, t, range(9))
    for block, output in enumerate(expected):
        torch.testing.assert_close(recorded[block], output, rtol=0, atol=0)


def test_walk_stops_after_the_last_block_asked_for(tiny_weights: Path) -> None:
    unet, _, _ = load_unet(str(tiny_weights))
    ran: list[int] = []
    for i, resnet in enumerate(r for up in unet.up_blocks for r in up.resnets):
        resnet.register_forward_hook(lambda *_, i=i: ran.append(i))
    with torch.no_grad():
        recorded = decoder_features(unet, torch.randn(1, 3, 16, 16), torch.tensor([9]), [0, 1])
    assert list(recorded) == ran == [0, 1]


def test_a_block_that_does_not_exist_lists_those_that_do(tiny_weights: Path) -> None:
    unet, _, _ = load_unet(str(tiny_weights))
    with pytest.raises(ValueError, match=r"blocks \[12\] do not exist.*blocks 0 to 3"):
        decoder_features(unet, torch.randn(1, 3, 16, 16), torch.tensor([9]), [1, 12])


@pytest.mark.parametrize(
    ("levels", "resnets", "expected"), [(6, 2, (5, 6, 7, 8, 12)), (4, 1, (2, 3, 5))]
)
def test_default_blocks_are_the_papers_scaled_to_the_depth(
    levels: int, resnets: int, expected: tuple[int, ...]
) -> None:
    unet = build_unet(2 ** (levels - 1), (8,) * levels, resnets, attention_levels=0)
    assert default_blocks(unet) == expected
