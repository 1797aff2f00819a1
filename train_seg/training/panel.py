"""A sheet of predictions after each round: image, truth and prediction side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image, ImageDraw, ImageFont

from factory_core.dataset import IGNORE
from factory_core.storage import write_bytes
from train_seg.data.soft_labels import most_probable
from train_seg.training.module import SegmenterModule

PANELS_DIR = "panels"
ROWS = 6
MIN_SIDE_PX = 128  # smaller pictures are enlarged by an integer factor
MAX_SIDE_PX = 384
GAP_PX = 6
LINE_PX = 18
BACKGROUND, INK, IGNORED = (255, 255, 255), (30, 30, 30), (200, 200, 200)

Colours = Sequence[Sequence[int]]


class Panels(Callback):
    """Writes e.g. panels/step-000050.png after each round, and passes it to the loggers.

    `validation` is images uint8 `[N, 3, H, W]` and masks uint8 `[N, H, W]`; None shows samples of
    the first training batch instead.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        palette: Colours,
        validation: tuple[torch.Tensor, torch.Tensor] | None,
    ):
        self._folder, self._classes, self._palette = folder, list(classes), palette
        self._shown = None if validation is None else self._first(validation)
        self._trained = validation is None

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: tuple[torch.Tensor, torch.Tensor],
        batch_idx: int,
    ) -> None:
        if self._shown is None:
            self._shown = self._first(batch)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, SegmenterModule)
        if pl_module.idle or self._shown is None or not trainer.is_global_zero:
            return
        images, masks = self._shown
        predictions = predict(pl_module.result, images.to(pl_module.device)).cpu()
        kind = "training samples" if self._trained else "validation"
        title = f"step {pl_module.step}, {kind}"
        sheet = draw_panel(images, masks, predictions, self._classes, self._palette, title)
        encoded = io.BytesIO()
        sheet.save(encoded, format="png")
        self._folder.mkdir(exist_ok=True)
        write_bytes(self._folder / f"step-{pl_module.step:06d}.png", encoded.getvalue())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                pixels, step = np.asarray(sheet), trainer.global_step
                logger.experiment.add_image("predictions", pixels, step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("predictions", [sheet], step=trainer.global_step)

    @staticmethod
    def _first(pairs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = pairs
        return images[:ROWS].cpu().clone(), most_probable(labels[:ROWS]).cpu().clone()


def predict(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Class ids uint8 `[N, H, W]`; the mode of the network is left unchanged."""
    training = network.training
    network.eval()
    with torch.inference_mode():
        masks = network(images).argmax(1).to(torch.uint8)
    network.train(training)
    return masks


def draw_panel(
    images: torch.Tensor,
    masks: torch.Tensor,
    predictions: torch.Tensor,
    classes: Sequence[str],
    palette: Colours,
    title: str,
) -> Image.Image:
    """One row per image with its truth and its prediction, and the colours of the classes.

    `images` is uint8 `[N, 3, H, W]`, masks are uint8 `[N, H, W]`. Pixels that are 255 in the truth
    are grey in both columns.
    """
    colours = np.full((256, 3), IGNORED, np.uint8)
    colours[: len(palette)] = palette
    ignored = masks == IGNORE
    columns = {
        "image": images.permute(0, 2, 3, 1).numpy(),
        "truth": colours[masks.numpy()],
        "prediction": colours[predictions.masked_fill(ignored, IGNORE).numpy()],
    }
    count, height, width = masks.shape
    scale: float = max(1, -(-MIN_SIDE_PX // min(height, width)))
    if scale == 1:
        scale = min(1.0, MAX_SIDE_PX / max(height, width))
    cell = (round(width * scale), round(height * scale))
    total_width = 3 * cell[0] + 4 * GAP_PX
    names = _legend(classes, total_width)
    top = 2 * LINE_PX + GAP_PX
    body = count * (cell[1] + GAP_PX)
    sheet = Image.new("RGB", (total_width, top + body + len(names) * LINE_PX + GAP_PX), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    draw.text((GAP_PX, 3), title, INK, font)
    for column, (name, pictures) in enumerate(columns.items()):
        left = GAP_PX + column * (cell[0] + GAP_PX)
        draw.text((left, LINE_PX + 3), name, INK, font)
        for row, picture in enumerate(pictures):
            # Not interpolated: a mixture of two class colours may look like a third.
            tile = Image.fromarray(picture).resize(cell, Image.Resampling.NEAREST)
            sheet.paste(tile, (left, top + row * (cell[1] + GAP_PX)))
    for line, entries in enumerate(names):
        y = top + body + line * LINE_PX
        for left, number, name in entries:
            draw.rectangle((left, y + 3, left + 11, y + 14), tuple(colours[number]), INK)
            draw.text((left + 16, y + 2), name, INK, font)
    return sheet


def _legend(classes: Sequence[str], width: int) -> list[list[tuple[int, int, str]]]:
    """Lines of (left edge in pixels, class id, name) that fit into `width` pixels."""
    font = ImageFont.load_default(size=12)
    lines: list[list[tuple[int, int, str]]] = [[]]
    left = GAP_PX
    for number, name in enumerate(classes):
        needed = 16 + round(font.getlength(name)) + 14
        if lines[-1] and left + needed > width:
            lines.append([])
            left = GAP_PX
        lines[-1].append((left, number, name))
        left += needed
    return lines
