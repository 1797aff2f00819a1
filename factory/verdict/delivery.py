"""Delivering the recommended contender, trained on all labels: never worse than the labels alone.

A labeler needs its generator wherever it is used. If one wins, the best segmenter is delivered
instead: the best of those that are significantly better than the labels alone, else the labels-only
contender; and a line says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from factory.verdict.bench import Materials, whole_bench
from factory.verdict.contenders import Contender
from factory.verdict.decision import Decision
from factory.verdict.models import SegmenterModel
from factory.verdict.verdict import Verdict
from factory_core.pictures import remember


def segmenter_to_deliver(decision: Decision, contenders: Sequence[Contender]) -> str:
    """The name of the contender to deliver."""
    by_name = {c.name: c for c in contenders}
    if by_name[decision.winner].is_segmenter:
        return decision.winner
    better = [
        name
        for name, difference in decision.differences.items()
        if difference.is_positive and by_name[name].is_segmenter
    ]
    return max(better, key=lambda name: decision.differences[name].mean, default=decision.baseline)


def deliver(
    verdict: Verdict,
    contenders: Sequence[Contender],
    materials: Materials,
    folder: Path,
    console: Console,
) -> str:
    """Train the contender to deliver on all labels, write it to `folder`; its name."""
    name = segmenter_to_deliver(verdict.decision, contenders)
    if name != verdict.decision.winner:
        console.print(
            f"{verdict.decision.winner} needs the generator wherever it is used: delivering "
            f"{name}, the best segmenter"
        )
    contender = next(c for c in contenders if c.name == name)
    bench = whole_bench(materials)
    with bench.costs.part(name):
        model = contender.make(bench)
    assert isinstance(model, SegmenterModel)
    remember(folder, materials.pictures)
    model.segmenter.save(folder)
    console.print(f"{name}, trained on all {len(materials.masks)} images, in {folder}")
    return name
