"""A labeler without any annotated image: regions by number.

They are those of a factorized generator, or clusters of the features of any generator's samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.annotation.samples import load_generator
from factory.commands.train_labeler.folder import UNFINISHED_NAME, begin, settings_of
from factory.commands.train_labeler.preparation import with_regions
from factory.locking.lock import exclusive
from factory.recipe import Recipe
from factory.terminal.progress import ProgressLine

if TYPE_CHECKING:
    from generators.base import Generator
    from labelers.config import LabelerConfig
    from labelers.regions.clusters import Clusters

SAMPLES = 64  # whose pixels are clustered


def number_regions(recipe: Recipe, out: Path, device: str, console: Console) -> None:
    """Write a labeler whose classes are `region 0` to `region K-1` to `out`.

    Raises ValueError if the generator has no regions, or `out` holds something else.
    """
    from labelers.labeler import INFO_FILE, GeneratorInfo, Labeler
    from labelers.regions.fit import unnamed_regions

    config = recipe.labeler.model_copy(update={"weights": None})
    wanted = with_regions(recipe.generator) if config.kind == "regions" else recipe.generator
    generator, recorded = load_generator("--generator", wanted, device)
    about = GeneratorInfo(digest=generator.digest, config=recorded.model_dump(mode="json"))
    info = unnamed_regions(generator.feature_spec, generator.image_size, about, config)
    with exclusive(out):
        begin(out, settings_of(info))
        if not (out / INFO_FILE).is_file():
            clusters = None
            if config.kind == "clusters":
                clusters = _cluster_samples(generator, config, console)
            Labeler.of_regions(info, clusters).save(out)
        (out / UNFINISHED_NAME).unlink(missing_ok=True)
    console.print(f"labeler in {out} ({len(info.classes)} regions without names)")


def _cluster_samples(generator: Generator, config: LabelerConfig, console: Console) -> Clusters:
    """Clusters of the pixels of SAMPLES samples."""
    import torch

    from generators.base import batches
    from labelers.ensemble.classifiers import channel_last, group_by_size
    from labelers.regions.clusters import PIXELS, fit_clusters, pixel_vectors

    spec, size = generator.feature_spec, generator.image_size
    vectors = []
    with ProgressLine("sampling", "images", SAMPLES, console) as line:
        for rows in batches(range(SAMPLES), generator.batch_size):
            _, maps = generator.sample(rows)
            tables = channel_last(maps.to("cpu"), group_by_size(spec))
            count = PIXELS * len(rows) // SAMPLES
            seed = config.seed + rows.start
            vectors.append(pixel_vectors(tables, size, range(len(rows)), count, seed))
            line.update(rows.stop)
    return fit_clusters(torch.cat(vectors), spec, config.clusters, config.seed)
