"""The walk against the network's own forward pass, whose activations hooks record."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from generators.ddpm.checkpoints import load_unet
from generators.ddpm.model import build_unet
from generators.ddpm.unet import (
    cast_weights,
    check_blocks,
    check_walkable,
    default_blocks,
    embed,
    num_decoder_blocks,
    walk,
)


def changed(unet: UNet2DModel, **settings) -> UNet2DModel:
    """A network with different settings and random weights."""
    torch.manual_seed(0)
    kept = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    return UNet2DModel(**(kept | settings)).eval()


def hooked(unet: UNet2DModel, x: Tensor, t: Tensor, classes: Tensor | None = None):
    """The network's output and those of its decoder blocks, upsamplers included."""
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
        output = unet(x, t, classes).sample
    for hook in hooks:
        hook.remove()
    return output, outputs


@pytest.mark.parametrize("timesteps", [[250], [50, 250]])
@pytest.mark.parametrize("conditioning", ["default", "scale_shift"])
@pytest.mark.parametrize("resampling", ["conv", "resnet"])
@pytest.mark.parametrize("attention_levels", [0, 1])
def test_walk_equals_the_forward_pass(
    resampling: str, conditioning: str, attention_levels: int, timesteps: list[int]
) -> None:
    """One timestep for the batch takes a different path through the resnets from one per sample."""
    unet = changed(
        build_unet(16, (8, 16, 16), 2, attention_levels),
        upsample_type=resampling,
        downsample_type=resampling,
        resnet_time_scale_shift=conditioning,
    )
    check_walkable(unet)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor(timesteps)
    output, blocks = hooked(unet, x, t)
    assert len(blocks) == num_decoder_blocks(unet) == 9
    with torch.no_grad():
        found, recorded = walk(unet, x, embed(unet, t), range(9))
    torch.testing.assert_close(found, output, rtol=0, atol=1e-5)
    for block, expected in enumerate(blocks):
        torch.testing.assert_close(recorded[block], expected, rtol=0, atol=1e-5)


def test_classes_are_part_of_the_embedding() -> None:
    unet = changed(build_unet(16, (8, 16), 1, 0), num_class_embeds=5)
    x, t, ids = torch.randn(2, 3, 16, 16), torch.tensor([250]), torch.tensor([4, 1])
    output, _ = hooked(unet, x, t, ids)
    with torch.no_grad():
        found, _ = walk(unet, x, embed(unet, t, unet.class_embedding(ids)))
    torch.testing.assert_close(found, output, rtol=0, atol=1e-5)


def test_walk_stops_after_the_last_requested_block(tiny_weights: Path) -> None:
    unet, _, _ = load_unet(str(tiny_weights))
    ran: list[int] = []
    for i, resnet in enumerate(r for up in unet.up_blocks for r in up.resnets):
        resnet.conv2.register_forward_hook(lambda *_, i=i: ran.append(i))
    emb = embed(unet, torch.tensor([9]))
    with torch.no_grad():
        output, recorded = walk(unet, torch.randn(1, 3, 16, 16), emb, [0, 1], to_output=False)
    assert output is None
    assert list(recorded) == ran == [0, 1]


def test_cast_weights_leave_the_embeddings_exact(tiny_weights: Path) -> None:
    unet, _, _ = load_unet(str(tiny_weights))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([700])
    with torch.no_grad():
        emb = embed(unet, t)
        expected, _ = walk(unet, x, emb)
        cast_weights(unet, torch.bfloat16)
        assert torch.equal(embed(unet, t), emb)
        found, _ = walk(unet, x.bfloat16(), emb)
    assert found.dtype == torch.bfloat16
    error = (found - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.05


def test_a_block_that_does_not_exist_lists_those_that_do(tiny_weights: Path) -> None:
    unet, _, _ = load_unet(str(tiny_weights))
    with pytest.raises(ValueError, match=r"blocks \[12\] do not exist.*blocks 0 to 3"):
        check_blocks(unet, [1, 12])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"up_block_types": ("SkipUpBlock2D", "UpBlock2D"), "layers_per_block": 1},
            r"found a U-Net with SkipUpBlock2D, expected UpBlock2D, AttnUpBlock2D, Resnet",
        ),
        ({"time_embedding_type": "fourier"}, "time_embedding_type fourier, expected positional"),
        ({"class_embed_type": "timestep"}, "class_embed_type timestep, expected none"),
    ],
)
def test_unknown_parts_are_refused(settings: dict, message: str) -> None:
    unet = changed(build_unet(16, (16, 16), 1, 0), norm_num_groups=4, **settings)
    with pytest.raises(ValueError, match=message):
        check_walkable(unet)


@pytest.mark.parametrize(
    ("levels", "resnets", "expected"), [(6, 2, (5, 6, 7, 8, 12)), (4, 1, (2, 3, 5))]
)
def test_default_blocks_are_the_papers_scaled_to_the_depth(
    levels: int, resnets: int, expected: tuple[int, ...]
) -> None:
    unet = build_unet(2 ** (levels - 1), (8,) * levels, resnets, attention_levels=0)
    assert default_blocks(unet) == expected
