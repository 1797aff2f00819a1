"""The labeler artefact: an ensemble, its class names, and the generator it is bound to.

On disk: `labeler.safetensors` (the ensemble's tensors) and `labeler.json` (a `LabelerInfo`),
which carries the sha256 of the former and is written last.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load, save

from generators.base import FeatureMaps, FeatureMapSpec, Generator
from labelers.config import LabelerConfig, Vote
from labelers.ensemble import Ensemble
from labelers.uncertainty import image_score, js_divergence
from labelers.vote import Tally

FORMAT_VERSION = 1
WEIGHTS_FILE = "labeler.safetensors"
INFO_FILE = "labeler.json"
WORKING_SET_BYTES = 8 * 2**20  # one layer of a chunk of samples in prediction: stays in cache


class GeneratorInfo(BaseModel):
    """The generator a labeler belongs to: its digest, and the settings that load it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    config: dict[str, Any] = {}


class LabelerInfo(BaseModel):
    """Everything about a labeler but its weights: the content of `labeler.json`.

    `image_size` is (height, width) of the masks it was trained on, `scores` whatever was measured
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


@dataclass(frozen=True)
class Prediction:
    """Labels of N images.

    `mask` uint8 `[N, H, W]` class ids; `uncertainty` float32 `[N]`, nats, the mean of the
    int(H·W/10) most uncertain pixels; `pixel_uncertainty` float32 `[N, H, W]`, JS divergence in
    nats.
    """

    mask: torch.Tensor
    uncertainty: torch.Tensor
    pixel_uncertainty: torch.Tensor


@dataclass(frozen=True)
class Labeler:
    """An ensemble of pixel classifiers bound to one generator's features."""

    ensemble: Ensemble
    info: LabelerInfo

    @property
    def classes(self) -> list[str]:
        """Class names in id order."""
        return self.info.classes

    @property
    def device(self) -> torch.device:
        """Where predictions are computed."""
        return next(self.ensemble.parameters()).device

    def predict(
        self, features: FeatureMaps, size: tuple[int, int] | None = None, vote: Vote | None = None
    ) -> Prediction:
        """Masks and uncertainty at `size` (H, W; default that of training), on the CPU.

        `vote` overrides the configured one. Samples are labelled in chunks that bound the memory.
        Raises ValueError if the features are not those of training.
        """
        if set(features.spec) != set(self.info.features):
            raise ValueError(
                f"the labeler reads feature maps {describe(self.info.features)}, "
                f"found {describe(features.spec)}"
            )
        size = size or self.info.image_size
        width = max([len(self.classes), *self.info.config.hidden_for(len(self.classes))])
        chunk = max(1, WORKING_SET_BYTES // (4 * width * size[0] * size[1]))
        masks, maps = [], []
        for start in range(0, features.batch_size, chunk):
            part = features.select(slice(start, start + chunk)).to(self.device, torch.float32)
            tally = Tally(vote or self.info.config.vote)
            for logits in self.ensemble.logits(part, size):
                tally.add(logits)
            masks.append(tally.mask().cpu())
            maps.append(js_divergence(tally.mean_probability, tally.mean_entropy).cpu())
        pixel_uncertainty = torch.cat(maps)
        return Prediction(torch.cat(masks), image_score(pixel_uncertainty), pixel_uncertainty)

    def check(self, generator: Generator) -> None:
        """Raise ValueError, with both sides shown, unless `generator` is the one of training."""
        ours, theirs = self.info.features, generator.feature_spec
        if set(ours) != set(theirs):
            raise ValueError(
                f"the labeler reads feature maps {describe(ours)}, but the generator gives "
                f"{describe(theirs)}: set its blocks and timesteps to those, or train a labeler"
            )
        noted = self.info.generator.config.get("features", {})
        for key, found in generator.feature_settings.items():
            if noted.get(key, found) != found:
                raise ValueError(
                    f"the labeler was trained on features with {key} {noted[key]}, but the "
                    f"generator gives {key} {found}: set generator.features.{key}, or train another"
                )
        if self.info.generator.digest != generator.digest:
            raise ValueError(
                f"the labeler belongs to generator {self.info.generator.digest[:12]} "
                f"(weights {self.info.generator.config.get('weights', 'unknown')}), found "
                f"generator {generator.digest[:12]}: use that one, or train a labeler on this one"
            )

    def save(self, folder: str | Path) -> None:
        """Write the artefact into `folder`, made if missing; raises OSError.

        Each file appears whole or not at all, the description last.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: t.detach().cpu().contiguous() for k, t in self.ensemble.state_dict().items()}
        weights = save(state)
        sha256 = hashlib.sha256(weights).hexdigest()
        info = self.info.model_copy(update={"weights_sha256": sha256})
        _write(folder / WEIGHTS_FILE, weights)
        _write(folder / INFO_FILE, (info.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Labeler:
        """Read the artefact of `folder`.

        Raises FileNotFoundError if a file is missing, ValueError if one is damaged, of another
        format version or does not fit the other.
        """
        folder = Path(folder)
        info = _read_info(folder / INFO_FILE)
        weights = _read(folder / WEIGHTS_FILE)
        if hashlib.sha256(weights).hexdigest() != info.weights_sha256:
            raise ValueError(
                f"{folder / WEIGHTS_FILE} is damaged or does not belong to {INFO_FILE} "
                "(sha256 differs): copy both again, or train the labeler again"
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
                f"{WEIGHTS_FILE}: copy both again, or train the labeler again"
            ) from None
        return cls(ensemble.eval().to(device), info)


def describe(spec: Sequence[FeatureMapSpec]) -> str:
    """Feature maps in one line: `name CxHxW, ...`."""
    return ", ".join(f"{m.name} {m.channels}x{m.height}x{m.width}" for m in spec)


def _read_info(path: Path) -> LabelerInfo:
    content = _read(path)
    try:
        info = LabelerInfo.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise ValueError(f"{path} is not a labeler description: {where}: {first['msg']}") from error
    if info.format_version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {info.format_version}, expected {FORMAT_VERSION}: "
            "use the program version that wrote it, or train the labeler again"
        )
    return info


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no labeler in {path.parent}: {path.name} is missing; make one with "
            "`factory train-labeler`"
        ) from None


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
