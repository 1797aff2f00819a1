"""Features of many real images, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from factory.terminal.progress import ProgressLine

if TYPE_CHECKING:
    import torch

    from generators.base import Encoder, FeatureMaps, FeatureMapSpec

ENCODE_BATCH = 8  # images
ENCODE_BYTES = 2**28  # float32 features per batch at most: two images at the LSUN setting


def encode_batch(spec: Sequence[FeatureMapSpec], most: int) -> int:
    """How many images to encode at a time: at most `most`, and what ENCODE_BYTES permit."""
    image_bytes = 4 * sum(m.channels * m.height * m.width for m in spec)
    return max(1, min(most, ENCODE_BATCH, ENCODE_BYTES // image_bytes))


def encode_batches(
    generator: Encoder, images: torch.Tensor, console: Console
) -> Iterator[FeatureMaps]:
    """Yield the features of images uint8 `[N, 3, H, W]`, `encode_batch` images at a time.

    Shows a progress line.
    """
    from generators.base import batches

    with ProgressLine("encoding", "images", len(images), console) as line:
        batch = encode_batch(generator.feature_spec, generator.batch_size)
        for rows in batches(range(len(images)), batch):
            yield generator.encode(images[rows.start : rows.stop], rows)
            line.update(rows.stop)
