"""Pretraining a masked autoencoder on a folder of images (He et al. 2022)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF
from torchvision.utils import make_grid

from factory_core.device import send
from factory_core.symmetries import augment
from generators.base import sample_seed
from generators.encoders import storage
from generators.encoders.config import EncoderConfig
from generators.encoders.loading import load_network
from generators.encoders.mae_config import MAETrainingConfig
from generators.encoders.mae_network import MaskedAutoencoder, statistics
from generators.encoders.network import load_strictly
from generators.training.folder import interrupted
from generators.training.images import TrainingImages
from generators.training.loop import GeneratorTraining, run, scheduled, warm_cosine

BETAS = (0.9, 0.95)  # of AdamW
SHOWN = 8  # images in a row of the sheet
WIDEST = 4 / 3  # ratio of the sides of a crop


class MAETraining(GeneratorTraining):
    """Minimises the error of the masked patches. There is no moving average, as in the paper."""

    config: MAETrainingConfig

    def __init__(
        self, config: MAETrainingConfig, images: TrainingImages, network: MaskedAutoencoder
    ):
        super().__init__(config, images)
        self.network = network

    @property
    def ema(self) -> nn.Module:  # type: ignore[override]
        """The network itself."""
        return self.network

    def configure_optimizers(self) -> Any:
        config = self.config
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=BETAS)

        return scheduled(optimizer, warm_cosine(config.warmup_steps, config.steps))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        config = self.config
        rng = torch.Generator().manual_seed(sample_seed(config.seed, self.global_step, stream=1))
        cropped = crop(batch, config.smallest_crop, rng)
        images = augment(cropped, config.flips, config.quarter_turns, rng)
        order = torch.rand(len(images), config.patches, generator=rng).argsort(dim=1)
        x = self.network.normalise(send(images, self.device))
        loss = self.network.loss(x, send(order, self.device))
        self.show(self.global_step, loss=loss.detach())
        return loss

    @torch.inference_mode()
    def sample_grid(self) -> Tensor:
        """Rows of what the encoder sees, of what the decoder makes of it, and of the images."""
        net, config = self.network, self.config
        count = min(SHOWN, len(self.images))
        shown = torch.stack([self.images.image(i) for i in range(count)]).to(self.device)
        rng = torch.Generator().manual_seed(config.seed)
        order = torch.rand(count, config.patches, generator=rng).argsort(dim=1).to(self.device)
        x = net.normalise(shown)
        found, patches = net(x, order), net.patchify(x)
        made = found.pixels.float()
        if config.norm_pix_loss:
            mean, std = statistics(patches)
            made = made * std + mean
        hidden = found.hidden[:, :, None]
        rows = [patches * (1 - hidden), made * hidden + patches * (1 - hidden), patches]
        images = net.unpatchify(torch.cat(rows)) * net.normalise.std + net.normalise.mean
        return make_grid(images.clamp(0, 1), nrow=count)

    def write(self, out: Path) -> None:
        """Save the encoder, which `generators.load_encoder` reads."""
        info = storage.EncoderFile(network="mae", settings={"heads": self.config.heads})
        storage.save(out, info, self.network.encoder.state_dict())


def crop(images: Tensor, smallest: float, rng: torch.Generator) -> Tensor:
    """Random parts of images uint8 `[N, 3, H, W]`, enlarged to their size.

    A part has `smallest` to 1 of the area, uniformly, and sides in a ratio of 3/4 to 4/3.
    """
    if smallest == 1:
        return images
    height, width = images.shape[-2:]
    parts = []
    for image in images:
        area, ratio, top, left = torch.rand(4, generator=rng).tolist()
        share = smallest + (1 - smallest) * area
        aspect = math.exp((2 * ratio - 1) * math.log(WIDEST))
        h = max(1, min(height, round(height * math.sqrt(share / aspect))))
        w = max(1, min(width, round(width * math.sqrt(share * aspect))))
        corner = (round(top * (height - h)), round(left * (width - w)))
        bicubic = TF.InterpolationMode.BICUBIC
        parts.append(TF.resized_crop(image, *corner, h, w, [height, width], bicubic))
    return torch.stack(parts)


def start_network(config: MAETrainingConfig, init: str | None) -> MaskedAutoencoder:
    """An untrained network, or one that starts from the folder or checkpoint `init`.

    From an unfinished training everything is taken over, from a finished one the encoder. Raises
    ValueError if `init` has a different shape.
    """
    torch.manual_seed(config.seed)
    network = MaskedAutoencoder(config)
    if init is None:
        return network
    prefix = "network."
    if (unfinished := interrupted(init, prefix)) is not None:
        load_strictly(network, unfinished[1], f"a MAE as of these settings ({init})")
    else:
        settings = EncoderConfig(weights=init, network="mae", heads=config.heads)
        _, theirs, _ = load_network(settings)
        state = theirs.transformer.state_dict()  # type: ignore[attr-defined]
        load_strictly(network.encoder, state, f"a MAE as of these settings ({init})")
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name != "encoder.pos_embed")
    return network


def train(
    images: TrainingImages,
    out: Path,
    config: MAETrainingConfig,
    init: str | None = None,
    device: str = "auto",
    progress: list[Callback] | None = None,
) -> None:
    """Train on `images`, of `config.image_size`, and write the encoder into `out`.

    See `generators.training.loop.run` for what else `out` gets, and for resumption.
    """
    run(
        lambda: MAETraining(config, images, start_network(config, init)),
        config,
        images,
        out,
        init,
        device,
        progress,
    )
