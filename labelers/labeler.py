"""The labeler artefact: an ensemble, its class names, and the generator it is bound to.

On disk: `labeler.safetensors` (the ensemble's tensors) and `labeler.json` (a `LabelerInfo`),
which carries the sha256 of the former and is written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load, save

from factory_core.models import parse_model
from factory_core.storage import write_bytes
from generators.base import FeatureMaps, FeatureMapSpec, Generator
from labelers.config import LabelerConfig, Uncertainty, Vote
from labelers.ensemble.classifiers import Ensemble
from labelers.ensemble.inference import FoldedEnsemble
from labelers.ensemble.uncertainty import image_score, pixel_uncertainty
from labelers.ensemble.vote import elect

FORMAT_VERSION = 2  # 1 had the settings of training flat in `config`
WEIGHTS_FILE = "labeler.safetensors"
INFO_FILE = "labeler.json"
MAKE_AGAIN = "copy both files again, or retrain the labeler"


class GeneratorInfo(BaseModel):
    """The generator a labeler belongs to: its digest, and the settings that load it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    config: dict[str, Any] = {}


class LabelerInfo(BaseModel):
    """Everything about a labeler except its weights: the content of `labeler.json`.

    `image_size` is (height, width) of the masks it was trained on, `scores` what was measured
    (names to numbers), `data_digest` the sha256 of the annotations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    classes: list[str]
    palette: list[list[int]] | None = None
    features: tuple[FeatureMapSpec, ...]
    generator: GeneratorInfo
    image_size: tuple[int, int]
    data_digest: str
    config: LabelerConfig
    scores: dict[str, float] = {}
    weights_sha256: str = ""


class _Version(BaseModel):
    """The part that all versions of `labeler.json` share."""

    format_version: int


@dataclass(frozen=True)
class Prediction:
    """Labels of N images.

    `mask` uint8 `[N, H, W]` class ids; `uncertainty` float32 `[N]`, nats, the mean of the
    int(H·W/10) most uncertain pixels; `pixel_uncertainty` float32 `[N, H, W]`, nats.
    """

    mask: torch.Tensor
    uncertainty: torch.Tensor
    pixel_uncertainty: torch.Tensor


@dataclass(frozen=True)
class Labeler:
    """An ensemble of pixel classifiers bound to one generator's features.

    It predicts in `dtype`: float32, or bfloat16 where the device multiplies it in hardware.
    bfloat16 changes fewer than one label in a thousand.
    """

    ensemble: Ensemble
    info: LabelerInfo
    dtype: torch.dtype = torch.float32

    @property
    def classes(self) -> list[str]:
        """Class names in id order."""
        return self.info.classes

    @cached_property
    def _folded(self) -> FoldedEnsemble:
        return FoldedEnsemble(self.ensemble, self.dtype)

    @torch.no_grad()
    def predict(
        self,
        features: FeatureMaps,
        size: tuple[int, int] | None = None,
        vote: Vote | None = None,
        uncertainty: Uncertainty | None = None,
    ) -> Prediction:
        """Masks and uncertainty at `size` (H, W; default that of training), on the CPU.

        `vote` and `uncertainty` override the configured ones. Raises ValueError if the features
        differ from those in training.
        """
        if set(features.spec) != set(self.info.features):
            raise ValueError(
                f"the labeler reads feature maps {describe(self.info.features)}, "
                f"found {describe(features.spec)}"
            )
        vote = vote or self.info.config.vote
        uncertainty = uncertainty or self.info.config.uncertainty
        size = size or self.info.image_size
        shape = (features.batch_size, size[0] * size[1])
        mask = torch.empty(shape, dtype=torch.uint8, device=self._folded.device)
        maps = torch.empty(shape, device=self._folded.device)
        for image, pixels, logits in self._folded.logits(features, size):
            mask[image, pixels] = elect(logits, vote)
            maps[image, pixels] = pixel_uncertainty(logits, uncertainty)
        maps = maps.view(-1, *size).cpu()
        return Prediction(mask.view(-1, *size).cpu(), image_score(maps), maps)

    def check(self, generator: Generator) -> None:
        """Raise ValueError, naming both, unless `generator` is the one used in training."""
        ours, theirs = self.info.features, generator.feature_spec
        if set(ours) != set(theirs):
            raise ValueError(
                f"the labeler reads feature maps {describe(ours)}, but the generator gives "
                f"{describe(theirs)}: set generator.features (blocks and timesteps, or layers and "
                "constant) to those, or train a labeler"
            )
        for key, found in generator.feature_settings.items():
            noted = _at(self.info.generator.config, key, default=found)
            if noted != found:
                raise ValueError(
                    f"the labeler was trained on features with {key} {noted}, but the generator "
                    f"gives {key} {found}: set generator.{key}, or train another labeler"
                )
        if self.info.generator.digest != generator.digest:
            raise ValueError(
                f"the labeler belongs to generator {self.info.generator.digest[:12]} "
                f"(weights {self.info.generator.config.get('weights', 'unknown')}), found "
                f"generator {generator.digest[:12]}: use that one, or train a labeler on this one"
            )

    def save(self, folder: str | Path) -> None:
        """Write the artefact into `folder`, created if missing; raises OSError.

        Each file is written atomically, the description last.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: t.detach().cpu().contiguous() for k, t in self.ensemble.state_dict().items()}
        weights = save(state)
        sha256 = hashlib.sha256(weights).hexdigest()
        info = self.info.model_copy(update={"weights_sha256": sha256})
        write_bytes(folder / WEIGHTS_FILE, weights)
        write_bytes(folder / INFO_FILE, (info.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Labeler:
        """Read the artefact of `folder`, to predict on `device` in `dtype`.

        Raises FileNotFoundError if a file is missing, ValueError if one is damaged, has a different
        format version, or does not match the other.
        """
        folder = Path(folder)
        info = _read_info(folder / INFO_FILE)
        weights = _read(folder / WEIGHTS_FILE)
        if hashlib.sha256(weights).hexdigest() != info.weights_sha256:
            raise ValueError(
                f"{folder / WEIGHTS_FILE} is damaged or does not belong to {INFO_FILE} "
                f"(sha256 differs): {MAKE_AGAIN}"
            )
        classes = len(info.classes)
        hidden = info.config.hidden_for(classes)
        ensemble = Ensemble(info.features, classes, hidden, info.config.members)
        try:
            ensemble.load_state_dict(load(weights))
        except RuntimeError:  # several lines of tensor names and shapes
            raise ValueError(
                f"{folder / INFO_FILE} ({info.config.members} members of {hidden} units for "
                f"{classes} classes on {describe(info.features)}) does not describe "
                f"{WEIGHTS_FILE}: {MAKE_AGAIN}"
            ) from None
        return cls(ensemble.eval().to(device), info, dtype)


def _at(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """The value of a dotted key; `default` if an older version recorded none."""
    for part in key.split("."):
        if part not in config:
            return default
        config = config[part]
    return config


def describe(spec: Sequence[FeatureMapSpec]) -> str:
    """Feature maps in one line: `name CxHxW, ...`."""
    return ", ".join(f"{m.name} {m.channels}x{m.height}x{m.width}" for m in spec)


def _read_info(path: Path) -> LabelerInfo:
    content = _read(path)
    version = parse_model(content, _Version, path, MAKE_AGAIN).format_version
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, expected {FORMAT_VERSION}: use the program "
            "version that wrote it, or retrain the labeler"
        )
    return parse_model(content, LabelerInfo, path, MAKE_AGAIN)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no labeler in {path.parent}: {path.name} is missing; make one with "
            "`factory train-labeler`"
        ) from None
