"""A labeler without any annotated image: the regions of a factorized generator, by number."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from factory.annotation.samples import load_generator
from factory.commands.train_labeler.folder import UNFINISHED_NAME, begin, settings_of
from factory.commands.train_labeler.preparation import with_regions
from factory.locking.lock import exclusive
from factory.recipe import Recipe


def number_regions(recipe: Recipe, out: Path, device: str, console: Console) -> None:
    """Write a labeler whose classes are `region 0` to `region K-1` to `out`.

    Raises ValueError if the generator has no regions, or `out` holds something else.
    """
    from labelers.labeler import GeneratorInfo
    from labelers.regions.fit import unnamed_regions

    config = recipe.labeler.model_copy(update={"weights": None})
    generator, recorded = load_generator("--generator", with_regions(recipe.generator), device)
    about = GeneratorInfo(digest=generator.digest, config=recorded.model_dump(mode="json"))
    labeler = unnamed_regions(generator.feature_spec, generator.image_size, about, config)
    with exclusive(out):
        begin(out, settings_of(labeler.info))
        labeler.save(out)
        (out / UNFINISHED_NAME).unlink(missing_ok=True)
    console.print(f"labeler in {out} ({len(labeler.classes)} regions without names)")
