"""The artefact of a training: weights, and how to use them.

DIR/model.safetensors   weights
    model.json          `SegmenterInfo`, written last
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, field_validator
from safetensors import SafetensorError

from factory_core.dataset import default_palette
from factory_core.device import pick_device
from factory_core.models import read_model
from factory_core.storage import write_bytes, write_json
from train_seg.config import INFERENCE_BATCH_SIZE, SegmenterConfig
from train_seg.network.mean import MeanNetwork, build_trained
from train_seg.network.network import Network, weights_bytes

WEIGHTS_NAME = "model.safetensors"
INFO_NAME = "model.json"
FORMAT_VERSION = 1


class Normalisation(BaseModel):
    """Per channel (red, green, blue), of images divided by 255."""

    model_config = ConfigDict(frozen=True)

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class SegmenterInfo(BaseModel):
    """The content of model.json."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    architecture: str
    encoder: str
    """`none` if the architecture has none; of a mean, those of all members"""
    classes: list[str]
    palette: list[list[int]]
    image_size: tuple[int, int]
    """(height, width) of the training images, in pixels"""
    normalisation: Normalisation
    weights_sha256: str
    training_digest: str
    scores: dict[str, Any]
    skipped: dict[str, int] = {}  # absent from models of earlier versions
    encoder_start: str | None = None  # absent from models of earlier versions
    """what the encoder started from, see `describe_weights`; None: unknown, or no encoder"""
    config: SegmenterConfig
    """of the first member if there are several"""
    members: list[SegmenterConfig] = []
    """of a mean of several segmenters: those of all members; absent from earlier versions"""

    @field_validator("format_version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version != FORMAT_VERSION:
            raise ValueError(f"found {version}, expected {FORMAT_VERSION}")
        return version


@dataclass
class Segmenter:
    """A trained segmenter: the network and everything needed to use it.

    >>> segmenter = Segmenter.load("model", device="cpu")
    >>> images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    >>> segmenter.predict(images).shape
    torch.Size([2, 64, 64])
    """

    network: Network | MeanNetwork
    config: SegmenterConfig
    """of the first member if there are several"""
    classes: list[str]
    palette: list[list[int]]
    image_size: tuple[int, int]
    training_digest: str
    scores: dict[str, Any] = field(default_factory=dict)
    """`Scores.to_dict` of the validation set; empty if there was none"""
    skipped: dict[str, int] = field(default_factory=dict)
    """number of damaged training samples that were left out, by reason"""
    encoder_start: str | None = None
    """what the encoder started from, see `describe_weights`; None: unknown, or no encoder"""
    members: list[SegmenterConfig] = field(default_factory=list)
    """settings of each member of a mean; empty if it is a single network"""

    @classmethod
    def create(
        cls,
        network: Network,
        config: SegmenterConfig,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]] | None,
        image_size: tuple[int, int],
        training_digest: str,
        scores: dict[str, Any],
        skipped: dict[str, int] | None = None,
        encoder_start: str | None = None,
    ) -> Segmenter:
        """A segmenter of `network`; without a `palette` the classes get the default colours."""
        colours = [list(c) for c in palette or default_palette(len(classes))]
        return cls(
            network.eval(),
            config,
            list(classes),
            colours,
            image_size,
            training_digest,
            scores,
            skipped or {},
            encoder_start,
        )

    @classmethod
    def mean(cls, segmenters: Sequence[Segmenter]) -> Segmenter:
        """One segmenter that averages the class probabilities of several, of any kinds.

        A mean among them counts as its members. Raises ValueError if their classes or the sizes of
        their images differ, one is given twice, or there are fewer than two.
        """
        if len(segmenters) < 2:
            raise ValueError(f"found {len(segmenters)} segmenter, expected at least 2 to average")
        first = segmenters[0]
        for other in segmenters[1:]:
            for name in ("classes", "image_size"):
                ours, theirs = getattr(first, name), getattr(other, name)
                if ours != theirs:
                    raise ValueError(
                        f"found {name} {_listed(theirs)} beside {_listed(ours)}: segmenters to "
                        "average must agree"
                    )
        networks = [n for s in segmenters for n in getattr(s.network, "networks", [s.network])]
        if len({id(network) for network in networks}) < len(networks):
            raise ValueError("found the same segmenter twice: a mean needs different ones")
        starts = dict.fromkeys(s.encoder_start for s in segmenters if s.encoder_start)
        digests = "".join(s.training_digest for s in segmenters)
        return cls(
            MeanNetwork(networks).eval(),
            first.config,
            first.classes,
            first.palette,
            first.image_size,
            hashlib.sha256(digests.encode()).hexdigest(),
            skipped=dict(sum((Counter(s.skipped) for s in segmenters), Counter())),
            encoder_start="; ".join(starts) or None,
            members=[config for s in segmenters for config in s.members or [s.config]],
        )

    @property
    def architecture(self) -> str:
        """For people; those of all members of a mean."""
        if not self.members:
            return self.config.architecture
        return f"mean of {', '.join(config.architecture for config in self.members)}"

    @property
    def encoder(self) -> str:
        """For people; `none` if the architecture has none, and those of all members of a mean."""
        names = dict.fromkeys(config.encoder_name for config in self.members or [self.config])
        return ", ".join(names)

    def predict(self, images: torch.Tensor, batch_size: int = INFERENCE_BATCH_SIZE) -> torch.Tensor:
        """Class ids uint8 `[N, h, w]` of images uint8 `[N, 3, h, w]` of any size.

        Images are resized to the training size, and their logits back to `h` x `w`. Raises
        ValueError for any other dtype or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"found images {images.dtype} of shape {list(images.shape)}, expected torch.uint8 "
                "RGB [N, 3, h, w], 0-255"
            )
        device = next(self.network.parameters()).device
        self.network.eval()
        masks = [torch.empty(0, *images.shape[-2:], dtype=torch.uint8)]
        with torch.inference_mode():
            for batch in images.split(batch_size):
                masks.append(self.network(batch.to(device)).argmax(1).to(torch.uint8).cpu())
        return torch.cat(masks)

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors, then model.json; each file is complete or absent."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        weights = weights_bytes(self.network)
        write_bytes(path / WEIGHTS_NAME, weights)
        info = SegmenterInfo(
            architecture=self.architecture,
            encoder=self.encoder,
            classes=self.classes,
            palette=self.palette,
            image_size=self.image_size,
            normalisation=Normalisation.model_validate(self.network.normalisation),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            training_digest=self.training_digest,
            scores=self.scores,
            skipped=self.skipped,
            encoder_start=self.encoder_start,
            config=self.config,
            members=self.members,
        )
        write_json(path / INFO_NAME, info.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Segmenter:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: model.json or model.safetensors is missing.
            ValueError: one of them is damaged or of another version, or they do not match.
        """
        path = Path(folder)
        info = read_info(path)
        weights = _existing(path, WEIGHTS_NAME).read_bytes()
        if hashlib.sha256(weights).hexdigest() != info.weights_sha256:
            raise ValueError(
                f"{path / WEIGHTS_NAME} is damaged or does not belong to {INFO_NAME} (sha256 "
                "differs): copy both again, or retrain"
            )
        configs = info.members or [info.config]
        network = build_trained(configs, len(info.classes), info.image_size)
        try:
            network.load_state_dict(safetensors.torch.load(weights))
        except (RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path / WEIGHTS_NAME} does not fit the network: {reason}") from None
        return cls(
            network.eval().to(pick_device(device)),
            info.config,
            info.classes,
            info.palette,
            info.image_size,
            info.training_digest,
            info.scores,
            info.skipped,
            info.encoder_start,
            info.members,
        )


def read_info(folder: Path) -> SegmenterInfo:
    """The content of `folder`/model.json; raises as `Segmenter.load`."""
    info = _existing(folder, INFO_NAME)
    return read_model(info, SegmenterInfo, "copy the folder again, or retrain")


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _existing(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {name}: expected a segmenter, as `factory train-deeplab` writes it"
        )
    return folder / name
