"""e4e (Tov et al. 2021) and pSp (Richardson et al. 2021): images to the codes of a StyleGAN2.

Two sets of features: activations of the encoder (GAN Encoder), and those of the StyleGAN2 at the
codes that it finds (GAN Inversion). Names of modules and parameters are those of the published
state dicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from factory_core.models import first_fault
from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, choose_layers, load_strictly, take
from generators.files.own import COPY_AGAIN
from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.rosinality import as_stylegan2
from generators.stylegan2.storage import assemble

GROUPS = (3, 4, 14, 3)  # units of IR-SE50; the first of each group halves the resolution
UNITS = sum(GROUPS)
LEVELS = (6, 20, 23)  # units whose outputs c1, c2, c3 the pyramid is built from
COARSE, MIDDLE = 3, 7  # styles up to these numbers see c3, p2; the others p1
SQUEEZE = 16  # channels per channel of the excitation
AVERAGE = "latent_avg"  # in the checkpoint
OURS = "stylegan2"  # setting of our own files: the shape of the StyleGAN2, which has our names
SLOPE = 0.01  # of the leaky ReLU in the styles
MAX_PX = 256  # beyond that, a style would not end in one pixel
# Whether codes are relative to the first one, by the `encoder_type` of the checkpoint.
ENCODERS = {"Encoder4Editing": True, "GradualStyleEncoder": False}
GIVE = "give the complete checkpoint, as it was published"


class Excitation(nn.Module):
    """Squeeze and excitation: every channel times a number that depends on all channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, R, R]` -> the same."""
        squeezed = F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(squeezed))


class Unit(nn.Module):
    """A residual unit of IR-SE50, without an activation after the sum."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.stride = stride
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            Excitation(after),
        )
        if before != after:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, before, R, R]` -> `[N, after, R / stride, R / stride]`."""
        has_layer = hasattr(self, "shortcut_layer")
        shortcut = self.shortcut_layer(x) if has_layer else x[:, :, :: self.stride, :: self.stride]
        return self.res_layer(x) + shortcut


class Linear(nn.Module):
    """Fully connected layer with an equalised learning rate."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, width]` -> the same."""
        return F.linear(x, self.weight / math.sqrt(x.shape[1]), self.bias)


class Style(nn.Module):
    """A level of the pyramid -> one code."""

    def __init__(self, width: int, convolutions: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convolutions):
            layers += [nn.Conv2d(width, width, 3, 2, padding=1), nn.LeakyReLU(SLOPE)]
        self.convs, self.linear = nn.Sequential(*layers), Linear(width)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, width, R, R]` -> `[N, width]`."""
        return self.linear(self.convs(x).flatten(1))


class Encoder(nn.Module):
    """IR-SE50, a pyramid on it, and the styles."""

    def __init__(self, widths: Sequence[int], style: int, styles: int):
        """`widths` are those of the four groups; `style` is that of the codes."""
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.PReLU(widths[0]),
        )
        self.body = nn.Sequential()
        before = widths[0]
        for width, units in zip(widths, GROUPS, strict=True):
            for number in range(units):
                self.body.append(Unit(before, width, 1 if number else 2))
                before = width
        self.styles = nn.ModuleList(
            Style(style, 4 if n < COARSE else 5 if n < MIDDLE else 6) for n in range(styles)
        )
        self.latlayer1 = nn.Conv2d(widths[2], style, 1)
        self.latlayer2 = nn.Conv2d(widths[1], style, 1)

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names and maps in order, of images `[N, 3, H, W]` in [-1, 1]."""
        x = self.input_layer(x)
        levels = []
        for number, unit in enumerate(self.body):
            x = unit(x)
            if number in LEVELS:
                levels.append(x)
            yield f"body.{number}", x
        c1, c2, c3 = levels
        p2 = _enlarged(c3, c2) + self.latlayer1(c2)
        yield "p2", p2
        yield "p1", _enlarged(p2, c1) + self.latlayer2(c1)

    def codes(self, c3: Tensor, p2: Tensor, p1: Tensor) -> Tensor:
        """`[N, styles, width]`, what each style makes of its level."""
        levels = [*[c3] * COARSE, *[p2] * (MIDDLE - COARSE)]
        levels += [p1] * (len(self.styles) - len(levels))
        return torch.stack([style(x) for style, x in zip(self.styles, levels, strict=False)], dim=1)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


class E4E(nn.Module):
    """Features of images; see `generators.encoders.network.EncoderNetwork`."""

    latent_avg: Tensor
    native_size: int | None = None
    multiple = 16

    def __init__(
        self,
        encoder: Encoder,
        stylegan2: StyleGAN2,
        average: Tensor,
        is_progressive: bool,
        inverts: bool = False,
        layers: Sequence[str] | None = None,
    ):
        """`average` `[num_ws, w_dim]` is added to the codes.

        `is_progressive`: codes are relative to the first one (e4e, not pSp). `inverts`: features
        are those of the StyleGAN2. Raises ValueError for `layers` that the network does not have.
        """
        super().__init__()
        self.is_progressive, self.inverts = is_progressive, inverts
        self.encoder, self.stylegan2 = encoder, stylegan2
        self.register_buffer("latent_avg", average)
        if inverts:
            self.layer_names = self.default_layers = stylegan2.synthesis.layers
        else:
            self.layer_names = (*(f"body.{n}" for n in range(UNITS)), "p2", "p1")
            self.default_layers = ("body.2", *(f"body.{n}" for n in LEVELS), "p2", "p1")
        self.layers = choose_layers(layers, self.layer_names, self.default_layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps `layers` of images uint8 `[N, 3, H, W]`."""
        if self.inverts:
            dtype = self.encoder.latlayer1.weight.dtype
            _, maps = self.stylegan2.synthesis(self.ws(images), dtype=dtype, keep=self.layers)
            return maps
        return take(self.encoder.walk(self.normalise(images)), self.layers)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 `[N, 3, H, W]` -> what the network sees."""
        return ((images.float() / 255 - 0.5) / 0.5).to(self.encoder.latlayer1.weight.dtype)

    def ws(self, images: Tensor) -> Tensor:
        """Latents in W+ `[N, num_ws, w_dim]` of images uint8 `[N, 3, H, W]`.

        Raises ValueError for images of more than 256 pixels.
        """
        if max(images.shape[2:]) > MAX_PX:
            raise ValueError(
                f"images have {max(images.shape[2:])} pixels, but codes need at most {MAX_PX}: "
                f"set generator.input_size={MAX_PX}"
            )
        maps = dict(self.encoder.walk(self.normalise(images)))
        codes = self.encoder.codes(maps[f"body.{LEVELS[-1]}"], maps["p2"], maps["p1"])
        if self.is_progressive:
            codes = torch.cat([codes[:, :1], codes[:, :1] + codes[:, 1:]], dim=1)
        return codes + self.latent_avg


def build(checkpoint: Checkpoint, config: EncoderConfig) -> E4E:
    """The network of `checkpoint`; see `generators.encoders.network.Build`."""
    tensors = checkpoint.tensors
    for name in tensors:
        if not name.startswith(("encoder.", "decoder.")) and name != AVERAGE:
            raise ValueError(f"{name[:60]!r} belongs to no e4e or pSp network: {GIVE}")
    stylegan2 = _stylegan2(checkpoint)
    ws = stylegan2.config.num_ws
    styles = {name.split(".")[2] for name in tensors if name.startswith("encoder.styles.")}
    if len(styles) != ws:
        raise ValueError(
            f"found {len(styles)} styles, expected {ws}: its StyleGAN2 of "
            f"{stylegan2.config.resolution} pixels takes a code per layer: {GIVE}"
        )
    starts = [sum(GROUPS[:group]) for group in range(len(GROUPS))]
    widths = [_width(tensors, f"encoder.body.{unit}.res_layer.3.weight") for unit in starts]
    with torch.device("meta"):
        encoder = Encoder(widths, _width(tensors, "encoder.styles.0.linear.weight"), ws)
    encoder = encoder.to_empty(device="cpu")
    ours = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    load_strictly(nn.ModuleDict({"encoder": encoder}), ours, "an e4e or pSp network")
    average = _average(checkpoint, ws, stylegan2.config.w_dim)
    inverts = config.activations == "generator"
    network = E4E(encoder, stylegan2, average, _is_progressive(checkpoint), inverts, config.layers)
    if OURS in checkpoint.settings:
        network.native_size = stylegan2.config.resolution
    return network.requires_grad_(False).eval()


def _stylegan2(checkpoint: Checkpoint) -> StyleGAN2:
    """The StyleGAN2 beside the encoder, published or ours."""
    tensors, source = checkpoint.tensors, "its decoder"
    decoder = {
        n.removeprefix("decoder."): t for n, t in tensors.items() if n.startswith("decoder.")
    }
    if (shape := checkpoint.settings.get(OURS)) is None:
        return as_stylegan2(decoder, source)
    try:
        config = NetworkConfig.model_validate(shape)
    except ValidationError as error:
        fault = first_fault(error)
        raise ValueError(f"the shape of its StyleGAN2: {fault}: {COPY_AGAIN}") from None
    return assemble(config, decoder, source)


def _width(tensors: Mapping[str, Tensor], name: str) -> int:
    """The first dimension of a tensor; raises ValueError if it is missing."""
    tensor = tensors.get(name)
    if tensor is None or not tensor.ndim:
        raise ValueError(f"not the weights of an e4e or pSp encoder: {name} is missing: {GIVE}")
    return tensor.shape[0]


def _is_progressive(checkpoint: Checkpoint) -> bool:
    """Whether codes are relative to the first; raises ValueError for other encoders."""
    found = checkpoint.settings.get("encoder_type")
    if not isinstance(found, str) or found not in ENCODERS:
        raise ValueError(
            f"its opts say encoder_type {str(found)[:60]!r}, expected {' or '.join(ENCODERS)}: "
            "only these two are supported"
        )
    return ENCODERS[found]


def _average(checkpoint: Checkpoint, ws: int, width: int) -> Tensor:
    """What codes are added to, `[ws, width]`."""
    found = checkpoint.tensors.get(AVERAGE)
    if not checkpoint.settings.get("start_from_latent_avg", True):
        return torch.zeros(ws, width)
    if found is None or tuple(found.shape) not in ((ws, width), (width,)):
        shape = "nothing" if found is None else list(found.shape)
        raise ValueError(f"{AVERAGE}: found {shape}, expected [{ws}, {width}]: {GIVE}")
    return found.float().expand(ws, width).clone()
