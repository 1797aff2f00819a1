"""The network of Factorized Diffusion: one U-Net that denoises K regions apart and adds them up.

Yuan & Maire 2023. An encoder and a middle are shared; a mask generator, a decoder of its own, gives
every pixel a distribution m over K regions; the decoder then runs once per region, with the skip
connections masked by that region:

    h_enc, h_mid = θ_enc(x_t, t)
    m   = softmax_k θ_mask(h_mid, h_enc, t)               [N, K, H, W]
    ε_k = θ_dec(h_mid, h_enc ⊙ m_k, t)                    (Eq. 6)
    ε   = Σ_k ε_k ⊙ m_k                                   (Eq. 7)

Nothing but the loss of denoising trains the masks. The weights of θ_dec are shared by the regions,
which run as one batch of N·K.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from factory_core.segmentation_unet import set_padding
from generators.ddpm.model import build_unet
from generators.ddpm.unet import embed
from generators.factorized.config import NetworkConfig, Structure


class SecondHalf(nn.Module):
    """Decoder and last convolution of a U-Net: what `generators.ddpm.unet.decode` walks."""

    def __init__(self, unet: UNet2DModel, regions: int | None = None):
        """A copy of the decoder of `unet`; for a mask generator, with K = `regions` outputs.

        The last convolution of a mask generator must not start at zero: then m = 1/K everywhere,
        all branches are equal, the gradient of every logit is zero, and the masks stay uniform for
        ever.
        """
        super().__init__()
        self.up_blocks = copy.deepcopy(unet.up_blocks)
        self.conv_norm_out = copy.deepcopy(unet.conv_norm_out)
        self.conv_act = copy.deepcopy(unet.conv_act)
        self.conv_out = copy.deepcopy(unet.conv_out)
        if regions is not None:
            self.conv_out = nn.Conv2d(self.conv_out.in_channels, regions, 3, padding=1)


class FactorizedUNet(nn.Module):
    """A U-Net of diffusers and a mask generator of K regions."""

    def __init__(self, unet: UNet2DModel, regions: int, structure: Structure = "factorized"):
        """Takes over `unet`; the mask generator starts as a copy of its decoder.

        `structure` is the paper's, or one of its ablations (Table 6).
        """
        super().__init__()
        self.unet, self.regions, self.structure = unet, regions, structure
        self.masker = SecondHalf(unet, regions)
        # More decoders, for the ablation without shared weights.
        more = regions - 1 if structure == "unshared" else 0
        self.others = nn.ModuleList(SecondHalf(unet) for _ in range(more))
        self.widening = nn.ModuleList()
        if structure == "concat":
            self.widening = _widening(unet, regions)

    @property
    def config(self) -> Any:
        """The U-Net's."""
        return self.unet.config

    @property
    def up_blocks(self) -> nn.ModuleList:
        """The decoder that the regions share, whose activations are features."""
        return self.unet.up_blocks

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        classes: Tensor | None = None,
        mask_gradient: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output `[N, 3, H, W]` and masks m `[N, K, H, W]` of noisy images, for training.

        `t` are timesteps `[N]`, `classes` class vectors `[N, E]`. `mask_gradient` `[N]`, 0 to 1, is
        the share of the output's gradient that reaches the masks of each image; by default, all.
        """
        emb = embed(self.unet, t, classes)
        h, skips = self._first_half(x, emb)
        m = _second_half(self.masker, h, skips, emb).float().softmax(dim=1)
        used = m
        if mask_gradient is not None:
            share = mask_gradient.view(-1, 1, 1, 1)
            used = share * m + (1 - share) * m.detach()
        return self._factorized(h, skips, emb, used), m

    @torch.no_grad()
    def spread_logits(self, x: Tensor, t: Tensor, classes: Tensor | None, std: float) -> None:
        """Give the logits of each region mean 0 and standard deviation `std` over the pixels of x.

        For an untrained mask generator: every region then starts with about as many pixels. As the
        data-dependent start of Salimans & Kingma 2016, on one layer. Arguments as of `forward`.
        """
        emb = embed(self.unet, t, classes)
        logits = _second_half(self.masker, *self._first_half(x, emb), emb).float()
        last = self.masker.conv_out
        scale = std / logits.std(dim=(0, 2, 3), correction=0).clamp(min=1e-6)
        last.bias.sub_(logits.mean((0, 2, 3))).mul_(scale)
        last.weight.mul_(scale.view(-1, 1, 1, 1))

    def _first_half(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """h_mid and h_enc."""
        unet = self.unet
        h = unet.conv_in(x)
        skips = [h]
        for down in unet.down_blocks:
            h, found = down(h, emb)
            skips += found
        return unet.mid_block(h, emb), skips

    def _factorized(self, h: Tensor, skips: Sequence[Tensor], emb: Tensor, m: Tensor) -> Tensor:
        """ε of Eq. 7, or what an ablation has in its place."""
        if self.structure == "concat":
            h, skips = self.widened(h, skips, m)
            return _second_half(self.unet, h, skips, emb)
        K = self.regions
        h, skips = branch_inputs(h, skips, m, self.structure)
        if not self.others:
            return combine(_second_half(self.unet, h, skips, emb.repeat_interleave(K, 0)), m)
        outputs = [
            _second_half(half, h[k::K], [skip[k::K] for skip in skips], emb)
            for k, half in enumerate([self.unet, *self.others])
        ]
        return combine(torch.stack(outputs, 1).flatten(0, 1), m)

    def widened(self, h: Tensor, skips: Sequence[Tensor], m: Tensor) -> tuple[Tensor, list[Tensor]]:
        """h and skips with m concatenated (Eq. 5), projected back to their numbers of channels.

        A projection that starts as the identity keeps the decoder's shape, and its weights.
        """
        every = [*skips, h]
        masks = masks_at(m, every)
        pairs = zip(self.widening, every, masks, strict=True)
        *skips, h = [layer(torch.cat([s, mask.to(s.dtype)], 1)) for layer, s, mask in pairs]
        return h, skips


def masks_at(m: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """The masks `[N, K, H, W]` at the size of each map; mean pooling keeps Σ_k m_k = 1."""
    sizes = {s.shape[-2:] for s in maps}
    pooled = {size: F.adaptive_avg_pool2d(m, (size[0], size[1])) for size in sizes}
    return [pooled[s.shape[-2:]] for s in maps]


def branch_inputs(
    h: Tensor, skips: Sequence[Tensor], m: Tensor, structure: Structure
) -> tuple[Tensor, list[Tensor]]:
    """h and skips `[N·K, C, h, w]` of the K branches, those of an image next to each other.

    Eq. 6 masks the skips and leaves h whole; the ablation `masked_middle` does the opposite.
    """
    K = m.shape[1]

    def masked(map_: Tensor, mask: Tensor) -> Tensor:
        return (map_.unsqueeze(1) * mask.unsqueeze(2).to(map_.dtype)).flatten(0, 1)

    if structure == "masked_middle":
        (mask,) = masks_at(m, [h])
        return masked(h, mask), [skip.repeat_interleave(K, 0) for skip in skips]
    masks = masks_at(m, skips)
    whole = h.repeat_interleave(K, 0)
    return whole, [masked(skip, mask) for skip, mask in zip(skips, masks, strict=True)]


def combine(outputs: Tensor, m: Tensor) -> Tensor:
    """Σ_k y_k ⊙ m_k `[N, C, h, w]` of maps `[N·K, C, h, w]` (Eq. 7); m is pooled to their size."""
    K = m.shape[1]
    (mask,) = masks_at(m, [outputs])
    return (outputs.unflatten(0, (-1, K)) * mask.unsqueeze(2).to(outputs.dtype)).sum(1)


def _second_half(half: Any, h: Tensor, skips: Sequence[Tensor], emb: Tensor) -> Tensor:
    rest = list(skips)
    for up in half.up_blocks:
        count = len(up.resnets)
        rest, own = rest[:-count], tuple(rest[-count:])
        h = up(h, own, emb)
    return half.conv_out(half.conv_act(half.conv_norm_out(h)))


def _widening(unet: UNet2DModel, regions: int) -> nn.ModuleList:
    """1 x 1 convolutions from C + K to C channels, of each skip and of h; the identity at first."""
    first = unet.config.block_out_channels[0]
    channels = [first]
    for down in unet.down_blocks:
        channels += [resnet.out_channels for resnet in down.resnets]
        channels += [layer.out_channels for layer in down.downsamplers or ()]
    channels.append(channels[-1])  # of h
    layers = nn.ModuleList()
    for width in channels:
        layer = nn.Conv2d(width + regions, width, 1)
        with torch.no_grad():
            # The part that reads the masks stays random: from zero, no gradient reaches them.
            layer.weight[:, :width] = torch.eye(width)[:, :, None, None]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        layers.append(layer)
    return layers


def build(config: NetworkConfig, unet: UNet2DModel | None = None) -> FactorizedUNet:
    """An untrained network; a plain `unet` of the same sizes gives its weights to all parts."""
    if unet is None:
        unet = build_unet(
            *(config.image_size, config.channels, config.resnets_per_level),
            *(config.attention_levels, config.num_classes),
        )
    net = FactorizedUNet(unet, config.regions, config.structure)
    set_padding(net, config.padding)
    return net
