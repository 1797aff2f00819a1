"""The contenders: each a name, what it needs, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from factory.verdict.bench import Materials
from factory.verdict.contenders.alone import blind, has_imagenet, labels_only
from factory.verdict.contenders.base import WHY_NOT, Contender, Need
from factory.verdict.contenders.generated import (
    fine_tuned,
    labelers,
    later_rounds,
    policies,
    taught,
)
from factory.verdict.settings import CompareConfig

__all__ = ["WHY_NOT", "Contender", "Need", "contenders", "missing", "runs_unasked"]


def contenders(config: CompareConfig) -> list[Contender]:
    """All contenders: controls, labels only, then the others, those that won elsewhere first.

    So if time is short in the beginning, it goes to the likely winners.
    """
    alone = [*blind(), *labels_only()]
    return [*alone, *fine_tuned(), *later_rounds(config), *labelers(), *taught(), *policies()]


def missing(contender: Contender, materials: Materials) -> Need | None:
    """What `contender` needs and `materials` do not have; None if nothing."""
    return next((need for need in sorted(contender.needs) if not _has(materials, need)), None)


def runs_unasked(contender: Contender, materials: Materials) -> bool:
    """Whether `contender` takes part if no names are given."""
    if contender.instead_of is not None:
        return not _has(materials, contender.instead_of)
    return not contender.is_extra


def _has(materials: Materials, need: Need) -> bool:
    there: Mapping[Need, Callable[[], bool]] = {
        "photographs": lambda: materials.photographs is not None,
        "generator": lambda: materials.encoder is not None,
        "samples": lambda: materials.encoder is not None,
        "unet": lambda: materials.start is not None,
        "imagenet": lambda: has_imagenet(materials),
    }
    return there[need]()
