"""The StyleGAN2 generator network (Karras et al. 2020a, 2020b) in plain PyTorch operators.

Names of modules and parameters are those of StyleGAN2-ADA state dicts. Two choices make it fast on
any hardware, without extensions:

- Modulation and demodulation scale the activations before and after the convolution instead of its
  weights, so a batch is one ordinary convolution. Scaling the weights, one set per sample, needs
  a grouped convolution with as many groups as samples.
- Activations are channels-last, and without gradients the epilogue of a layer works in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from factory_core.device import send
from generators.stylegan2.config import NetworkConfig, Noise
from generators.stylegan2.resample import blur, upsample

SLOPE = 0.2  # of the leaky ReLU
GAIN = math.sqrt(2)  # keeps the variance through it
EPS = 1e-8
CONST = "b4.const"  # the name of the learned constant among the recorded activations


def normalise(x: Tensor) -> Tensor:
    """Each row of `[N, C]` scaled to a mean square of 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPS).rsqrt()


def _normal(*shape: int, lr: float = 1.0) -> Tensor:
    """A tensor drawn from N(0, 1/lr²); on the meta device, without values."""
    tensor = torch.empty(shape)
    # Drawing there would import PyTorch's compiler, which takes longer than fifty samples.
    return tensor if tensor.is_meta else tensor.normal_().div_(lr)


class Dense(nn.Module):
    """Fully connected layer with an equalised learning rate; `activate`: leaky ReLU."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        lr: float = 1.0,
        bias: float = 0.0,
        activate: bool = False,
    ):
        super().__init__()
        self.weight = nn.Parameter(_normal(out_features, in_features, lr=lr))
        self.bias = nn.Parameter(torch.full((out_features,), bias / lr))
        self.lr, self.gain, self.activate = lr, lr / math.sqrt(in_features), activate

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x, self.weight.t(), beta=self.lr, alpha=self.gain)
        return F.leaky_relu(y, SLOPE) * GAIN if self.activate else y


class Mapping(nn.Module):
    """f: z (and a class) -> w, the latent that steers the synthesis."""

    w_avg: Tensor

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        if config.c_dim:
            self.embed = Dense(config.c_dim, config.w_dim)
        for i in range(config.mapping_layers):
            before = config.w_dim if i else config.z_dim + (config.w_dim if config.c_dim else 0)
            layer = Dense(before, config.w_dim, lr=config.mapping_lr, activate=True)
            setattr(self, f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """w `[N, w_dim]` of latents `z` `[N, z_dim]` and one-hot classes `c` `[N, c_dim]`."""
        x = normalise(z.float())
        if self.config.c_dim:
            assert c is not None, "a conditional network needs c"
            x = torch.cat([x, normalise(self.embed(c.float()))], dim=1)
        for i in range(self.config.mapping_layers):
            x = getattr(self, f"fc{i}")(x)
        return x

    def broadcast(self, w: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """w for each layer `[N, num_ws, w_dim]`; the first `cutoff` pulled to the mean by psi."""
        ws = w.unsqueeze(1).repeat(1, self.config.num_ws, 1)
        if psi != 1:
            ws[:, :cutoff] = self.w_avg.lerp(ws[:, :cutoff], psi)
        return ws


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, resolution: int, up: bool, config: NetworkConfig
    ):
        """`resolution` is that of the output, and with `up` twice that of the input."""
        super().__init__()
        self.up, self.clamp = up, config.conv_clamp
        self.affine = Dense(config.w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(_normal(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", _normal(resolution, resolution))
        self.frozen: tuple[Tensor, Tensor] | None = None

    def kernel(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The weight as the convolution takes it, and Σ_k w_iok², float32 `[I, O]`."""
        weight: Tensor = self.weight
        if dtype is torch.float16:  # demodulation undoes any scaling: keep far from 65504
            largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
            weight = weight / (largest * math.sqrt(weight[0].numel()))
        square = weight.square().sum(dim=(2, 3)).t().contiguous()
        weight = weight.transpose(0, 1) if self.up else weight
        return weight.to(dtype).contiguous(memory_format=torch.channels_last), square

    def freeze(self, dtype: torch.dtype) -> None:
        """Cache `kernel(dtype)` for all its passes: for inference, when weights are final."""
        self.frozen = self.kernel(dtype)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """`[N, O, R, R]` in the dtype of `x`; `noise` `[1 or N, 1, R, R]` of unit strength."""
        frozen = self.frozen
        if frozen is None or frozen[0].dtype is not x.dtype:
            frozen = self.kernel(x.dtype)
        weight, square = frozen
        s = self.affine(w)
        if x.dtype is torch.float16:
            s = s / s.abs().amax(dim=1, keepdim=True)
        y = self._convolve(x * s.to(x.dtype)[:, :, None, None], weight)
        # The norm of each sample's modulated kernels, Σ_ik (s_i w_iok)² (StyleGAN2, Eq. 3).
        d = (s.square() @ square + EPS).rsqrt()
        if self.up:
            d = d * 4  # three of four pixels of the upsampled x were zeros
        return self._epilogue(y, d, noise, gain * GAIN)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(x, weight, padding=1)
        return blur(F.conv_transpose2d(x, weight, stride=2), padding=1)

    def _epilogue(self, y: Tensor, d: Tensor, noise: Tensor | None, gain: float) -> Tensor:
        """clamp(gain · lrelu(d · y + noise + bias)); the gain moves inside, where it is free."""
        shift = (self.bias * gain).to(y.dtype).view(1, 1, 1, -1)
        if noise is not None:
            steered = (noise * (self.noise_strength * gain)).to(y.dtype)
            shift = steered.permute(0, 2, 3, 1) + shift  # channels last, as y
        shift = shift.permute(0, 3, 1, 2)
        scale = (d * gain).to(y.dtype)[:, :, None, None]
        out = None if torch.is_grad_enabled() else y
        y = F.leaky_relu_(torch.addcmul(shift, y, scale, out=out), SLOPE)
        if self.clamp is None:
            return y
        bound = self.clamp * gain / GAIN
        return torch.clamp(y, -bound, bound, out=out)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to colours, without demodulation or noise."""

    def __init__(self, channels: int, config: NetworkConfig):
        super().__init__()
        self.clamp = config.conv_clamp
        self.affine = Dense(config.w_dim, channels, bias=1.0)
        self.weight = nn.Parameter(_normal(3, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Colours `[N, 3, R, R]`, float32."""
        s = self.affine(w) / math.sqrt(x.shape[1])
        # With so few outputs, scaling x would cost more than the product: scale the weights.
        weight = (s[:, :, None] * self.weight[:, :, 0, 0].t()).to(x.dtype)  # [N, C, 3]
        pixels = x.permute(0, 2, 3, 1)
        y = torch.bmm(pixels.flatten(1, 2), weight).unflatten(1, pixels.shape[1:3])
        y = y.permute(0, 3, 1, 2) + self.bias.to(x.dtype)[:, None, None]
        return (y if self.clamp is None else y.clamp(-self.clamp, self.clamp)).float()


class SynthesisBlock(nn.Module):
    """The layers at one resolution."""

    def __init__(self, resolution: int, config: NetworkConfig):
        super().__init__()
        self.resolution, self.architecture = resolution, config.architecture
        channels = config.channels(resolution)
        if resolution == 4:
            self.const = nn.Parameter(_normal(channels, 4, 4))
        else:
            before = config.channels(resolution // 2)
            self.conv0 = SynthesisLayer(before, channels, resolution, up=True, config=config)
            if self.architecture == "resnet":
                self.skip = nn.Conv2d(before, channels, 1, bias=False)
        self.conv1 = SynthesisLayer(channels, channels, resolution, up=False, config=config)
        self.has_torgb = config.architecture == "skip" or resolution == config.resolution
        if self.has_torgb:
            self.torgb = ToRGB(channels, config)

    def forward(
        self, x: Tensor, image: Tensor | None, ws: Sequence[Tensor], layer_noise: LayerNoise
    ) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """Outputs of the convolutions by name; activations `[N, C, R, R]`; image so far.

        `ws` are those of conv0 (not in the first block), conv1 and toRGB.
        """
        outputs = {}
        residual, gain = None, 1.0
        if self.resolution > 4:
            if self.architecture == "resnet":
                gain = math.sqrt(0.5)  # of a sum of two
                weight = self.skip.weight / math.sqrt(x.shape[1])
                residual = upsample(F.conv2d(x, weight.to(x.dtype))) * gain
            x = outputs["conv0"] = self.conv0(x, ws[0], layer_noise(self.conv0))
        x = outputs["conv1"] = self.conv1(x, ws[-2], layer_noise(self.conv1), gain)
        if residual is not None:
            x = residual + x
        if self.architecture == "skip" and image is not None:
            image = upsample(image)
        if self.has_torgb:
            colours = self.torgb(x, ws[-1])
            image = colours if image is None else image + colours
        return outputs, x, image


class Synthesis(nn.Module):
    """g: ws -> image, and the activations on the way."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        for resolution in config.block_resolutions:
            setattr(self, f"b{resolution}", SynthesisBlock(resolution, config))

    def block(self, resolution: int) -> SynthesisBlock:
        """The block at `resolution`."""
        return cast(SynthesisBlock, getattr(self, f"b{resolution}"))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all convolutions, coarse to fine."""
        blocks = self.config.block_resolutions
        return tuple(f"b{r}.conv{i}" for r in blocks for i in (0, 1) if (r, i) != (4, 0))

    def block_dtype(self, resolution: int, dtype: torch.dtype) -> torch.dtype:
        """The dtype of the block at `resolution` if `dtype` is requested.

        float16 is used in the blocks meant for it in training, and the others stay float32;
        bfloat16 has the range of float32, so every block can use it.
        """
        if dtype is torch.float16 and resolution < self.config.float16_from:
            return torch.float32
        return dtype

    def freeze(self, dtype: torch.dtype) -> None:
        """Prepare for many passes in `dtype` without gradients: see `SynthesisLayer.freeze`."""
        for resolution in self.config.block_resolutions:
            for layer in self.block(resolution).children():
                if isinstance(layer, SynthesisLayer):
                    layer.freeze(self.block_dtype(resolution, dtype))

    def forward(
        self,
        ws: Tensor,
        noise: Noise = "const",
        rngs: Sequence[torch.Generator] | None = None,
        dtype: torch.dtype = torch.float32,
        keep: Collection[str] = (),
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images `[N, 3, R, R]` float32 of `ws` `[N, num_ws, w_dim]`, and kept activations.

        Activations run from coarse to fine, each `[N, C, r, r]` in the dtype of its block.

        `rngs` draw random noise, one CPU generator per sample (default: torch's own); `dtype` is of
        the activations, see `block_dtype`; `keep` names convolutions as in `layers`, and
        `b4.const`.
        """

        def layer_noise(layer: SynthesisLayer) -> Tensor | None:
            return draw_noise(noise, layer.noise_const, len(ws), rngs)

        x = self.block(4).const.expand(len(ws), -1, -1, -1)
        recorded = {CONST: x} if CONST in keep else {}
        image, first = None, 0
        for resolution in self.config.block_resolutions:
            block = self.block(resolution)
            x = x.to(self.block_dtype(resolution, dtype), memory_format=torch.channels_last)
            convolutions = 1 if resolution == 4 else 2
            # toRGB shares its w with the next block's first convolution.
            steering = ws[:, first : first + convolutions + 1].unbind(dim=1)
            outputs, x, image = block(x, image, steering, layer_noise)
            first += convolutions
            for name, output in outputs.items():
                if f"b{resolution}.{name}" in keep:
                    recorded[f"b{resolution}.{name}"] = output
        assert image is not None
        return image, recorded


LayerNoise = Callable[[SynthesisLayer], Tensor | None]


def draw_noise(
    noise: Noise, const: Tensor, n: int, rngs: Sequence[torch.Generator] | None
) -> Tensor | None:
    """Noise of unit strength for one layer: `[1 or n, 1, R, R]`."""
    if noise == "none":
        return None
    if noise == "const":
        return const[None, None]
    if rngs is None:
        return torch.randn(n, 1, *const.shape, device=const.device)
    return send(
        torch.stack([torch.randn(1, *const.shape, generator=g) for g in rngs]), const.device
    )


class StyleGAN2(nn.Module):
    """Mapping and synthesis, with the shape they were built for."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = Synthesis(config)
