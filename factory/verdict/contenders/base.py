"""What a contender is, and what it may need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from factory.verdict.bench import Bench
from factory.verdict.models import Model

Need = Literal["photographs", "generator", "samples", "unet", "imagenet"]
Group = Literal["blind", "labels", "factory"]

WHY_NOT: dict[Need, str] = {
    "photographs": "needs --images",
    "generator": "needs --generator",
    "samples": "needs --generator",
    "unet": "needs a generator with a U-Net that can be fine-tuned",
    "imagenet": "no ImageNet weights of this encoder on this machine",
}


@dataclass(frozen=True)
class Contender:
    """One way to a model of the user's classes.

    `group` is `labels` for those that use annotated images alone, `blind` for controls that do not
    look at the image, or learn from wrong masks. `make` trains it on the images of a bench.
    `is_segmenter` says whether the result can be delivered as a segmenter. One that `is_extra` runs
    only if it is asked for by name, and one that is `instead_of` something only then or without it.
    One that is `is_last` was never the best where we measured, and needs work of its own: it begins
    when the others have ended, if time is left.
    """

    name: str
    description: str
    group: Group
    make: Callable[[Bench], Model]
    needs: frozenset[Need] = frozenset()
    is_segmenter: bool = True
    is_extra: bool = False
    instead_of: Need | None = None
    is_last: bool = False
