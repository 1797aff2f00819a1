"""One fast pass over a factorized network, for its output, masks and decoder activations.

It computes what `FactorizedUNet.forward` does, with the walk of a plain U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generators.ddpm.network import Network
from generators.ddpm.unet import cast_weights, decode, encode
from generators.factorized.network import FactorizedUNet, branch_inputs, combine

REGIONS = -1  # the number under which a walk returns the masks


def walk(
    net: FactorizedUNet,
    x: Tensor,
    emb: Tensor,
    blocks: Sequence[int] = (),
    to_output: bool = True,
) -> tuple[Tensor | None, dict[int, Tensor]]:
    """As `generators.ddpm.unet.walk`; the masks m `[N, K, H, W]`, float32, are block `REGIONS`.

    The activations of a block are those of the K branches, weighted by their masks: Σ_k h_k ⊙ m_k.
    Without `to_output` and blocks, only the masks are computed.
    """
    h, skips = encode(net.unet, x, emb)
    logits, _ = decode(net.masker, h, skips, emb)
    assert logits is not None
    m = logits.float().softmax(dim=1)
    if not to_output and not blocks:
        return None, {REGIONS: m}
    if net.structure == "concat":
        h, skips = net.widened(h, skips, m)
        output, recorded = decode(net.unet, h, skips, emb, blocks, to_output)
        return output, {**recorded, REGIONS: m}
    K = net.regions
    h, skips = branch_inputs(h, skips, m, net.structure)
    if net.others:
        parts = [
            decode(half, h[k::K], [skip[k::K] for skip in skips], emb, blocks, to_output)
            for k, half in enumerate([net.unet, *net.others])
        ]
        outputs = [output for output, _ in parts if output is not None]
        output = _together(outputs) if outputs else None
        recorded = {block: _together([maps[block] for _, maps in parts]) for block in blocks}
    else:
        emb = emb if len(emb) == 1 else emb.repeat_interleave(K, 0)
        output, recorded = decode(net.unet, h, skips, emb, blocks, to_output)
    maps = {block: combine(h, m) for block, h in recorded.items()}
    return None if output is None else combine(output, m), {**maps, REGIONS: m}


def _together(branches: Sequence[Tensor]) -> Tensor:
    """Maps `[N, C, h, w]` of K branches as `[N·K, C, h, w]`."""
    return torch.stack(list(branches), 1).flatten(0, 1)


class FactorizedNetwork(Network):
    """A factorized network on one device; `masks` are those of the latest pass.

    They are float32 `[N, K, H, W]`, Σ_k m_k = 1.
    """

    masks: Tensor

    def __init__(
        self,
        net: FactorizedUNet,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
    ):
        super().__init__(net.unet, device, dtype, compile, walk)
        net = net.to(memory_format=torch.channels_last)
        self.net: FactorizedUNet = net.to(device).eval()
        cast_weights(net, dtype)

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        classes: Tensor | None = None,
        blocks: Sequence[int] = (),
        to_output: bool = True,
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """As a plain network; sets `masks`."""
        output, maps = super().__call__(x, t, classes, blocks, to_output)
        self.masks = maps.pop(REGIONS)
        return output, maps
