"""StyleALAE (Pidhorskyi et al. 2020): activations of its encoder, and of the image it makes again.

Names of modules and parameters are those of the published state dicts, which call the encoder
`discriminator`. Weights are used as stored: the equalised learning rate was in the optimiser.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, choose_layers, load_strictly, take

SLOPE = 0.2  # of the leaky ReLU
FUSED_FROM_PX = 128  # from here on, convolution and change of resolution are one step
ENCODER, GENERATOR = "discriminator", "generator"
AVERAGED = "_s"  # ends the names of the moving averages
OTHERS = ("mapping_tl", "mapping_fl", "dlatent_avg")  # in the file, but of no use for features
MAX_BLOCKS = 12


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU."""
    return F.leaky_relu(x, SLOPE)


def spread(kernel: Tensor) -> Tensor:
    """The sum of a kernel's four shifts by one pixel: `[O, I, 3, 3]` -> `[O, I, 4, 4]`."""
    padded = F.pad(kernel, (1, 1, 1, 1))
    rows = padded[:, :, 1:] + padded[:, :, :-1]
    return rows[..., 1:] + rows[..., :-1]


class Depthwise(nn.Module):
    """The blur [1, 2, 1]² / 16, which is stored with the weights."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Every channel blurred."""
        return F.conv2d(x, self.weight, padding=1, groups=x.shape[1])


class Kernel(nn.Module):
    """The 3x3 kernel of a convolution."""

    def __init__(self, first: int, second: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(first, second, 3, 3))


def statistics(x: Tensor) -> Tensor:
    """Mean and standard deviation of each channel over its pixels: `[N, 2 C]`."""
    return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0)], dim=1)


class EncoderBlock(nn.Module):
    """Two convolutions; the second halves the resolution."""

    def __init__(self, before: int, after: int, latent: int, is_fused: bool):
        super().__init__()
        self.is_fused = is_fused
        self.conv_1, self.conv_2 = Kernel(before, before), Kernel(after, before)
        self.bias_1 = nn.Parameter(torch.empty(1, before, 1, 1))
        self.bias_2 = nn.Parameter(torch.empty(1, after, 1, 1))
        self.blur = Depthwise(before)
        self.style_1 = nn.Linear(2 * before, latent)
        self.style_2 = nn.Linear(2 * after, latent)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The maps by name, the last of them the input of the next block; the part of w."""
        x = first = activate(F.conv2d(x, self.conv_1.weight, padding=1) + self.bias_1)
        x = self.blur(F.instance_norm(x))
        if self.is_fused:
            x = F.conv2d(x, spread(self.conv_2.weight) / 4, stride=2, padding=1)
        else:
            x = F.avg_pool2d(F.conv2d(x, self.conv_2.weight, padding=1), 2)
        x = second = activate(x + self.bias_2)
        w = self.style_1(statistics(first)) + self.style_2(statistics(second))
        return {"conv_1": first, "conv_2": second, "out": F.instance_norm(x)}, w


class Coloured(nn.Module):
    """A 1x1 convolution `name` from or to colours."""

    def __init__(self, name: str, before: int, after: int):
        super().__init__()
        self.add_module(name, nn.Conv2d(before, after, 1))


class Encoder(nn.Module):
    """Image -> w."""

    def __init__(self, channels: Sequence[int], latent: int):
        """`channels` are those of the blocks' inputs, and of the last one's output."""
        super().__init__()
        blocks = len(channels) - 1
        self.from_rgb = nn.ModuleList(Coloured("from_rgb", 3, c) for c in channels[:-1])
        self.encode_block = nn.ModuleList(
            EncoderBlock(before, after, latent, 2 ** (blocks + 1 - n) >= FUSED_FROM_PX)
            for n, (before, after) in enumerate(itertools.pairwise(channels))
        )

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names and maps of images `[N, 3, H, W]` in [-1, 1], and finally `w` `[N, latent]`.

        Images of half the size enter at the second block, and so on.
        """
        first = len(self.encode_block) + 1 - int(math.log2(x.shape[-1]))
        entry: Any = self.from_rgb[first]
        x = activate(activate(entry.from_rgb(x)))
        total = torch.zeros((), device=x.device, dtype=x.dtype)
        for number, block in enumerate(self.encode_block[first:], first):
            maps, w = block(x)
            total = total + w
            for name, x in maps.items():
                yield f"encoder.{number}.{name}", x
        yield "w", total


class GeneratorBlock(nn.Module):
    """Two convolutions, each followed by noise and style; the first doubles the resolution."""

    bias_1: Tensor
    bias_2: Tensor
    style_1: nn.Linear
    style_2: nn.Linear

    def __init__(self, before: int, after: int, latent: int, number: int):
        super().__init__()
        self.number, self.is_fused = number, 2 ** (number + 2) >= FUSED_FROM_PX
        if number:
            sizes = (before, after) if self.is_fused else (after, before)
            self.conv_1 = Kernel(*sizes)
        self.conv_2 = Kernel(after, after)
        self.blur = Depthwise(after)
        for i in (1, 2):
            for name in (f"noise_weight_{i}", f"bias_{i}"):
                self.register_parameter(name, nn.Parameter(torch.empty(1, after, 1, 1)))
            self.add_module(f"style_{i}", nn.Linear(latent, 2 * after))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """`[N, before, R, R]` and w `[N, latent]` -> `[N, after, 2 R, 2 R]`."""
        if self.number and self.is_fused:
            kernel = spread(self.conv_1.weight)
            x = self.blur(F.conv_transpose2d(x, kernel, stride=2, padding=1))
        elif self.number:
            x = F.interpolate(x, scale_factor=2)
            x = self.blur(F.conv2d(x, self.conv_1.weight, padding=1))
        x = self._style(x, self.bias_1, self.style_1(w))
        return self._style(F.conv2d(x, self.conv_2.weight, padding=1), self.bias_2, self.style_2(w))

    def _style(self, x: Tensor, bias: Tensor, style: Tensor) -> Tensor:
        """Noise of mean 0, bias, activation, and an instance norm that `style` scales."""
        # What the original adds in place of noise, so that images are deterministic.
        s = math.sqrt(self.number + 1)
        x = x + 0.8 * s * torch.exp(-x * x / (2 * s * s)) / math.sqrt(2 * math.pi)
        x = F.instance_norm(activate(x + bias), eps=1e-8)
        scale, shift = style[:, :, None, None].chunk(2, dim=1)
        return x * (scale + 1) + shift


class Generator(nn.Module):
    """w -> image."""

    def __init__(self, channels: Sequence[int], latent: int):
        """`channels` are those of the blocks' outputs."""
        super().__init__()
        self.const = nn.Parameter(torch.empty(1, channels[0], 4, 4))
        self.decode_block = nn.ModuleList(
            GeneratorBlock(before, after, latent, number)
            for number, (before, after) in enumerate(itertools.pairwise((channels[0], *channels)))
        )
        self.to_rgb = nn.ModuleList(Coloured("to_rgb", c, 3) for c in channels)

    def walk(self, w: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names and maps of w `[N, latent]`, and finally the image `[N, 3, R, R]`."""
        x = self.const.expand(len(w), -1, -1, -1)
        for number, block in enumerate(self.decode_block):
            x = block(x, w)
            yield f"decoder.{number}", x
        last: Any = self.to_rgb[-1]
        yield "reconstruction", last.to_rgb(x)


class ALAE(nn.Module):
    """Features of images; see `generators.encoders.network.EncoderNetwork`."""

    def __init__(
        self,
        encoder: Sequence[int],
        generator: Sequence[int],
        latent: int,
        layers: Sequence[str] | None = None,
    ):
        """`encoder` and `generator` are widths, as their classes take them; `latent` is that of w.

        Raises ValueError for `layers` that the network does not have.
        """
        super().__init__()
        blocks = range(len(generator))
        self.native_size = self.multiple = 2 ** (len(generator) + 1)
        maps = ("conv_1", "conv_2", "out")
        self.layer_names = (
            *(f"encoder.{n}.{name}" for n in blocks for name in maps),
            *(f"decoder.{n}" for n in blocks),
        )
        self.default_layers = tuple(f"encoder.{n}.conv_2" for n in blocks)
        self.layers = choose_layers(layers, self.layer_names, self.default_layers)
        self.discriminator = Encoder(encoder, latent)
        self.generator = Generator(generator, latent)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps `layers` of images uint8 `[N, 3, H, W]`."""
        x = (images.float() / 127.5 - 1).to(self.generator.const.dtype)
        return take(self.walk(x), self.layers)

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names and maps in order, of images `[N, 3, H, W]` in [-1, 1]; `w`, `reconstruction`."""
        w = x
        for name, w in self.discriminator.walk(x):
            yield name, w
        yield from self.generator.walk(w)


def build(checkpoint: Checkpoint, config: EncoderConfig) -> ALAE:
    """The network of `checkpoint`, averaged over training if it has that; see `Build`."""
    tensors = averaged(checkpoint.tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    inputs = _sizes(shapes, "discriminator.encode_block.{}.bias_1")
    last = shapes.get(f"discriminator.encode_block.{len(inputs) - 1}.bias_2", ())
    outputs = _sizes(shapes, "generator.decode_block.{}.bias_2")
    w = shapes.get("discriminator.encode_block.0.style_1.bias", ())
    if not 1 <= len(inputs) == len(outputs) <= MAX_BLOCKS or len(last) < 2 or not w:
        raise ValueError(
            f"not the weights of a StyleALAE: found {len(inputs)} encoder and {len(outputs)} "
            f"generator blocks, expected as many of each (at most {MAX_BLOCKS}): give the complete "
            "checkpoint, as it was published"
        )
    with torch.device("meta"):
        network = ALAE((*inputs, last[1]), outputs, w[0], config.layers)
    network = network.to_empty(device="cpu")
    load_strictly(network, tensors, "a StyleALAE")
    return network


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder and generator of a checkpoint, from their moving averages if it has them.

    Raises ValueError if it holds a network that no ALAE has.
    """
    parts = {name.split(".")[0] for name in tensors}
    known = {part + end for part in (ENCODER, GENERATOR, *OTHERS) for end in ("", AVERAGED)}
    if unknown := sorted(parts - known):
        raise ValueError(f"not an ALAE checkpoint: found a network {unknown[0][:60]!r} in it")
    end = AVERAGED if ENCODER + AVERAGED in parts else ""
    found = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part in (ENCODER + end, GENERATOR + end):
            found[f"{part.removesuffix(AVERAGED)}.{rest}"] = tensor
    return found


def _sizes(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> list[int]:
    """Channels of the biases `[1, C, 1, 1]` that are called `pattern` with 0, 1, ..."""
    found: list[int] = []
    while len(shape := shapes.get(pattern.format(len(found)), ())) > 1:
        found.append(shape[1])
    return found
