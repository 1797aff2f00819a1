"""Training of the ensemble: all members at once, on pixels gathered from native-size maps.

The procedure is that of the DDPM paper's code: Adam, cross-entropy on batches of 64 pixels, at
least four epochs, then a stop once 51 batches in a row do not beat the best single-batch loss.
Members differ by their initial weights and their order of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.annotations import IGNORE
from labelers.config import LabelerConfig
from labelers.ensemble import Ensemble
from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo
from labelers.pixels import PixelStore

REPORT_STEPS = 100
# Well-classified pixels have gradients down to 1e-45, and products with such denormal numbers
# more than halve the speed on a CPU. Far below Adam's eps (1e-8), they change nothing.
TINY_GRADIENT = 1e-20

Progress = Callable[[int, int, float, float], None]
"""Called with (step, estimated total of steps, mean loss, mean accuracy since the last call)."""


def fit(
    features: FeatureMaps,
    masks: torch.Tensor,
    config: LabelerConfig,
    *,
    classes: Sequence[str],
    generator: GeneratorInfo,
    data_digest: str,
    palette: list[list[int]] | None = None,
    progress: Progress | None = None,
) -> Labeler:
    """Train a labeler on the features of N annotated images, on the device that holds them.

    `masks` uint8 `[N, H, W]`, 255 = ignore. The result depends on the arguments alone, on one
    kind of device. Raises ValueError if masks and features do not match or teach nothing.
    """
    if len(masks) != features.batch_size:
        raise ValueError(f"{len(masks)} masks for features of {features.batch_size} images")
    pixels = training_pixels(masks, len(classes), config.min_class_pixels)
    rng = torch.Generator().manual_seed(config.seed)
    ensemble = Ensemble(
        features.spec, len(classes), config.hidden_for(len(classes)), config.members, rng
    )
    size = (masks.shape[1], masks.shape[2])
    device = next(iter(features.values())).device
    store = PixelStore(features, size)
    run = _Run(ensemble.to(device), config, store, masks.to(device).flatten(), progress)
    scores = run.train(pixels, rng)
    info = LabelerInfo(
        classes=list(classes),
        palette=palette,
        features=features.spec,
        generator=generator,
        image_size=size,
        data_digest=data_digest,
        config=config,
        scores=scores,
    )
    return Labeler(ensemble.eval(), info)


def training_pixels(masks: torch.Tensor, classes: int, min_class_pixels: int) -> torch.Tensor:
    """Numbers n·H·W + p of the pixels to learn from, int64, ascending.

    Left out: 255, and classes with fewer than `min_class_pixels` pixels in an image, there.
    Raises ValueError for ids beyond `classes`, or fewer than two classes left.
    """
    flat = masks.flatten(1).cpu()
    present = flat[flat != IGNORE]
    if len(present) and int(present.max()) >= classes:
        raise ValueError(f"masks have class id {int(present.max())}, expected {classes} classes")
    kept = torch.zeros_like(flat, dtype=torch.bool)
    for row, keep in zip(flat, kept, strict=True):
        counts = torch.bincount(row.long(), minlength=IGNORE + 1)
        counts[IGNORE] = -1
        keep.copy_((counts >= min_class_pixels)[row.long()])
    found = flat[kept].unique().tolist()
    if len(found) < 2:
        raise ValueError(
            f"the annotations hold {len(found)} class to learn (ids {found}; 255 is ignored, as "
            f"are classes under {min_class_pixels} pixels in an image), expected two or more"
        )
    return kept.flatten().nonzero().flatten()


class StoppingRule:
    """Which members have seen `patience` batches in a row that did not beat their best loss."""

    def __init__(self, members: int, patience: int):
        self.patience = patience
        self.best = [float("inf")] * members
        self.since = [0] * members
        self.stopped = [False] * members

    def update(self, losses: Sequence[float]) -> list[int]:
        """Take one batch's loss of every member; return the members that stop now."""
        newly = []
        for member, loss in enumerate(losses):
            better = loss < self.best[member]
            self.best[member] = min(loss, self.best[member])
            self.since[member] = 0 if better else self.since[member] + 1
            if not self.stopped[member] and self.since[member] >= self.patience:
                self.stopped[member] = True
                newly.append(member)
        return newly


class _Run:
    """One training run of an ensemble."""

    def __init__(
        self,
        ensemble: Ensemble,
        config: LabelerConfig,
        store: PixelStore,
        labels: torch.Tensor,
        progress: Progress | None,
    ):
        self.ensemble = ensemble.train()
        self.config = config
        self.store = store
        self.labels = labels
        self.progress = progress
        self.optimizer = torch.optim.Adam(ensemble.parameters(), lr=config.lr, fused=True)
        self.frozen: dict[int, dict[str, torch.Tensor]] = {}
        self.recent = torch.zeros(2, device=labels.device)  # sums of loss and accuracy
        self.scores: dict[str, float] = {}

    def train(self, pixels: torch.Tensor, rng: torch.Generator) -> dict[str, float]:
        """Train to the stop; return the mean loss and accuracy of the last steps."""
        config = self.config
        batch = min(config.batch_pixels, len(pixels))
        per_epoch = len(pixels) // batch
        early = min(config.min_epochs, config.max_epochs) * per_epoch
        rule = StoppingRule(config.members, config.patience_batches)
        step = reported = 0
        for orders in self._batches(pixels, batch, rng):
            losses = self._step(orders)
            step += 1
            if step > early:
                for member in rule.update(losses.tolist()):
                    self.frozen[member] = self._member_state(member)
            done = all(rule.stopped) or step == per_epoch * config.max_epochs
            if done or step - reported == REPORT_STEPS:
                self._report(step, max(step, early + config.patience_batches), step - reported)
                reported = step
            if done:
                break
        # Stopped members went on with the others, which costs less than taking them out.
        for member, state in self.frozen.items():
            for name, tensor in self.ensemble.state_dict().items():
                tensor[member] = state[name]
        return {**self.scores, "steps": float(step)}

    def _batches(
        self, pixels: torch.Tensor, batch: int, rng: torch.Generator
    ) -> Iterator[torch.Tensor]:
        """Pixel numbers `[M, batch]`: every member passes over all pixels in its own order."""
        while True:
            orders = torch.stack(
                [
                    pixels[torch.randperm(len(pixels), generator=rng)]
                    for _ in range(self.config.members)
                ]
            ).to(self.labels.device)
            # The incomplete last batch is dropped, as in the reference.
            for start in range(0, len(pixels) - batch + 1, batch):
                yield orders[:, start : start + batch]

    def _step(self, orders: torch.Tensor) -> torch.Tensor:
        """One Adam step of every member on its own batch; losses `[M]`."""
        target = self.labels[orders].long()
        logits = self.ensemble(self.store.gather(orders))
        logits.register_hook(lambda gradient: F.hardshrink(gradient, TINY_GRADIENT))
        losses = F.cross_entropy(logits, target, reduction="none").mean(1)
        self.optimizer.zero_grad()
        losses.sum().backward()  # members share no parameter: each gets its own gradient
        self.optimizer.step()
        losses = losses.detach()
        accuracy = (logits.argmax(1) == target).float().mean()
        self.recent += torch.stack([losses.mean(), accuracy])
        return losses

    def _member_state(self, member: int) -> dict[str, torch.Tensor]:
        return {k: t[member].clone() for k, t in self.ensemble.state_dict().items()}

    def _report(self, step: int, total: int, steps: int) -> None:
        loss, accuracy = (self.recent / steps).tolist()
        self.recent.zero_()
        self.scores = {"train_loss": loss, "train_accuracy": accuracy}
        if self.progress is not None:
            self.progress(step, total, loss, accuracy)
