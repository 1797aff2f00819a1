"""Stand-ins for the generator and the labeler, and jobs that run on them in milliseconds.

Ray's workers do not import this module; `by_value` makes Ray send them its code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from factory.pipeline.executors import Executor
from factory.pipeline.job import Job
from factory.pipeline.progress import OnProgress, Progress, ignore
from factory.pipeline.run import run
from factory.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.dataset import Manifest
from factory_core.storage import Store
from generators.base import FeatureMaps, FeatureMapSpec, sample_seed

SIZE = (16, 16)


def noise(index: int) -> np.ndarray:
    """The image of a sample, uint8 `[3, 16, 16]`."""
    return np.random.default_rng(sample_seed(0, index)).integers(0, 256, (3, *SIZE), np.uint8)


def flat(index: int) -> np.ndarray:
    """One grey, uint8 `[3, 16, 16]`; below index 128, its uncertainty is `index / 255`."""
    return np.full((3, *SIZE), index, np.uint8)


@dataclass
class Prediction:
    mask: torch.Tensor
    uncertainty: torch.Tensor
    pixel_uncertainty: torch.Tensor
    probabilities: torch.Tensor | None = None


@dataclass
class TinyModels:
    """Generator and labeler in one: the classes are dark and bright, and mid-grey is uncertain.

    `made` lists the sampled indices; `disturb` is called with each batch of them first. Samples in
    `broken` have uncertainty nan; `draw` returns the image of an index.
    """

    made: list[int] = field(default_factory=list)
    disturb: Callable[[Sequence[int]], None] = lambda indices: None
    broken: set[int] = field(default_factory=set)
    draw: Callable[[int], np.ndarray] = noise
    digest: str = "tiny"
    dtype: torch.dtype = torch.float32
    image_size: tuple[int, int] = SIZE
    feature_spec: ClassVar = (FeatureMapSpec("image", 3, *SIZE),)
    feature_settings: ClassVar[dict[str, Any]] = {}
    needs_features: ClassVar[bool] = True

    def sample(self, indices: Sequence[int]) -> tuple[torch.Tensor, FeatureMaps]:
        self.disturb(indices)
        self.made.extend(indices)
        images = torch.from_numpy(np.stack([self.draw(i) for i in indices]))
        return images, self.encode(images, indices)

    def sample_images(self, indices: Sequence[int]) -> torch.Tensor:
        return self.sample(indices)[0]

    def encode(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        maps = images.float() / 255
        for place, index in enumerate(indices or ()):
            if index in self.broken:
                maps[place] = torch.nan
        return FeatureMaps({"image": maps})

    def check(self, generator: Any) -> None:
        if generator.digest != "tiny":
            raise ValueError("the labeler belongs to a different generator")

    def predict(
        self,
        images: torch.Tensor,
        features: FeatureMaps | None,
        size: tuple[int, int],
        vote: Any,
        uncertainty: Any = None,
        probabilities: bool = False,
    ) -> Prediction:
        assert features is not None
        grey = features["image"].mean(1)
        unsure = 0.5 - (grey - 0.5).abs()
        classes = torch.stack([1 - grey, grey], 1) if probabilities else None
        return Prediction((grey > 0.5).byte(), unsure.mean((1, 2)), unsure, classes)


@dataclass
class Tiny:
    """Jobs with 8 candidates per shard, in batches of 3, and 7 kept samples per final shard."""

    folder: Path
    models: TinyModels = field(default_factory=TinyModels)

    def recipe(self, *overrides: str) -> ResolvedRecipe:
        return resolve(load_recipe(str(self.folder / "tiny.yaml"), list(overrides)))

    def load(self, *_: Any) -> Any:
        return self.models, self.models

    def job(self, out: Path | Store, n: int = 25, overrides: Sequence[str] = (), **how: Any) -> Job:
        return Job.sampling(self.recipe(*overrides), n, out, load=self.load, **how)

    def make(
        self,
        out: Path | Store,
        n: int = 25,
        overrides: Sequence[str] = (),
        executor: Executor | None = None,
        on_progress: OnProgress = ignore,
        **how: Any,
    ) -> Manifest:
        return run(self.job(out, n, overrides, **how), executor, on_progress)

    def label(self, images: Path, out: Path) -> Manifest:
        return run(Job.labeling(self.recipe(), images, out, load=self.load))

    def begin(self, out: Path | Store, shards: int, **more: Any) -> None:
        """Make this many shards, then stop as on Ctrl-C."""

        def stop(progress: Progress) -> None:
            if progress.shards_done == shards and progress.stage == "generate":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.make(out, on_progress=stop, **more)
        self.models.made.clear()


def by_value(tiny: Tiny) -> Tiny:
    """`tiny`, pickled by value so that it reaches Ray's workers."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return tiny
