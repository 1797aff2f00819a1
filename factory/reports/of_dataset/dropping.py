"""Sections on what was dropped, why, and on the uncertainty that decided it."""

from __future__ import annotations

import numpy as np

from factory.reports.class_shares import ClassShares, warnings
from factory.reports.of_dataset.looking import Tiles, pick
from factory.reports.of_dataset.samples import Chosen, Rows
from factory.reports.page import Section, columns, figure, note, strip, table
from factory.reports.page.charts import Axis, Mark, histogram
from factory.reports.page.parts import percent, whole
from factory_core.dataset import Manifest

BINS = 48
REASONS = {"uncertain": "among the most uncertain"}


def section(
    manifest: Manifest, rows: Rows, shares: ClassShares, chosen: Chosen, tiles: Tiles
) -> Section:
    """Reasons with their numbers, what it cost each class, and dropped samples if there are any."""
    title, totals = "What was dropped", manifest.totals
    if not totals.dropped:
        return Section(title, "Nothing: all candidates were kept.", [])
    reasons = rows.table.reason[~rows.table.kept].value_counts()
    policy = manifest.recipe.get("selection", {}).get("policy", "uncertain")
    body = [
        columns(
            table(
                ["reason", "samples", "of all candidates"],
                [
                    [
                        REASONS.get(str(reason), str(reason)),
                        whole(int(n)),
                        percent(n / totals.candidates),
                    ]
                    for reason, n in reasons.items()
                ],
            ),
            table(
                ["class", "before", "after", "change"],
                [
                    [
                        name,
                        percent(a, 2),
                        percent(b, 2),
                        "–" if np.isnan(c) else f"{100 * c:+.1f} %",
                    ]
                    for name, a, b, c in zip(
                        manifest.classes, shares.before, shares.after, shares.changes, strict=True
                    )
                ],
                "Share of the pixels before and after dropping",
            ),
        ),
        *(note(line, warning=True) for line in warnings(shares, manifest.classes, policy)),
    ]
    found = pick(chosen.dropped, tiles)
    if found:
        body.append(strip("Dropped samples", found, "the least certain of all candidates"))
    else:
        body.append(note("To see dropped samples, generate with `--keep-candidates`."))
    rule = {
        "uncertain": "The most uncertain candidates, whatever their classes.",
        "per_class": "The most uncertain candidates among those rich in the same class.",
    }
    return Section(title, rule.get(policy, f"Selected by the policy {policy}."), body)


def uncertainty_section(manifest: Manifest, rows: Rows) -> Section:
    """The histogram of the uncertainty with the threshold."""
    values, kept = rows.table.uncertainty.to_numpy(), rows.table.kept.to_numpy()
    edges = np.linspace(min(0.0, values.min()), max(values.max(), 1e-6), BINS + 1)
    counts = [
        (name, np.histogram(values[which], edges)[0].tolist())
        for name, which in (("kept", kept), ("dropped", ~kept))
        if which.any()
    ]
    threshold = manifest.uncertainty_threshold
    marks = [Mark(threshold, f"largest kept {threshold:.3g}")] if (~kept).any() else []
    chart = histogram(
        edges.tolist(),
        counts,
        Axis("uncertainty, nats"),
        Axis("candidates", 0),
        f"Histogram of the uncertainty of {len(values)} candidates",
        marks,
    )
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    text = (
        "Of each candidate: the mean over its tenth of most uncertain pixels. Half of the"
        f" candidates lie below {middle:.3g} nats, nine tenths between {low:.3g} and {high:.3g};"
        f" {len(manifest.classes)} equally likely classes would give"
        f" {np.log(max(len(manifest.classes), 2)):.3g}."
    )
    return Section(
        "Uncertainty",
        "How much the members of the labeler disagree about each candidate.",
        [figure(chart, "Candidates by uncertainty", text)],
    )
