"""The contenders: each a name, what it needs, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping

from factory.verdict.bench import Materials
from factory.verdict.contenders.alone import blind, has_imagenet, labels_only
from factory.verdict.contenders.base import WHY_NOT, Contender, Need
from factory.verdict.contenders.generated import labelers, later_rounds, policies, taught
from factory.verdict.settings import CompareConfig

__all__ = ["WHY_NOT", "Contender", "contenders", "missing"]


def contenders(config: CompareConfig) -> list[Contender]:
    """All contenders: controls, labels only, labelers, then what learns from these."""
    alone = [*blind(), *labels_only()]
    return [*alone, *labelers(), *taught(), *later_rounds(config), *policies()]


def missing(contender: Contender, materials: Materials) -> Need | None:
    """What `contender` needs and `materials` do not have; None if nothing."""
    there: Mapping[Need, bool] = {
        "photographs": materials.photographs is not None,
        "generator": materials.encoder is not None,
        "unet": materials.start is not None,
        "imagenet": "imagenet" in contender.needs and has_imagenet(materials),
    }
    return next((need for need in sorted(contender.needs) if not there[need]), None)
