"""What an analysis works on: annotated images, their splits, the generator and its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from factory.analysis.base import MIOU, Numbers, Settings
from factory.analysis.features import Encode, FeaturePool
from factory.analysis.sources import NOTHING, Sources
from factory.annotation.sample_features import features_of_samples, match_samples
from factory.annotation.samples import find_samples, load_generator, recorded_settings
from factory.recipe import find_weights, generator_recipe
from factory.terminal.notes import print_notes
from factory.verdict.folds import Split, random_splits
from factory_core.annotated.annotations import Annotations, read_annotations
from factory_core.dataset import IGNORE
from factory_core.device import pick_device, pick_dtype
from factory_core.pictures import Pictures, remembered
from generators.base import Diffusing, Generator
from generators.config import GeneratorConfig
from labelers.config import LabelerConfig, Vote
from labelers.labeler import GeneratorInfo, Labeler
from labelers.training.feature_store import FeatureTables
from labelers.training.fit import fit
from train_seg.evaluation.metrics import Confusion, scores

FEATURES_DIR = "features"
OF_RECIPE = ("generator.", "pictures.")  # settings that are not those of the analysis


@dataclass(frozen=True)
class Given:
    """The options of an analysis. `overrides` are settings as `KEY=VALUE`."""

    generator: str
    labeled: Path
    out: Path
    images: Path | None = None
    splits: int = 5
    overrides: Sequence[str] = ()
    device: str = "auto"
    sources: Sources = NOTHING

    @property
    def of_analysis(self) -> list[str]:
        """The overrides of the analysis' own settings."""
        return [text for text in self.overrides if not text.lstrip().startswith(OF_RECIPE)]

    @property
    def of_recipe(self) -> list[str]:
        """The overrides of generator and pictures."""
        return [text for text in self.overrides if text.lstrip().startswith(OF_RECIPE)]


@dataclass(frozen=True)
class Study:
    """Everything that cells may read.

    `pool` holds the annotated images and their features, in the order of `annotations`; the pools
    of other images lie beside its folder. `images` is the folder of unlabelled images, if one was
    given. `share` is the part of the annotated images in use, below 1 in a dry run.
    """

    settings: Settings
    splits: tuple[Split, ...]
    annotations: Annotations
    generator: Generator
    generator_config: GeneratorConfig
    info: GeneratorInfo
    pool: FeaturePool
    pictures: Pictures
    images: Path | None
    device: torch.device
    console: Console
    sources: Sources
    share: float = 1.0

    @property
    def folder(self) -> Path:
        """Where features and images that cells share are kept."""
        return self.pool.folder.parent

    @property
    def classes(self) -> list[str]:
        """Names in the order of their ids."""
        return self.annotations.classes

    @property
    def masks(self) -> torch.Tensor:
        """Masks of the annotated images uint8 `[N, H, W]`, 255 = ignore."""
        return self.annotations.masks

    @property
    def default_maps(self) -> list[str]:
        """The maps that the generator's settings name."""
        return [m.name for m in self.generator.feature_spec]

    @property
    def diffusing(self) -> Diffusing:
        """The generator, for analyses that need `timesteps`."""
        assert isinstance(self.generator, Diffusing)
        return self.generator

    def split(self, number: int) -> Split:
        """The split of a cell."""
        return self.splits[number]

    def fit(
        self,
        maps: Sequence[str],
        rows: Sequence[int],
        seed: int,
        labeler: LabelerConfig | None = None,
        pool: FeaturePool | None = None,
    ) -> Labeler:
        """A labeler trained on the annotated images `rows`; `maps` have been computed.

        `labeler` replaces the settings', `pool` holds other features of all annotated images.
        """
        tables = (pool or self.pool).tables(maps)
        return self.fit_on(tables, self.masks_of(rows), seed, labeler)

    def fit_on(
        self,
        features: FeatureTables,
        masks: torch.Tensor,
        seed: int,
        labeler: LabelerConfig | None = None,
    ) -> Labeler:
        """A labeler trained on any images with masks uint8 `[n, H, W]`; arguments as for `fit`."""
        config = (labeler or self.settings.labeler).model_copy(update={"seed": seed})
        return fit(
            features,
            masks,
            config,
            classes=self.classes,
            generator=self.info,
            data_digest=self.annotations.digest,
            palette=self.annotations.palette,
            device=self.device,
            dtype=pick_dtype(config.training.precision, self.device),
        )

    def masks_of(self, rows: Sequence[int]) -> torch.Tensor:
        """Masks of all annotated images, those of other images than `rows` ignored throughout."""
        masks = torch.full_like(self.masks, IGNORE)
        masks[list(rows)] = self.masks[list(rows)]
        return masks

    def predict(
        self,
        labeler: Labeler,
        rows: Sequence[int],
        pool: FeaturePool | None = None,
        vote: Vote | None = None,
    ) -> torch.Tensor:
        """Class ids uint8 `[n, H, W]` of images `rows` of a pool, the annotated ones by default."""
        names = [m.name for m in labeler.info.features]
        pool = pool or self.pool
        masks = [
            labeler.predict(pool.images[row : row + 1], pool.maps(names, row), vote=vote).mask
            for row in rows
        ]
        return torch.cat(masks).cpu()

    def score(
        self, labeler: Labeler, rows: Sequence[int], pool: FeaturePool | None = None
    ) -> Numbers:
        """mIoU, and the IoU of every class, on the annotated images `rows`; see `score_masks`."""
        return self.score_masks(self.predict(labeler, rows, pool), rows)

    def score_masks(self, predictions: torch.Tensor, rows: Sequence[int]) -> Numbers:
        """Scores 0-1 of class ids `[n, H, W]`: `miou`, and `iou.CLASS` of every class.

        mIoU is the mean over the classes that occur in the masks of `rows`; the IoU of the others
        is None.
        """
        confusion = Confusion(len(self.classes))
        confusion.update(predictions, self.masks[list(rows)])
        found = scores(confusion, self.classes, len(rows))
        each = zip(self.classes, found.iou, found.class_pixels, strict=True)
        ious = {f"iou.{name}": iou if pixels else None for name, iou, pixels in each}
        return {MIOU: found.miou, **ious}

    def small(self, folder: Path, images: int) -> Study:
        """The same on the first few images, with one split that scores one; for dry runs."""
        annotations = self.annotations
        indices = annotations.indices and annotations.indices[:images]
        few = replace(
            annotations,
            images=annotations.images[:images],
            masks=annotations.masks[:images],
            stems=annotations.stems[:images],
            indices=indices,
        )
        pool = self.pool.first(images, folder / "annotated")
        return replace(
            self,
            annotations=few,
            pool=pool,
            splits=tuple(random_splits(images, 1, 1)),
            share=images / len(annotations.stems),
        )


def read_study(given: Given, settings: Settings, console: Console) -> Study:
    """Read and check everything; raises ValueError or OSError for a user's mistake."""
    recorded = recorded_settings(given.labeled)
    recipe = generator_recipe(None, given.generator, given.of_recipe, recorded)
    folder, samples = find_samples(given.labeled)
    generator, found = load_generator("--generator", recipe.generator, given.device)
    if samples is not None:
        samples.check(folder, generator.digest, recipe.generator)
    weights = find_weights("--generator", recipe.generator.weights)
    pictures = recipe.pictures.over(remembered(weights))
    annotations = read_annotations(given.labeled, generator.image_size, recipe.classes, pictures)
    print_notes(console, annotations.notes)
    encode: Encode | None = None
    if samples is not None:
        annotations = match_samples(annotations, folder, samples, generator)
        matched = annotations

        def encode(rows: range) -> Any:
            return features_of_samples(matched, rows, generator, folder)

    count = len(annotations.stems)
    test_images = settings.test_images or max(1, count // 3)
    return Study(
        settings=settings,
        splits=tuple(random_splits(count, given.splits, test_images)),
        annotations=annotations,
        generator=generator,
        generator_config=found,
        info=GeneratorInfo(digest=generator.digest, config=found.model_dump(mode="json")),
        pool=FeaturePool(
            given.out / FEATURES_DIR / "annotated",
            annotations.images,
            generator,
            settings.labeler.feature_dtype,
            annotations.indices,
            encode,
        ),
        pictures=annotations.pictures,
        images=given.images,
        device=pick_device(given.device),
        console=console,
        sources=given.sources,
    )
