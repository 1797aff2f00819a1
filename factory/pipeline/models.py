"""Loading the generator and the labeler of a recipe; the device and precision they compute in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from generators.base import Encoder, FeatureMaps
from generators.config import GeneratorConfig
from labelers.config import LabelerConfig


class LabelerLike(Protocol):
    """What a worker needs of a labeler (`labelers.labeler.Labeler`)."""

    @property
    def needs_features(self) -> bool:
        """Whether `predict` reads the generator's features; otherwise the images are enough."""
        ...

    def predict(
        self,
        images: torch.Tensor,
        features: FeatureMaps | None,
        size: tuple[int, int],
        vote: Any,
        uncertainty: Any = None,
        probabilities: bool = False,
    ) -> Any:
        """Masks and uncertainty of a batch, and class probabilities if asked for."""
        ...

    def check(self, generator: Encoder) -> None:
        """Raise ValueError unless the labeler belongs to `generator` and its features."""
        ...


Models = tuple[Encoder, LabelerLike]
LoadModels = Callable[[GeneratorConfig, LabelerConfig, str], Models]


def load_models(generator: GeneratorConfig, labeler: LabelerConfig, device: str) -> Models:
    """Generator and labeler from the folders that their configs name, on `device`."""
    import generators
    from factory_core.device import pick_device, pick_dtype
    from labelers.labeler import Labeler

    assert labeler.weights is not None  # a resolved recipe has both
    loaded, where = generators.load_encoder(generator, device), pick_device(device)
    return loaded, Labeler.load(labeler.weights, where, pick_dtype(labeler.precision, where))


def device_of(models: Models) -> torch.device:
    """The device that the models compute on; a model that does not say is on the CPU."""
    return getattr(models[0], "device", torch.device("cpu"))


def precision_of(models: Models) -> str:
    """What the models compute in, as recipe settings: `auto` differs between machines.

    A model that does not say computes in float32.
    """
    dtypes = [
        str(getattr(model, "dtype", torch.float32)).removeprefix("torch.") for model in models
    ]
    return "generator.precision={} labeler.precision={}".format(*dtypes)
