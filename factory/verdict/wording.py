"""The verdict in one sentence."""

from __future__ import annotations

from factory.verdict.decision import Decision, is_enough
from factory.verdict.statistics import Interval

SYNTHETIC = "synthetic"  # in the names of those that learn from samples of the generator alone


def points(interval: Interval) -> str:
    """`+4.1 ± 1.2`, in mIoU points (0-100); the mean alone if it says little."""
    if not is_enough(interval):
        return f"{100 * interval.mean:+.1f}"
    return f"{100 * interval.mean:+.1f} ± {100 * interval.half_width:.1f}"


def sentence(decision: Decision, images: int) -> str:
    """The verdict on `images` annotated images."""
    if not decision.is_learned and not decision.is_hopeless:
        return (
            f"With your {images} images: no verdict yet, too few splits were scored: "
            "rerun with a longer --budget."
        )
    if decision.is_hopeless:
        assert decision.over_blind is not None
        return (
            f"Nothing can be learned from your {images} images: the best model is not "
            f"significantly better than {decision.blind} ({points(decision.over_blind)} mIoU). "
            "Check that every mask belongs to its image, or annotate more."
        )
    start, baseline = f"With your {images} images: ", decision.baseline
    if decision.winner != baseline:
        lead = points(decision.differences[decision.winner])
        said = f"{start}{decision.winner}, {lead} mIoU over labels alone ({baseline})"
        return f"{said}{_about_synthetic(decision)}."
    found = decision.differences
    rivals = {n: d for n, d in found.items() if is_enough(d)} or found
    if not rivals:
        return f"{start}labels alone ({baseline}); nothing else was compared."
    closest = max(rivals, key=lambda name: rivals[name].mean)
    return (
        f"{start}labels alone ({baseline}); nothing is significantly better "
        f"(closest: {closest}, {points(rivals[closest])} mIoU)."
    )


def _about_synthetic(decision: Decision) -> str:
    found = [d for n, d in decision.differences.items() if SYNTHETIC in n and is_enough(d)]
    winner = decision.winner
    is_mixed = winner == "mixture" or (winner.startswith("round-") and "both" in winner)
    if not found or is_mixed or SYNTHETIC in winner or any(d.is_positive for d in found):
        return ""
    if all(d.is_negative for d in found):
        return "; synthetic images are worse than labels alone"
    return "; synthetic images add nothing significant"
