"""`factory average`: several segmenters as one, which averages their class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console


def average(models: Sequence[Path], out: Path, console: Console) -> None:
    """Write the mean of the segmenters in `models` to `out`.

    Raises as `Segmenter.load` and `Segmenter.mean`; ValueError too if they read pictures of more
    than 8 bits differently, or `out` holds a segmenter. Nothing is written then.
    """
    from factory_core.pictures import DEFAULT_PICTURES, remember, remembered
    from train_seg.network.segmenter import INFO_NAME, Segmenter

    if (out / INFO_NAME).exists():
        raise ValueError(f"{out} holds a segmenter already: give another --out")
    segmenters = [Segmenter.load(path, "cpu") for path in models]
    if len({path.resolve() for path in models}) < len(models):
        raise ValueError("found the same segmenter twice: a mean needs different ones")
    joined = Segmenter.mean(segmenters)
    first, *others = [remembered(path) or DEFAULT_PICTURES for path in models]
    if different := [m for m, p in zip(models[1:], others, strict=True) if p != first]:
        raise ValueError(
            f"{different[0]} and {models[0]} turn pictures into 8 bits differently (pictures.json):"
            " average segmenters that were trained with the same settings"
        )
    remember(out, first)
    joined.save(out)  # model.json, written last, marks it as complete
    console.print(f"the mean of {len(joined.members)} segmenters in {out}")
