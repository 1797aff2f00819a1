"""The part of the public Python interface that has no other home: what commands do, as functions.

`factory/__init__.py` lists the whole interface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from factory.recipe import Recipe, choose_recipe, generator_recipe, resolve
from factory.recipe.networks import find_networks
from factory.recipe.settings import as_overrides
from factory_core.dataset.sample_set import SampleSet
from generators import base

if TYPE_CHECKING:
    from factory.pipeline.job import Job
    from factory.pipeline.progress import Progress

Address = str | Path  # a folder, a file, or what the options of the command line take


class Generator(base.Generator, Protocol):
    """A trained generator of any kind: images, and the activations behind them.

    Sample *i* depends on the weights, the settings and *i* alone. A call takes at most `batch_size`
    images.

    >>> generator = Generator.load("package:factory.demo/generator", device="cpu", steps=2)
    >>> images, features = generator.sample([0, 1])
    >>> images.shape, images.dtype
    (torch.Size([2, 3, 64, 64]), torch.uint8)
    """

    @staticmethod
    def load(weights: Address, device: str = "auto", **settings: Any) -> Generator:
        """Load a folder, a `.pt` or `.pkl` file, a hub id or `package:` address.

        `settings` are keys of a recipe's `generator` section, such as `batch_size=8`. Raises
        FileNotFoundError if there is nothing, ValueError for weights or settings that do not fit.
        """
        import generators

        given = as_overrides({f"generator.{key}": value for key, value in settings.items()})
        config = generator_recipe(None, str(weights), given).generator
        found, _ = find_networks("weights", config)
        return cast(Generator, generators.load(found, device))


def generate(
    out: Address,
    n: int,
    recipe: Recipe | Address | None = None,
    *,
    generator: Address | None = None,
    labeler: Address | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> SampleSet:
    """Sample `n` images, label them, drop the most uncertain, and write the dataset `out`.

    As `factory generate --executor local`: the same bytes, and calling it again resumes it.
    `recipe` is a preset, a file or a `Recipe`; without one, it is the recipe of `labeler`, or the
    demo's. `settings` are dotted keys of a recipe. `on_progress` replaces the progress line.

    >>> data = generate("made", 10, settings={"generator.steps": 2}, device="cpu")
    >>> len(data)
    9

    Raises:
        ValueError: `out` holds a different dataset, or the options do not fit.
        FileNotFoundError: no such recipe or weights.
    """
    from factory.pipeline.job import Job

    chosen = _recipe(recipe, generator, labeler, settings)
    return _run(Job.sampling(resolve(chosen), n, str(out), device=device), on_progress)


def label(
    images: Address,
    out: Address,
    recipe: Recipe | Address | None = None,
    *,
    generator: Address | None = None,
    labeler: Address | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> SampleSet:
    """Label the photographs in the folder `images` and write the dataset `out`.

    As `factory label --executor local`; the other arguments are those of `generate`.

    >>> data = label("photos", "labelled", device="cpu")
    >>> data[0].meta["source"]
    '000000.png'
    """
    from factory.pipeline.job import Job

    chosen = _recipe(recipe, generator, labeler, settings)
    return _run(Job.labeling(resolve(chosen), Path(images), str(out), device=device), on_progress)


def open_dataset(folder: Address) -> SampleSet:
    """The samples of a finished dataset, in a folder or at a URL such as `s3://BUCKET/FOLDER`.

    >>> data = open_dataset("smears")
    >>> sample = data[0]
    >>> sample.image.shape, sample.mask.shape
    ((3, 64, 64), (64, 64))
    >>> certain = data[(data.uncertainty < 1) & data.has("red cell")]
    >>> len(certain) <= len(data)
    True

    Raises:
        FileNotFoundError: no finished dataset there, or a file of it is missing.
        ValueError: it is damaged.
    """
    return SampleSet.open(str(folder))


def _recipe(
    recipe: Recipe | Address | None,
    generator: Address | None,
    labeler: Address | None,
    settings: Mapping[str, Any] | None,
) -> Recipe:
    if isinstance(recipe, Recipe):
        if not (generator is labeler is settings is None):
            raise ValueError("found a Recipe and generator, labeler or settings: set them in it")
        return recipe
    source, images, masks = map(_text, (recipe, generator, labeler))
    return choose_recipe(source, images, masks, as_overrides(settings or {}))


def _text(address: Address | None) -> str | None:
    return None if address is None else str(address)


def _run(job: Job, on_progress: Callable[[Progress], None] | None) -> SampleSet:
    from rich.console import Console

    from factory.pipeline.display import show
    from factory.pipeline.run import run
    from factory.terminal.progress import ProgressLine, quiet_libraries

    quiet_libraries()
    if on_progress is not None:
        run(job, on_progress=on_progress)
    else:
        with ProgressLine("starting", "samples", job.n, Console(), job.out) as line:
            run(job, on_progress=lambda progress: show(progress, line))
    return SampleSet.open(job.out)
