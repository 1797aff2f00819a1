"""Training the encoder of one's own StyleGAN2: from images to the codes that make them.

The codes of samples are known, so half of each batch has exact targets. The other half are
photographs, which have none: as in pSp (Richardson et al. 2021), the StyleGAN2 makes an image of
the codes, which has to look like the photograph. As in e4e (Tov et al. 2021), all codes are
offsets from the first one, and are kept near it, where the StyleGAN2 knows its way.

    L = |G(E(x)) - x|  +  λ_code ‖E(G(w)) - w‖² / σ²  +  λ_layers ‖w_i - w_0‖² / σ²

Images are compared as `generators.stylegan2.projection` compares them. There is no discriminator of
codes and no network of identities.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torchvision.utils import make_grid

from factory_core.device import send
from factory_core.symmetries import augment
from generators.base import sample_seed
from generators.encoders import storage
from generators.encoders.config import EncoderConfig
from generators.encoders.e4e import E4E, OURS, SQUEEZE, Encoder
from generators.encoders.e4e_config import E4ETrainingConfig
from generators.encoders.loading import load_network
from generators.encoders.storage import EncoderFile
from generators.kind import kind_of
from generators.stylegan2.model import from_uint8, to_uint8
from generators.stylegan2.model import load_network as load_stylegan2
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.projection import pyramid_distance
from generators.stylegan2.training import mix_styles
from generators.training.images import TrainingImages
from generators.training.loop import GeneratorTraining, run, scheduled, warm_cosine

SHOWN = 8  # images in a row of the sheet
SPREAD_SAMPLES = 1024  # of w, for its standard deviation
MAX_NORM = 1.0  # of the gradient
NEEDED = "--kind e4e trains the encoder of a StyleGAN2: give that with --init"


class E4ETraining(GeneratorTraining):
    """Minimises L of this module. There is no moving average; the StyleGAN2 stays as it is."""

    config: E4ETrainingConfig

    def __init__(self, config: E4ETrainingConfig, images: TrainingImages, network: E4E):
        super().__init__(config, images)
        self.network = network
        shape = network.stylegan2.config
        z = torch.randn(SPREAD_SAMPLES, shape.z_dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.spread = float(network.stylegan2.mapping(z).std())

    @property
    def ema(self) -> nn.Module:  # type: ignore[override]
        """The network itself."""
        return self.network

    def configure_optimizers(self) -> Any:
        config = self.config

        optimizer = torch.optim.Adam(self.network.encoder.parameters(), config.lr)
        return scheduled(optimizer, warm_cosine(config.warmup_steps, config.steps))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        config, net, n = self.config, self.network, len(batch)
        rng = torch.Generator().manual_seed(sample_seed(config.seed, self.global_step, stream=1))
        photographs = augment(batch, config.flips, config.quarter_turns, rng)
        samples, wanted = self._samples(n, rng)
        images = torch.cat([samples, send(photographs, self.device)])
        ws = net.ws(images)
        made, _ = net.stylegan2.synthesis(ws, noise="const")
        pixels = pyramid_distance(made, from_uint8(images))
        far = ((ws[:n] - wanted) / self.spread).square().mean()
        apart = ((ws[:, 1:] - ws[:, :1]) / self.spread).square().mean()
        loss = pixels.mean() + config.code_weight * far + config.layers_weight * apart
        self.show(
            self.global_step,
            loss=loss.detach(),
            codes=far.detach(),
            samples=pixels[:n].mean().detach(),
            photographs=pixels[n:].mean().detach(),
        )
        return loss

    @torch.no_grad()
    def _samples(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images uint8 `[count, 3, R, R]` of the StyleGAN2, and their ws."""
        gan = self.network.stylegan2
        z = send(torch.randn(2 * count, gan.config.z_dim, generator=rng), self.device)
        w, other = gan.mapping(z).chunk(2)
        ws = mix_styles(gan.mapping.broadcast(w), other, self.config.style_mixing, rng)
        return to_uint8(gan.synthesis(ws, noise="const")[0]), ws

    @torch.inference_mode()
    def sample_grid(self) -> Tensor:
        """A row of photographs, and one of what the StyleGAN2 makes of their codes."""
        net, count = self.network, min(SHOWN, len(self.images))
        shown = torch.stack([self.images.image(i) for i in range(count)]).to(self.device)
        net.encoder.eval()  # the statistics of normalisation, not of eight images
        made, _ = net.stylegan2.synthesis(net.ws(shown), noise="const")
        net.encoder.train()
        return make_grid(torch.cat([shown, to_uint8(made)]).float() / 255, nrow=count)

    def write(self, out: Path) -> None:
        """Save the encoder with its StyleGAN2, which `generators.load_encoder` reads."""
        net = self.network
        tensors = {f"encoder.{name}": t for name, t in net.encoder.state_dict().items()}
        tensors |= {f"decoder.{name}": t for name, t in net.stylegan2.state_dict().items()}
        settings = {OURS: net.stylegan2.config.model_dump(), "encoder_type": "Encoder4Editing"}
        info = EncoderFile(network="e4e", settings=settings)
        storage.save(out, info, tensors | {"latent_avg": net.latent_avg})


def start_network(config: E4ETrainingConfig, init: str) -> E4E:
    """An untrained encoder of the StyleGAN2 `init`, or the trained one in the folder `init`.

    Raises ValueError if `init` is neither, or makes images of another size.
    """
    if Path(init).is_dir() and kind_of(Path(init)) == "encoder":
        network = cast(E4E, load_network(EncoderConfig(weights=init, network="e4e"))[1])
    else:
        network = _untrained(config, load_stylegan2(init))
    size = network.stylegan2.config.resolution
    if size != config.image_size:
        raise ValueError(
            f"{init} makes images of {size} pixels, not {config.image_size}: set image_size={size}"
        )
    network.encoder.requires_grad_(True).train()
    return network


def _untrained(config: E4ETrainingConfig, stylegan2: StyleGAN2) -> E4E:
    shape = stylegan2.config
    if shape.c_dim:
        raise ValueError(
            f"the StyleGAN2 has {shape.c_dim} classes: expected a network without classes"
        )
    if shape.w_dim < SQUEEZE:
        raise ValueError(f"codes of the StyleGAN2 have {shape.w_dim} numbers, expected {SQUEEZE}+")
    torch.manual_seed(config.seed)
    encoder = Encoder((*config.widths, shape.w_dim), shape.w_dim, shape.num_ws)
    average = stylegan2.mapping.w_avg.expand(shape.num_ws, -1).clone()
    stylegan2.requires_grad_(False).eval()
    return E4E(encoder, stylegan2, average, is_progressive=True)


def train(
    images: TrainingImages,
    out: Path,
    config: E4ETrainingConfig,
    init: str | None = None,
    device: str = "auto",
    progress: list[Callback] | None = None,
) -> None:
    """Train on `images`, of `config.image_size`, and write the encoder into `out`.

    `init` is the StyleGAN2; without it, ValueError. See `generators.training.loop.run` for what
    else `out` gets, and for resumption.
    """
    if init is None:
        raise ValueError(f"found no --init: {NEEDED}")
    run(
        lambda: E4ETraining(config, images, start_network(config, init)),
        *(config, images, out, init, device, progress),
        autocast=False,
        gradient_clip_val=MAX_NORM,
    )
