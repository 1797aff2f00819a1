"""Training a VDVAE on a folder of images (Child 2021), to be used as an encoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.utils import make_grid

from factory_core.device import send
from factory_core.symmetries import augment
from generators.base import sample_seed
from generators.encoders import storage
from generators.encoders.network import load_strictly
from generators.encoders.vdvae_config import VDVAETrainingConfig
from generators.encoders.vdvae_likelihood import Mixture
from generators.encoders.vdvae_network import VDVAE, Noise
from generators.training.averaging import update_average
from generators.training.folder import interrupted
from generators.training.images import TrainingImages
from generators.training.loop import GeneratorTraining, run, scheduled

BETAS = (0.9, 0.9)  # of AdamW, as in the paper
SHOWN = 8  # images in a row of the sheet


class VDVAETraining(GeneratorTraining):
    """Maximises the ELBO and keeps an EMA of the weights."""

    config: VDVAETrainingConfig
    ema: AveragedModel

    def __init__(self, config: VDVAETrainingConfig, images: TrainingImages, network: VDVAE):
        super().__init__(config, images)
        self.network = network
        self.ema = AveragedModel(network)
        self.ema.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, betas=BETAS, weight_decay=config.weight_decay
        )
        warmup = max(config.warmup_steps, 1)
        return scheduled(optimizer, lambda step: min(1.0, (step + 1) / warmup))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        config = self.config
        rng = torch.Generator().manual_seed(sample_seed(config.seed, self.global_step, stream=1))
        images = augment(batch, config.flips, config.quarter_turns, rng)
        distortion, rate = free_energy(self.network, send(images, self.device), rng)
        self.show(
            self.global_step,
            loss=(distortion + rate).detach(),
            distortion=distortion.detach(),
            rate=rate.detach(),
        )
        return distortion + rate

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip; and skip the step if the norm is far too large, as the paper does."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        if not norm < self.config.skip_above:  # or is not finite
            optimizer.zero_grad(set_to_none=True)  # AdamW leaves parameters without gradient

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        update_average(self.ema, self.network, self.global_step, self.config.ema_decay)

    @torch.inference_mode()
    def sample_grid(self) -> Tensor:
        """Rows of images, of their reconstructions with eps = 0, and of samples; in [0, 1]."""
        net: Any = self.ema.module
        count = min(SHOWN, len(self.images))
        shown = torch.stack([self.images.image(i) for i in range(count)]).to(self.device)
        again = Mixture.of(net.reconstruct(shown)).likeliest()
        rng = torch.Generator().manual_seed(self.config.seed)
        *_, (_, x, _) = net.decoder.walk(None, count, noise_from(rng))
        drawn = Mixture.of(net.decoder.pixels(x)).likeliest()
        made = (torch.cat([again, drawn]) + 1) / 2
        return make_grid(torch.cat([shown.float() / 255, made]), nrow=count)

    def write(self, out: Path) -> None:
        """Save the EMA network as an encoder, which `generators.load_encoder` reads."""
        net: Any = self.ema.module
        settings = net.shape.model_dump(mode="json")
        storage.save(out, storage.EncoderFile(network="vdvae", settings=settings), net.state_dict())


def free_energy(network: VDVAE, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Distortion -E[log p(x | z)] and rate KL(q || p) of images uint8 `[N, 3, H, W]`.

    In nats per dimension, the mean over the batch; their sum is the negative ELBO (Eq. 1). `rng`
    draws the latents, on the CPU.
    """
    maps = {
        x.shape[-1]: x
        for name, x in network.encoder.walk(network.normalise(images))
        if name.startswith("at")
    }
    steps = list(network.decoder.walk(maps, len(images), noise_from(rng)))
    rate = torch.stack([latent.kl().sum() for _, _, latent in steps]).sum()
    mixture = Mixture.of(network.decoder.pixels(steps[-1][1]))
    likelihood = mixture.log_likelihood(images.float() / 127.5 - 1)
    return -likelihood.sum() / images.numel(), rate / images.numel()


def noise_from(rng: torch.Generator) -> Noise:
    """The eps of all blocks, from one stream of the CPU."""
    return lambda number, shape: torch.randn(shape, generator=rng)


@torch.no_grad()
def initialise(network: VDVAE) -> None:
    """The paper's first weights: residual branches begin small, the deeper the network the smaller.

    The prior begins as the standard normal distribution, with no part in the map. Ours: the
    logistics begin side by side, as the optimiser needs hundreds of steps to spread them.
    """
    parts: Any = network
    for branch in parts.encoder.enc_blocks:
        branch.c4.weight *= len(network.encoder.enc_blocks) ** -0.5
    scale = len(network.decoder.dec_blocks) ** -0.5
    for block in parts.decoder.dec_blocks:
        block.resnet.c4.weight *= scale
        block.z_proj.weight *= scale
        block.prior.c4.weight.zero_()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            module.bias.zero_()
    K = network.shape.mixtures
    bias = network.decoder.out_net.out_conv.bias
    assert bias is not None
    colours = bias[K:].view(3, 3, K)  # means, log scales, coefficients
    colours[:, 0] = torch.linspace(-1, 1, K + 2)[1:-1]
    colours[:, 1] = -math.log(K + 1)


def start_network(config: VDVAETrainingConfig, init: str | None) -> VDVAE:
    """An untrained VDVAE, or that of the folder `init` to continue from.

    Raises ValueError if `init` has a different shape, FileNotFoundError if it holds no VDVAE.
    """
    torch.manual_seed(config.seed)
    network = VDVAE(config.shape)
    if init is None:
        initialise(network)
        return network
    unfinished = interrupted(init, "ema.module.")
    if unfinished is None:
        info, checkpoint = storage.load(Path(init))
        shape, state = info.settings, checkpoint.tensors
    else:
        shape = VDVAETrainingConfig(**unfinished[0]).shape.model_dump(mode="json")
        state = unfinished[1]
    for name, value in config.shape.model_dump(mode="json").items():
        if shape.get(name) != value:
            raise ValueError(
                f"{init} has {name} {shape.get(name)}, expected {value}: set image_size, width, "
                "blocks, zdim and mixtures as there"
            )
    load_strictly(network, state, "a VDVAE")
    return network.requires_grad_(True).train()


def train(
    images: TrainingImages,
    out: Path,
    config: VDVAETrainingConfig,
    init: str | None = None,
    device: str = "auto",
    progress: list[Callback] | None = None,
) -> None:
    """Train on `images`, of `config.image_size`, and write an encoder into `out`.

    See `generators.training.loop.run` for what else `out` gets, and for resumption.
    """
    run(
        lambda: VDVAETraining(config, images, start_network(config, init)),
        config,
        images,
        out,
        init,
        device,
        progress,
    )
