"""The section on near-copies: of training images, and of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from factory.reports.memorisation import ALIKE, COPY_SHARE, Memorisation, Twin
from factory.reports.page import Fact, Section, Tile, facts, figure, note, pairs
from factory.reports.page.charts import Axis, Line, Mark, lines
from factory.reports.page.parts import percent, whole

TITLE = "Near-copies of training images"
BINS = 24
EXPECTED = 0.01  # share of samples nearer than the first percentile, if nothing was memorised
SURPRISING = 3.0  # standard deviations above that


@dataclass(frozen=True)
class Copying:
    """A comparison with `training` images, and the worst pairs (sample, training image).

    `twins` are samples that repeat others; `shown_twins` are some of these pairs.
    """

    memorisation: Memorisation
    training: int
    kept: int
    worst: Sequence[tuple[Tile, Tile]]
    twins: Sequence[Twin]
    shown_twins: Sequence[tuple[Tile, Tile]]


def section(copying: Copying | None) -> Section:
    """Distances beside the control, the verdict, and the worst pairs side by side."""
    lead = (
        "Whether samples repeat images that the generator was trained on. Read this before you"
        " publish data whose originals must stay private."
    )
    if copying is None:
        hint = "To check this, add `--real DIR`: the images that the generator was trained on."
        return Section(TITLE, lead, [note(hint)])
    found, n = copying.memorisation, len(copying.memorisation.matches)
    body = [
        facts(
            [
                Fact(whole(n), f"samples compared, of {whole(copying.kept)}"),
                Fact(whole(copying.training), "training images"),
                Fact(percent(found.share_near), "nearer than 99 % of the control (expected: 1 %)"),
                Fact(whole(len(found.copies)), "near-copies of training images"),
                Fact(whole(len(copying.twins)), "samples that repeat another sample"),
            ]
        ),
        *_verdict(found, n),
        figure(_chart(found), "Distance to the nearest training image", _caption(found)),
        pairs(copying.worst, "sample", "nearest training image"),
    ]
    if copying.shown_twins:
        body.append(note("Samples that repeat each other: the generator lacks variety there."))
        body.append(pairs(copying.shown_twins, "sample", "repeats"))
    body.append(
        note(
            "The check sees copies that were flipped, turned by quarters, cropped by up to a tenth,"
            " recoloured or made noisy. It does not see copied parts of an image, other rotations"
            " or warps, and it is no proof of privacy."
        )
    )
    return Section(TITLE, lead, body)


def _verdict(found: Memorisation, n: int) -> list[Markup]:
    if found.has_alike:
        return [
            note(
                "More than one in a hundred real images has a near-duplicate among them"
                f" (the first percentile is below {ALIKE:g}), so copies cannot"
                " be told from originals: remove the duplicates and repeat the check.",
                warning=True,
            )
        ]
    chance = (EXPECTED * (1 - EXPECTED) / n) ** 0.5
    if found.copies:
        what = f"{len(found.copies)} of {n} samples are near-copies: look at the pairs below."
        return [note(what, warning=True)]
    if found.share_near > EXPECTED + SURPRISING * chance:
        what = "More samples than chance explains lie close to a training image: look at the pairs."
        return [note(what, warning=True)]
    return [note("No near-copies found; samples are as far from training images as real ones are.")]


def _chart(found: Memorisation) -> Markup:
    ours = np.array([m.distance for m in found.matches])
    edges = np.linspace(0, max(ours.max(), found.control.max(), 1e-6), BINS + 1)

    def shares(values: np.ndarray) -> list[float]:
        return (100 * np.histogram(values, edges)[0] / len(values)).tolist()

    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    return lines(
        [
            Line("samples", middles, shares(ours)),
            Line("real images", middles, shares(found.control)),
        ],
        Axis("distance, 1 - correlation", 0),
        Axis("% of the images", 0),
        "Distances of samples and of real images to the nearest training image",
        [Mark(found.percentile, "1 % of the real images are nearer")],
    )


def _caption(found: Memorisation) -> str:
    return (
        f"The control is {len(found.control)} real images, each left out of the training images"
        f" while it is compared. Their first percentile is {found.percentile:.3g}; a sample is a"
        f" near-copy if its distance is below {COPY_SHARE:g} of that."
    )
