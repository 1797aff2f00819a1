"""Data, trainings and measurements of `benchmarks.factorized`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch import Tensor

import generators
from factory.demo.render import render_folder
from factory.recipe.networks import EMBEDDED
from factory.recipe.settings import build_settings
from factory.recipe.weights import find_weights
from factory.reports.fidelity import compare, frechet_distance
from factory.reports.region_scores import foreground_ids, score_regions
from factory.terminal.training_progress import TrainingProgress
from factory.verdict.settings import compare_config
from factory.verdict.students import train_once, unet_settings
from factory_core.annotated.annotations import Annotations, read_annotations
from factory_core.storage import naming_full_disk
from generators.base import REGIONS_MAP, Encoder, Generator, batches
from generators.config import DDPMConfig, EncoderConfig, FactorizedConfig
from generators.ddpm import training as plain
from generators.ddpm.config import DDPMTrainingConfig
from generators.ddpm.model import to_uint8, to_unit_range
from generators.factorized import training as factorized
from generators.factorized.config import FactorizedFeatures, FactorizedTrainingConfig
from generators.factorized.model import FactorizedGenerator
from generators.factorized.training import COLLAPSED_SHARE, mask_statistics
from generators.training.images import TrainingImages, read_training_images
from labelers.ensemble.classifiers import channel_last, group_by_size
from labelers.regions.clusters import PIXELS, Clusters, fit_clusters, pixel_vectors
from labelers.regions.naming import match_regions
from train_seg.data.training_data import LabeledImages
from train_seg.evaluation.foreground import count_pairs, named_confusion, two_classes
from train_seg.evaluation.metrics import scores
from train_seg.network.segmenter import Segmenter

# What differs from the default; `plain` is no factorized model.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "pixels": {},
    "plain": {},
    "factorized": {},
    "published": {
        "padding": "zeros",
        "logit_std": 0.0,
        "masks_follow_signal": False,
        "balance": 0.0,
    },
    "concat": {"structure": "concat"},
    "masked_middle": {"structure": "masked_middle"},
    "unshared": {"structure": "unshared"},
}
# What a plain model shares with the factorized ones, beside its sizes.
OBJECTIVE = ("prediction", "offset_noise_std", "min_snr_gamma")
CLUSTERS = 3
CLUSTERED_IMAGES = 200  # whose pixels the centres are fitted on
# Of the embedded domain: no generator in the package was trained on these.
RENDERED = {
    "unlabeled": range(400_000, 402_000),
    "labeled": range(300_000, 300_024),
    "test": range(1_000_000, 1_000_200),
}


@dataclass(frozen=True)
class Settings:
    """What the cells of one table share."""

    data: str | None
    steps: int
    size: int
    channels: tuple[int, ...]
    batch_size: int
    foreground: tuple[str, ...]
    samples: int
    judge_steps: int
    encoder: str
    overrides: tuple[str, ...]
    device: str
    fid: Path | None

    @classmethod
    def of(cls, given: argparse.Namespace) -> Settings:
        data = None if given.data is None else str(given.data.resolve())
        return cls(
            *(data, given.steps, given.size, tuple(given.channels), given.batch_size),
            *(tuple(given.foreground), given.samples, given.judge_steps, given.encoder),
            *(tuple(given.overrides), given.device, given.fid),
        )

    def record(self) -> dict[str, Any]:
        """For JSON; the device may differ between cells."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("device", "fid")}
        return json.loads(json.dumps(kept))

    def training(self, structure: str, seed: int) -> DDPMTrainingConfig:
        """The settings of a training, equal but for the structure."""
        content: dict[str, Any] = {
            "image_size": self.size,
            "channels": self.channels,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "seed": seed,
        }
        kind: type[DDPMTrainingConfig] = FactorizedTrainingConfig
        if structure == "plain":
            kind, default = DDPMTrainingConfig, FactorizedTrainingConfig()
            content |= {name: getattr(default, name) for name in OBJECTIVE}
        return build_settings(
            kind, {**content, **VARIANTS[structure]}, self.overrides, "training settings"
        )


@dataclass(frozen=True)
class Material:
    """The images of a table, at the size of the networks."""

    out: Path
    settings: Settings
    unlabeled: TrainingImages
    labeled: Annotations
    test: Annotations

    @classmethod
    def prepare(cls, out: Path, settings: Settings, console: Console) -> Material:
        """Read the data, or render the embedded domain into `out`/data first."""
        folder = Path(settings.data) if settings.data else out / "data"
        with FileLock(out / "data.lock"):
            if settings.data is None and not (folder / "done").exists():
                console.print("rendering the embedded domain")
                for name, indices in RENDERED.items():
                    render_folder(folder / name, indices, settings.size)
                (folder / "done").touch()
        pictures = folder / "unlabeled"
        if (pictures / "images").is_dir():
            pictures = pictures / "images"
        size = (settings.size, settings.size)
        unlabeled = read_training_images(pictures, settings.size, out, lambda *_: None)
        labeled = read_annotations(folder / "labeled", size)
        test = read_annotations(folder / "test", size, labeled.classes)
        return cls(out, settings, unlabeled, labeled, test)

    @property
    def foreground(self) -> list[int]:
        return foreground_ids(self.settings.foreground, self.test.classes)

    def real(self, count: int) -> Tensor:
        """At most `count` of the unlabelled images, evenly spaced, uint8 `[N, 3, H, W]`."""
        total = len(self.unlabeled)
        rows = np.linspace(0, total - 1, min(count, total)).round().astype(int)
        return torch.from_numpy(np.array(self.unlabeled.pixels[rows]))

    @cached_property
    def judge(self) -> Segmenter:
        """A small U-Net trained on `labeled`, once for all cells."""
        data = self.labeled
        size = (self.settings.size, self.settings.size)
        config = unet_settings(compare_config([]), size, 0, self.settings.judge_steps)
        images = LabeledImages(data.images, data.masks, data.classes)
        with FileLock(self.out / "judge.lock"):
            return train_once(self.out / "judge", [images], config, device=self.settings.device)


# --- training --------------------------------------------------------------------------------


def train_cell(material: Material, structure: str, seed: int, console: Console) -> Path:
    """The folder of the generator of a cell, trained if it is not finished.

    `pixels` has none: its folder does not exist.
    """
    folder = material.out / "generators" / f"{structure}-seed-{seed}"
    if structure == "pixels":
        return folder
    config = material.settings.training(structure, seed)
    folder.mkdir(parents=True, exist_ok=True)
    progress: list[Callback] = [TrainingProgress(f"{structure}, seed {seed}", console, folder)]
    images, device = material.unlabeled, material.settings.device
    with naming_full_disk(folder):
        if isinstance(config, FactorizedTrainingConfig):
            factorized.train(images, folder, config, device=device, progress=progress)
        else:
            plain.train(images, folder, config, device=device, progress=progress)
    return folder


# --- what finds regions ----------------------------------------------------------------------


class Method(Protocol):
    """Finds regions `[N, H, W]` of photographs, and makes images with their regions."""

    @property
    def k(self) -> int: ...

    @property
    def batch_size(self) -> int:
        """Images that are handled at a time."""
        ...

    def find(self, images: Tensor, first: int) -> Tensor:
        """Of images uint8 `[N, 3, H, W]`, numbered from `first`."""
        ...

    def sample(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images uint8 `[N, 3, H, W]` and their regions."""
        ...


@dataclass(frozen=True)
class Factorized:
    """A factorized generator of any structure."""

    generator: FactorizedGenerator

    @property
    def k(self) -> int:
        return self.generator.regions

    @property
    def batch_size(self) -> int:
        return self.generator.batch_size

    def find(self, images: Tensor, first: int) -> Tensor:
        return self.generator.find_regions(images).argmax(1).cpu()

    def sample(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, maps = self.generator.sample(indices)
        return images.cpu(), maps[REGIONS_MAP].argmax(1).cpu()


@dataclass(frozen=True)
class Clustered:
    """DatasetDDPM-unsup: clusters of the features of a plain generator, or of another encoder."""

    encoder: Encoder
    clusters: Clusters
    k: int = CLUSTERS

    @property
    def batch_size(self) -> int:
        return self.encoder.batch_size

    @classmethod
    def fit(cls, encoder: Encoder, images: Tensor, seed: int) -> Clustered:
        """Centres on pixels of images uint8 `[N, 3, H, W]`."""
        spec, size, vectors = encoder.feature_spec, encoder.image_size, []
        for rows in batches(range(len(images)), encoder.batch_size):
            maps = encoder.encode(images[rows.start : rows.stop], rows).to("cpu")
            tables = channel_last(maps, group_by_size(spec))
            count = PIXELS * len(rows) // len(images)
            about = (size, range(len(rows)), count, seed + rows.start)
            vectors.append(pixel_vectors(tables, *about))
        return cls(encoder, fit_clusters(torch.cat(vectors), spec, CLUSTERS, seed))

    def find(self, images: Tensor, first: int) -> Tensor:
        maps = self.encoder.encode(images, range(first, first + len(images)))
        return self.clusters.regions(maps, self.encoder.image_size).argmax(1).cpu()

    def sample(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        assert isinstance(self.encoder, Generator)
        images, maps = self.encoder.sample(indices)
        return images.cpu(), self.clusters.regions(maps, self.encoder.image_size).argmax(1).cpu()


def load_method(material: Material, folder: Path, structure: str, seed: int) -> Method:
    settings = material.settings
    if structure in ("plain", "pixels"):
        encoder: Encoder
        if structure == "plain":
            encoder = generators.load(DDPMConfig(weights=str(folder)), settings.device)
        else:
            address = str(find_weights("--encoder", EMBEDDED["pixels"]))
            config = EncoderConfig(weights=address, image_size=settings.size)
            encoder = generators.load_encoder(config, settings.device)
        return Clustered.fit(encoder, material.real(CLUSTERED_IMAGES), seed)
    features = FactorizedFeatures(record="regions")
    factorized_config = FactorizedConfig(weights=str(folder), features=features)
    found = generators.load(factorized_config, settings.device)
    assert isinstance(found, FactorizedGenerator)
    return Factorized(found)


# --- measuring -------------------------------------------------------------------------------


def measure(material: Material, folder: Path, structure: str, seed: int) -> dict[str, Any]:
    """Everything about the generator in `folder`, for JSON."""
    method = load_method(material, folder, structure, seed)
    foreground, classes = material.foreground, material.test.classes
    counts = {
        name: torch.cat(list(_counted(method, data, len(classes))))
        for name, data in (("test", material.test), ("labeled", material.labeled))
    }
    scored = score_regions(counts["test"], classes, foreground, counts["labeled"])
    shares = counts["test"].sum((0, 2)).double()
    largest = float(shares.max() / shares.sum())
    found = {
        "structure": structure,
        "seed": seed,
        "regions": scored.to_dict(),
        "largest_region": largest,
        "collapsed": largest > COLLAPSED_SHARE,
    }
    if isinstance(method, Factorized):
        m = method.generator.find_regions(material.test.images[: method.batch_size])
        found["entropy"] = float(mask_statistics(m)["entropy"] / math.log(method.k))
    if structure == "pixels":
        return found  # makes no images
    images, regions = _samples(method, material.settings.samples)
    record = json.loads((folder / "training.json").read_text())
    return {
        **found,
        **_consistency(material, images, regions, method.k),
        **_likeness(material, images),
        "train_min": record["seconds"] / 60,
        "steps": record["steps"],
    }


def _counted(method: Method, data: Annotations, classes: int) -> Iterator[Tensor]:
    for rows in batches(range(len(data.images)), method.batch_size):
        part = slice(rows.start, rows.stop)
        regions = method.find(data.images[part], rows.start)
        yield count_pairs(regions, data.masks[part], method.k, classes)


def _samples(method: Method, count: int) -> tuple[Tensor, Tensor]:
    parts = [method.sample(rows) for rows in batches(range(count), method.batch_size)]
    images, regions = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(regions)


def _consistency(material: Material, images: Tensor, regions: Tensor, k: int) -> dict[str, Any]:
    """Shares of pixels of samples on which the judge and the regions agree after matching."""
    classes = material.test.classes
    counts = count_pairs(regions, material.judge.predict(images), k, len(classes))
    halves = two_classes(counts, material.foreground)
    found = {}
    for name, pairs, names in (
        ("consistency", halves, ("background", "foreground")),
        ("consistency_of_classes", counts, classes),
    ):
        confusion = named_confusion(pairs, match_regions(pairs.sum(0)))
        found[name] = scores(confusion, names).pixel_accuracy
    return found


def _likeness(material: Material, images: Tensor) -> dict[str, Any]:
    """How far samples are from the unlabelled images."""
    settings = material.settings
    real = material.real(len(images))
    address = str(find_weights("--encoder", settings.encoder))
    encoder = generators.load(DDPMConfig(weights=address), settings.device)

    def pooled(batch: Tensor) -> np.ndarray:
        parts = [
            encoder.encode(_at_size(batch[rows.start : rows.stop], encoder.image_size)).pooled()
            for rows in batches(range(len(batch)), encoder.batch_size)
        ]
        return np.concatenate(parts)

    found = compare(images, real, (pooled(images), pooled(real)))
    assert found.frechet is not None
    assert found.kernel is not None
    result = {
        "frechet_ratio": found.frechet.ratio,
        "frechet": asdict(found.frechet),
        "kernel": asdict(found.kernel),
        "differences": list(found.verdict),
    }
    if settings.fid is not None:
        every = material.real(len(material.unlabeled))
        result["fid"] = frechet_distance(
            _inception(images, settings.fid), _inception(every, settings.fid)
        )
    return result


def _at_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    x = F.interpolate(to_unit_range(images), size, mode="bilinear", antialias=True)
    return to_uint8(x)


@torch.inference_mode()
def _inception(images: Tensor, weights: Path) -> np.ndarray:
    """Features `[N, 2048]` of the Inception v3 of FID, by torch-fidelity."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise SystemExit("--fid needs torch-fidelity: pip install torch-fidelity") from None
    network = FeatureExtractorInceptionV3("inception", ["2048"], str(weights))
    return torch.cat([network(batch)[0] for batch in images.split(32)]).numpy()
