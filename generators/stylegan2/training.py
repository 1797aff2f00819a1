"""Training a StyleGAN2 on a folder of images, with Lightning."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchvision.utils import make_grid

from factory_core.device import pick_device, pick_dtype, send
from factory_core.symmetries import augment
from generators.base import sample_generators, sample_seed
from generators.colours import to_grey
from generators.stylegan2 import storage
from generators.stylegan2.augment import AdaptiveAugment
from generators.stylegan2.config import StyleGAN2TrainingConfig
from generators.stylegan2.discriminator import Discriminator
from generators.stylegan2.model import load_network, to_uint8
from generators.stylegan2.network import StyleGAN2
from generators.training.folder import CHECKPOINTS, LAST_NAME, check_readable, interrupted
from generators.training.images import TrainingImages
from generators.training.loop import GRID_SAMPLES, LOG_EVERY, GeneratorTraining, run

BETAS, ADAM_EPS = (0.0, 0.99), 1e-8  # of Adam, for both networks
W_AVG_RATE = 0.005  # at which the mean of w follows the batches
PATH_DECAY = 0.01  # of the mean path length
APPLIED_P = "applied_p"  # in checkpoints
EMA_RAMPUP = 0.05  # the half-life is at most this share of the images seen


class StyleGAN2Training(GeneratorTraining):
    """Non-saturating loss with R1 and path-length regularisation, each at its own interval.

    A regulariser is added to the loss of every k-th step, times k ("lazy", Karras et al. 2020a,
    Sec. 3.1).
    """

    config: StyleGAN2TrainingConfig
    ema: StyleGAN2
    path_mean: Tensor

    def __init__(
        self,
        config: StyleGAN2TrainingConfig,
        images: TrainingImages,
        generator: StyleGAN2,
        discriminator: Discriminator,
        dtype: torch.dtype = torch.float32,
    ):
        """`dtype` is that of the activations; weights and losses are float32."""
        super().__init__(config, images)
        self.automatic_optimization = False
        self.generator, self.discriminator, self.compute_dtype = generator, discriminator, dtype
        self.ema = copy.deepcopy(generator).requires_grad_(False)
        self.adaptive = AdaptiveAugment(config.ada_target, config.ada_kimg * 1000)
        self.register_buffer("path_mean", torch.zeros(()))

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(net.parameters(), lr=self.config.lr, betas=BETAS, eps=ADAM_EPS)
            for net in (self.generator, self.discriminator)
        ]

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        config, step = self.config, self.global_step
        seed = sample_seed(config.seed, step, stream=1)
        rng = torch.Generator().manual_seed(seed)
        # Latents, noise and augmentation come from torch's global stream.
        torch.manual_seed(seed)
        real = augment(batch, config.flips, config.quarter_turns, rng).float() / 127.5 - 1
        real = send(real.contiguous(memory_format=torch.channels_last), self.device)
        if step % LOG_EVERY == 0:
            self.adaptive.apply_p()
        generator_optimizer, discriminator_optimizer = cast(list[Any], self.optimizers())

        discriminator_loss = self.discriminator_loss(real, regularise=step % config.r1_every == 0)
        discriminator_optimizer.zero_grad()
        self.manual_backward(discriminator_loss)
        # Lightning counts the steps of its wrapped optimisers: of this pair, count one.
        discriminator_optimizer.optimizer.step()

        self.discriminator.requires_grad_(False)
        regularise = config.path_weight > 0 and step % config.path_every == 0
        generator_loss = self.generator_loss(len(real), regularise)
        generator_optimizer.zero_grad()
        self.manual_backward(generator_loss)
        generator_optimizer.step()
        self.discriminator.requires_grad_(True)

        self._update_ema(step)
        losses = {"D": discriminator_loss.detach(), "G": generator_loss.detach()}
        self.show(step, **losses, p=self.adaptive.p)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[APPLIED_P] = self.adaptive.applied_p

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        p = checkpoint["state_dict"]["adaptive.p"]  # older checkpoints have only this one
        self.adaptive.applied_p = checkpoint.get(APPLIED_P, float(p))

    def discriminator_loss(self, real: Tensor, regularise: bool) -> Tensor:
        """Logistic loss of real images `[N, 3, R, R]` in [-1, 1] and of as many generated ones."""
        with torch.no_grad():
            fake, _ = self._generate(len(real))
        fake_logits = self.discriminator(self.adaptive(fake), self.compute_dtype)
        # R1 is taken at the augmented images, which the discriminator works on.
        seen = self.adaptive(real).detach().requires_grad_(regularise)
        real_logits = self.discriminator(seen, self.compute_dtype)
        self.adaptive.adapt(real_logits)
        loss = F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()
        if not regularise:
            return loss
        # R1 = γ/2 · E‖∇D(x)‖² (Mescheder et al. 2018, Eq. 9).
        (gradient,) = torch.autograd.grad(real_logits.sum(), seen, create_graph=True)
        r1 = self.config.r1_gamma / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
        return loss + r1 * self.config.r1_every

    def generator_loss(self, n: int, regularise: bool) -> Tensor:
        """Non-saturating loss of `n` generated images."""
        fake, _ = self._generate(n)
        loss = F.softplus(-self.discriminator(self.adaptive(fake), self.compute_dtype)).mean()
        if not regularise:
            return loss
        return loss + self._path_penalty(max(n // 2, 1)) * self.config.path_every

    def _path_penalty(self, n: int) -> Tensor:
        """(‖Jᵀy‖ - a)², J the Jacobian of the image by w (Karras et al. 2020a, Eq. 4)."""
        images, ws = self._generate(n)
        y = torch.randn_like(images) / math.sqrt(images[0, 0].numel())
        (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
        lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
        self.path_mean.lerp_(lengths.detach().mean(), PATH_DECAY)
        return self.config.path_weight * (lengths - self.path_mean).square().mean()

    def _generate(self, n: int) -> tuple[Tensor, Tensor]:
        """`n` images and their ws; updates the running mean of w."""
        mapping = self.generator.mapping
        z = torch.randn(2, n, mapping.config.z_dim, device=self.device)
        w, other = mapping(z.flatten(0, 1)).unflatten(0, (2, n))
        mapping.w_avg.lerp_(w.detach().mean(dim=0), W_AVG_RATE)
        ws = mix_styles(mapping.broadcast(w), other, self.config.style_mixing)
        images, _ = self.generator.synthesis(ws, noise="random", dtype=self.compute_dtype)
        return images, ws

    @torch.no_grad()
    def _update_ema(self, step: int) -> None:
        seen = (step + 1) * self.config.batch_size
        half_life = min(self.config.ema_kimg * 1000, EMA_RAMPUP * seen)
        decay = 0.5 ** (self.config.batch_size / half_life)
        averaged, current = (list(net.parameters()) for net in (self.ema, self.generator))
        torch._foreach_lerp_(averaged, current, 1 - decay)  # type: ignore[arg-type]
        for ours, theirs in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            ours.copy_(theirs)

    @torch.inference_mode()
    def sample_grid(self) -> Tensor:
        """Samples of the EMA network, untruncated, float `[3, H, W]` in [0, 1]."""
        mapping, rngs = self.ema.mapping, sample_generators(0, range(GRID_SAMPLES))
        z = torch.stack([torch.randn(mapping.config.z_dim, generator=g) for g in rngs])
        images, _ = self.ema.synthesis(mapping.broadcast(mapping(z.to(self.device))))
        if self.images.is_grey:
            images = to_grey(images)
        return make_grid(to_uint8(images).float() / 255, nrow=4)

    def write(self, out: Path) -> None:
        """Save the EMA network in our own format."""
        storage.save(self.ema, out)


def mix_styles(
    ws: Tensor, other: Tensor, share: float, rng: torch.Generator | None = None
) -> Tensor:
    """ws `[N, num_ws, w_dim]`; from a random layer on, `share` of them have the w of `other`.

    `other` is `[N, w_dim]`. Style mixing of Karras et al. 2019, Sec. 3.1.
    """
    n, layers, _ = ws.shape
    cut = torch.randint(1, layers, (n,), generator=rng)
    cut[torch.rand(n, generator=rng) >= share] = layers
    mixed = send(torch.arange(layers) >= cut[:, None], ws.device)
    return torch.where(mixed[:, :, None], other[:, None], ws)


def start_network(config: StyleGAN2TrainingConfig, init: str | None) -> StyleGAN2:
    """An untrained network, or that of the generator `init` (folder or pickle) to continue from.

    Raises ValueError if `init` has a different shape from `config`.
    """
    torch.manual_seed(config.seed)
    expected = config.network()
    if init is None:
        return StyleGAN2(expected)
    network = _read_init(init)
    for key, setting in SETTINGS.items():
        found, wanted = getattr(network.config, key), getattr(expected, key)
        if found != wanted:
            raise ValueError(f"{init} has {key} {found}, not {wanted}: set {setting}={found}")
    if network.config.c_dim:
        raise ValueError(
            f"{init} has {network.config.c_dim} classes: expected a network without classes"
        )
    return network.requires_grad_(True).train()


def _read_init(init: str) -> StyleGAN2:
    """The averaged network of a generator, finished or still in training."""
    unfinished = interrupted(init, "ema.")
    if unfinished is None:
        return load_network(init)
    network = StyleGAN2(StyleGAN2TrainingConfig(**unfinished[0]).network())
    network.load_state_dict(unfinished[1])
    return network


def start_discriminator(network: StyleGAN2, init: str | None) -> Discriminator:
    """The discriminator of the training that wrote `init`, or an untrained one for `network`.

    An untrained one would first undo what `init` has learned (Mo et al. 2020, "Freeze the
    Discriminator"). A generator that is not the folder of a training has no discriminator.
    """
    discriminator = Discriminator(network.config)
    last = Path(init or "") / CHECKPOINTS / LAST_NAME
    if init is not None and last.is_file():
        check_readable(last)
        state = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
        prefix = "discriminator."
        kept = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        discriminator.load_state_dict(kept)
    return discriminator


# What `init` must share with the settings, and which setting that is.
SETTINGS = {
    "resolution": "image_size",
    "z_dim": "latent_dim",
    "w_dim": "latent_dim",
    "mapping_layers": "mapping_layers",
    "channel_base": "channel_base",
    "channel_max": "channel_max",
}


def train(
    images: TrainingImages,
    out: Path,
    config: StyleGAN2TrainingConfig,
    init: str | None = None,
    device: str = "auto",
    progress: list[Callback] | None = None,
) -> None:
    """Train on `images`, of `config.image_size`, and write `out`.

    `out` gets the generator and what `generators.training.loop.run` adds; see there for resumption.
    """

    def build() -> StyleGAN2Training:
        dtype = pick_dtype(config.precision, pick_device(device))
        network = start_network(config, init)
        return StyleGAN2Training(config, images, network, start_discriminator(network, init), dtype)

    run(build, config, images, out, init, device, progress, autocast=False)
