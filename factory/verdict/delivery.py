"""Delivering the recommended contender, trained on all labels: never worse than the labels alone.

A labeler needs its generator wherever it is used. If one wins, the best segmenter is delivered
instead: the one that is most surely better than the labels alone, else the labels-only contender;
and a line says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from factory.verdict.bench import Materials, whole_bench
from factory.verdict.contenders import Contender
from factory.verdict.decision import Decision, surest
from factory.verdict.models import SegmenterModel
from factory_core.pictures import remember


def segmenter_to_deliver(decision: Decision, contenders: Sequence[Contender]) -> str:
    """The name of the contender to deliver."""
    by_name = {c.name: c for c in contenders}
    if by_name[decision.winner].is_segmenter:
        return decision.winner
    leads = {n: lead for n, lead in decision.differences.items() if by_name[n].is_segmenter}
    return surest(leads) or decision.baseline


def deliver(contender: Contender, materials: Materials, folder: Path, console: Console) -> None:
    """Train `contender`, which makes a segmenter, on all labels, and write it to `folder`."""
    bench = whole_bench(materials)
    with bench.costs.part(contender.name):
        model = contender.make(bench)
    assert isinstance(model, SegmenterModel)
    remember(folder, materials.pictures)
    model.segmenter.save(folder)
    console.print(f"{contender.name}, trained on all {len(materials.masks)} images, in {folder}")
