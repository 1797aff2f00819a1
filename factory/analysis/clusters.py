"""Figure 4: k-means clusters of the features of single blocks at single timesteps.

The pictures show one fit per map over all shown images, so colours are comparable between images.
The cells measure, on each split, how well clusters follow the annotated classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field

from factory.analysis import grid
from factory.analysis.agreement import mutual_information
from factory.analysis.base import Analysis, Cell, Findings, Numbers, Results, Table, Value
from factory.analysis.base import on_all_splits as on_all
from factory.analysis.features import FeaturePool
from factory.analysis.judging import Outcome, above, difference, is_above, points, sentence
from factory.analysis.study import Study
from factory_core.clustering import assign, fit_centres
from factory_core.dataset import IGNORE
from factory_core.images import list_images, read_image
from factory_core.spacing import spaced
from train_seg.evaluation.evaluate import Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGREEMENT = "agreement"
FIT_VECTORS = 20_000  # drawn at random for the fit; all are assigned
PAPER_BLOCKS, PAPER_LAST = (6, 8, 10, 12), 17
PAPER_TIMESTEPS, PAPER_COUNT = (50, 200, 400, 600, 800), 1000
FINDING = "clusters at small timesteps follow the objects better than at large ones"
RULE = (
    "Agreement is the mutual information of clusters and annotated classes as a share of the mean "
    "of their entropies, on the images to score of each split; compared are the first and the last "
    "timestep, mean over the blocks."
)


class ClusterSettings(grid.GridSettings):
    """Also: the number of clusters, and the images to show."""

    choosing = frozenset({*grid.GridSettings.choosing, "images"})

    k: int = Field(default=5, ge=2, le=64, description="clusters")
    images: int = Field(default=4, ge=1, description="images to show, evenly spaced by name")


def axes(study: Study) -> grid.Axes:
    """The paper's four blocks and five timesteps at the same relative depths, or the settings'."""
    settings = study.settings
    assert isinstance(settings, ClusterSettings)
    found = grid.axes(study)
    if not found.timesteps:
        return found
    last, count = study.diffusing.block_count - 1, study.diffusing.timestep_count
    blocks = tuple(sorted({round(b * last / PAPER_LAST) for b in PAPER_BLOCKS}))
    timesteps = tuple(sorted({t * count // PAPER_COUNT for t in PAPER_TIMESTEPS}))
    return grid.Axes(
        found.blocks if settings.blocks else blocks,
        found.timesteps if settings.timesteps else timesteps,
    )


def check(study: Study) -> None:
    """As `grid.check`; also ValueError or OSError for images to show that cannot be read."""
    grid.check(study)
    shown(study)


def prepare(study: Study) -> None:
    """Compute the features of the annotated and of the shown images."""
    study.pool.compute(axes(study).all_variants, study.console)
    shown(study)[0].compute(axes(study).all_variants, study.console)


def run(study: Study, cell: Cell) -> Numbers:
    """How well the clusters of the split's test images follow their masks."""
    settings, split = study.settings, study.split(cell.split)
    assert isinstance(settings, ClusterSettings)
    labels = cluster(study.pool, cell.variant, split.test, settings.k, split.seed)
    masks = study.masks[list(split.test)]
    found = enlarged(labels, masks.shape[1:])
    known = masks != IGNORE
    return {AGREEMENT: mutual_information(found[known].numpy(), masks[known].numpy())}


def cluster(pool: FeaturePool, name: str, rows: Sequence[int], k: int, seed: int) -> torch.Tensor:
    """Cluster numbers `[n, h, w]` at the native size of a map; one fit over the images `rows`."""
    maps = [pool.maps([name], row)[name][0] for row in rows]
    height, width = maps[0].shape[1:]
    vectors = torch.stack(maps).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    some = np.random.default_rng(seed).permutation(len(vectors))[:FIT_VECTORS]
    centres, _ = fit_centres(vectors[some], k, seed)
    labels = assign(vectors, centres)
    return torch.from_numpy(labels).view(len(maps), height, width)


def enlarged(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Cluster numbers `[n, h, w]` at (H, W), by nearest neighbour."""
    floats = labels[:, None].float()
    return torch.nn.functional.interpolate(floats, size=tuple(size), mode="nearest")[:, 0].byte()


def shown(study: Study) -> tuple[FeaturePool, list[str]]:
    """The images to show, and their names: some of --images, or of the annotated ones."""
    assert isinstance(study.settings, ClusterSettings)
    count, folder = study.settings.images, study.pool.folder.parent / "shown"
    if study.images is None:
        rows = spaced(len(study.pool), count)
        names = [study.annotations.stems[row] for row in rows]
        images = study.pool.images[rows]
    else:
        paths = list_images(study.images)
        chosen = [paths[row] for row in spaced(len(paths), count)]
        names = [Path(path).stem for path in chosen]
        size = study.generator.image_size
        images = torch.stack([read_image(path, size, study.pictures) for path in chosen])
    return FeaturePool(folder, images, study.generator, study.pool.dtype), names


def matched(labels: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """The clusters renumbered to overlap most with `reference`: Hungarian algorithm."""
    from scipy.optimize import linear_sum_assignment

    overlap = np.zeros((k, k), np.int64)
    np.add.at(overlap, (labels.ravel(), reference.ravel()), 1)
    order = linear_sum_assignment(overlap, maximize=True)[1]
    return order[labels]


def summarise(study: Study, results: Results) -> Findings:
    """Agreement with the classes, and a sheet for each shown image."""
    found = axes(study)
    columns = range(len(found.columns))
    rows: list[list[Value]] = [
        [name, *(results.spread(found.variant(row, column), AGREEMENT) for column in columns)]
        for row, name in enumerate(found.rows)
    ]
    outcome, evidence = _compare(found, results)
    header = found.columns if found.timesteps else [AGREEMENT]
    names, pictures = shown(study)[1], cache(lambda: _pictures(study, found))
    figures = {
        f"clusters-{number + 1}": partial(_sheet, found, pictures, number, name)
        for number, name in enumerate(names)
    }
    return Findings(
        Table(["block" if found.blocks else "map", *header], rows),
        sentence(FINDING, outcome, evidence),
        f"{above(AGREEMENT)} {RULE}",
        figures,
        [f"The sheets show {', '.join(names)}."],
    )


def _compare(found: grid.Axes, results: Results) -> tuple[Outcome, str]:
    rows = range(len(found.rows))
    if len(found.timesteps) < 2:
        return "undecided", "there are not two timesteps to compare"
    first, last = (
        grid.mean_over(results, found.variants(rows, [column]), [AGREEMENT])
        for column in (0, len(found.timesteps) - 1)
    )
    texts = [points(Spread.of(list(each.values()))) for each in (first, last)]
    evidence = (
        f"agreement with the classes is {texts[0]} % at {found.columns[0]} and {texts[1]} % at "
        f"{found.columns[-1]}"
    )
    return is_above(difference(first, last)), evidence


@dataclass(frozen=True)
class Pictures:
    """Images uint8 `[N, 3, H, W]`, and the clusters 0 to k-1 of all, `[N, H, W]`, by map."""

    images: torch.Tensor
    clusters: dict[str, np.ndarray]
    k: int


def _pictures(study: Study, found: grid.Axes) -> Pictures:
    """The clusters of all shown images, with matching numbers."""
    settings = study.settings
    assert isinstance(settings, ClusterSettings)
    pool = shown(study)[0]
    pool.compute(found.all_variants, study.console)
    rows, size = range(len(pool)), study.generator.image_size
    clusters = {
        name: enlarged(cluster(pool, name, rows, settings.k, 0), size).numpy()
        for name in found.all_variants
    }
    reference = clusters[found.variant(len(found.rows) - 1, 0)]  # the finest, at the least noise
    coloured = {name: matched(each, reference, settings.k) for name, each in clusters.items()}
    return Pictures(pool.images, coloured, settings.k)


def _sheet(found: grid.Axes, pictures: Callable[[], Pictures], number: int, title: str) -> Figure:
    """The image, then rows of blocks and columns of timesteps."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    from train_seg.evaluation.plots import figure_type

    about, columns = pictures(), range(len(found.columns))
    colours = ListedColormap([colormaps["tab20"](i % 20) for i in range(about.k)])
    size = (1.4 * (1 + len(columns)), 0.3 + 1.5 * len(found.rows))
    figure = figure_type()(figsize=size, layout="constrained")
    panels = figure.subplots(len(found.rows), 1 + len(columns), squeeze=False)
    for panel in panels.ravel():
        panel.set_axis_off()
    panels[0][0].imshow(about.images[number].permute(1, 2, 0).numpy())
    panels[0][0].set_title(title, fontsize=8)
    for row, block in enumerate(found.rows):
        for column in columns:
            panel = panels[row][1 + column]
            clusters = about.clusters[found.variant(row, column)][number]
            panel.imshow(clusters, cmap=colours, vmin=0, vmax=about.k - 1, interpolation="nearest")
            where = f"block {block}, {found.columns[column]}" if found.timesteps else block
            panel.set_title(where, fontsize=8)
    return figure


ANALYSIS = Analysis(
    name="clusters",
    title="Agreement of k-means clusters with the classes, in % (Figure 4)",
    cells=lambda study: on_all(study, axes(study).all_variants),
    run=run,
    summarise=summarise,
    settings=ClusterSettings,
    check=check,
    prepare=prepare,
    uses_default_maps=False,
)
