"""Training a factorized diffusion model: the loss of a plain one, and a watch on its masks."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchvision.utils import make_grid

from factory_core.dataset import default_palette
from generators.ddpm.model import to_unit_range
from generators.ddpm.noise import NoiseModel
from generators.ddpm.training import (
    CLIP,
    NUM_TIMESTEPS,
    DDPMTraining,
    laid_out,
    noise_schedule,
    start_network,
)
from generators.factorized.config import INFO_FILE, FactorizedTrainingConfig
from generators.factorized.network import FactorizedUNet, build
from generators.factorized.storage import load, save
from generators.training.folder import interrupted
from generators.training.images import TrainingImages
from generators.training.loop import LOG_EVERY, run

COLLAPSED_SHARE = 0.99  # of all pixels, in one region
WATCHED = 10  # batches of which the mean is watched
START_IMAGES = 64  # on which an untrained mask generator is fitted
PATIENCE_STEPS = 500  # before that, masks may still form


class FactorizedTraining(DDPMTraining):
    """Eq. 8, the error of denoising, and the balance of the regions. Logs what masks look like."""

    config: FactorizedTrainingConfig

    def __init__(
        self, config: FactorizedTrainingConfig, images: TrainingImages, net: FactorizedUNet
    ):
        super().__init__(config, images, net)
        self.largest: list[float] = []  # the latest shares of the largest region
        self.has_warned = False

    def pass_through(self, net: Any, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        classes = None if labels is None else net.unet.class_embedding(labels)
        share = None
        if self.config.masks_follow_signal and torch.is_grad_enabled():
            share = self.noise_schedule.alphas_cumprod.to(t.device)[t]
        output, self.masks = net(x_t, t, classes, share)
        return output.float()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.config.balance:
            loss = loss + self.config.balance * imbalance(self.masks)
        if (self.global_step + 1) % LOG_EVERY == 0:
            watched = {k: v.item() for k, v in mask_statistics(self.masks.detach()).items()}
            self.log_dict({f"regions/{name}": torch.tensor(v) for name, v in watched.items()})
            self.largest = [*self.largest, watched["largest"]][-WATCHED:]
            if len(self.largest) == WATCHED:
                self._warn_of_collapse(sum(self.largest) / WATCHED)
        return loss

    def _warn_of_collapse(self, share: float) -> None:
        is_due = self.global_step >= PATIENCE_STEPS and self.config.regions > 1
        if is_due and share > COLLAPSED_SHARE and not self.has_warned:
            self.has_warned = True
            warnings.warn(
                f"the regions have collapsed: one of {self.config.regions} has {share:.1%} of the "
                f"pixels at step {self.global_step}. Start over with another --set seed=N, more "
                "regions, or --init from a plain diffusion model",
                stacklevel=2,
            )

    def sample_grid(self) -> Tensor:
        """Samples of the EMA network, and beside them their regions, float `[3, H, W]` in 0-1."""
        images = super().sample_grid()
        return torch.cat([images, region_grid(self.masks).to(images)], dim=2)

    def write(self, out: Path) -> None:
        """Save the EMA network, see `generators.factorized.storage`."""
        net: Any = self.ema.module
        network = self.config.network(len(self.images.classes) or None)
        save(net, network, self.noise_schedule, self.noise, out)


def imbalance(m: Tensor) -> Tensor:
    """KL(m̄ ‖ 1/K) in nats, 0 to ln K, of the mean m̄ of masks `[N, K, H, W]` over images and pixels.

    It is 0 if all regions are equally large, however soft or hard the masks are.
    """
    mean = m.float().mean((0, 2, 3))
    return (mean * (mean * m.shape[1]).clamp(min=1e-8).log()).sum()


def mask_statistics(m: Tensor) -> dict[str, Tensor]:
    """What masks `[N, K, H, W]` look like, as scalars.

    `entropy` is the mean over pixels, in nats, 0 to ln K; `spread` is the standard deviation of m_k
    over pixels, the mean over k: 0 if masks are uniform; `largest` is the share of the region that
    is the argmax of most pixels, 1/K to 1.
    """
    m = m.float()
    K = m.shape[1]
    entropy = -(m * m.clamp(min=torch.finfo(m.dtype).tiny).log()).sum(1).mean()
    spread = m.transpose(0, 1).flatten(1).std(dim=1, correction=0).mean()
    # No bincount: it would wait for a GPU.
    is_region = m.argmax(1, keepdim=True) == torch.arange(K, device=m.device).view(1, K, 1, 1)
    largest = is_region.float().mean((0, 2, 3)).max()
    return {"entropy": entropy, "spread": spread, "largest": largest}


def region_grid(m: Tensor) -> Tensor:
    """A sheet of regions in colour, float `[3, H, W]` in 0-1; mixed where masks are soft."""
    palette = torch.tensor(default_palette(m.shape[1] + 1)[1:], dtype=torch.float32) / 255
    coloured = torch.einsum("nkhw,kc->nchw", m.float().cpu(), palette)
    return make_grid(coloured, nrow=max(1, math.isqrt(len(m))))


def start(
    config: FactorizedTrainingConfig, init: str | None, num_classes: int | None = None
) -> FactorizedUNet:
    """An untrained network, or one that starts from the generator `init`.

    From a plain diffusion model, encoder, middle and decoder are taken over, and the mask generator
    starts as a copy of the decoder; from a factorized one, everything. Raises ValueError if `init`
    has other sizes or predicts something else.
    """
    torch.manual_seed(config.seed)
    wanted = config.network(num_classes)
    if init is None or not _is_factorized(Path(init)):
        return build(wanted, start_network(config, init, num_classes))
    unfinished = interrupted(init, "ema.module.")
    if unfinished is not None:
        theirs = FactorizedTrainingConfig(**unfinished[0])
        predicts, state = theirs.prediction, unfinished[1]
        table = state.get("unet.class_embedding.weight")
        network = theirs.network(None if table is None else len(table))
    else:
        found, network, schedule, _ = load(Path(init))
        predicts, state = schedule.config.prediction_type, found.state_dict()
    if predicts != config.prediction:
        raise ValueError(
            f"{init} predicts {predicts}, expected {config.prediction}: set prediction={predicts}"
        )
    ours = wanted.model_dump()
    for name, value in network.model_dump().items():
        if value != ours[name]:
            way_out = f"set {name}={value}" if name != "num_classes" else "set labels to the same"
            raise ValueError(f"{init} has {name} {value}, expected {ours[name]}: {way_out}")
    net = build(wanted)
    net.load_state_dict(state)
    return net


def start_on(
    images: TrainingImages, config: FactorizedTrainingConfig, init: str | None
) -> FactorizedUNet:
    """`start`; an untrained mask generator is fitted to noisy images (`logit_std`)."""
    net = start(config, init, len(images.classes) or None)
    if config.logit_std == 0 or (init is not None and _is_factorized(Path(init))):
        return net
    rng = torch.Generator().manual_seed(config.seed)
    rows = torch.randperm(len(images), generator=rng)[:START_IMAGES].tolist()
    x_0 = to_unit_range(torch.stack([images.image(row) for row in rows]))
    t = torch.randint(0, NUM_TIMESTEPS, (len(rows),), generator=rng)
    eps = NoiseModel(config.offset_noise_std).draw([rng] * len(rows), x_0.shape[1:])
    x_t = noise_schedule(config.prediction).add_noise(x_0, eps, t)
    classes = None
    if images.labels is not None:
        classes = net.unet.class_embedding(torch.tensor([images.labels[row] for row in rows]))
    net.spread_logits(x_t, t, classes, config.logit_std)
    return net


def _is_factorized(folder: Path) -> bool:
    if (folder / INFO_FILE).is_file():
        return True
    unfinished = interrupted(str(folder), "ema.module.")
    return unfinished is not None and "regions" in unfinished[0]


def train(
    images: TrainingImages,
    out: Path,
    config: FactorizedTrainingConfig,
    init: str | None = None,
    device: str = "auto",
    progress: list[Callback] | None = None,
) -> None:
    """Train on `images` and write `out`, as `generators.ddpm.training.train`."""
    run(
        lambda: FactorizedTraining(
            config, images, laid_out(start_on(images, config, init), device)
        ),
        config,
        images,
        out,
        init,
        device,
        progress,
        gradient_clip_val=CLIP,
    )
