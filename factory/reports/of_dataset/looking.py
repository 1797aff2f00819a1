"""Sections to look at: gallery, most and least certain samples, examples of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from factory.reports.of_dataset.samples import Chosen, Rows, within_budget
from factory.reports.page import Section, Tile, gallery, note, strip
from factory.reports.page.parts import percent, whole
from factory_core.dataset import Manifest

Tiles = Mapping[int, Tile]


def gallery_section(manifest: Manifest, chosen: Chosen, tiles: Tiles) -> Section:
    """An even spread over the dataset, to filter and sort."""
    shown = within_budget(pick(chosen.gallery, tiles))
    kept = manifest.totals.kept
    what = "All samples" if len(shown) == kept else f"{len(shown)} of {whole(kept)}, evenly spaced"
    return Section(
        "Gallery",
        f"{what}: below each its uncertainty; select one to enlarge it.",
        [gallery(shown, manifest.classes, "uncertainty")],
    )


def extremes_section(chosen: Chosen, tiles: Tiles) -> Section:
    """Both ends of the uncertainty."""
    return Section(
        "Most and least certain",
        "Masks of the least certain samples are where a labeler's mistakes show first.",
        [
            strip("Least certain", pick(chosen.uncertain, tiles), "of those kept"),
            strip("Most certain", pick(chosen.certain, tiles)),
        ],
    )


def classes_section(manifest: Manifest, rows: Rows, chosen: Chosen, tiles: Tiles) -> Section:
    """Samples with much of each class."""
    present = (rows.pixels[rows.kept] > 0).mean(axis=0)
    body = []
    for k, name in enumerate(manifest.classes):
        found = pick(chosen.classes[k], tiles)
        if found:
            body.append(strip(name, found, f"in {percent(present[k])} of the samples"))
        else:
            body.append(note(f"No kept sample has a pixel of class {name}.", warning=True))
    return Section(
        "Examples of each class",
        "From the samples with the largest share of the class to those with a typical one.",
        body,
    )


def pick(numbers: Sequence[int], tiles: Tiles) -> list[Tile]:
    """The tiles of these rows that exist."""
    return [tiles[i] for i in numbers if i in tiles]
