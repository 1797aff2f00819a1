"""The labeler artefact: what labels pixels, the class names, and the generator it is bound to.

There are two kinds of members, and a labeler has one or both: an ensemble of classifiers of the
generator's features, and segmentation networks that started from the generator's U-Net. Or it has
none, and takes the regions of a factorized generator, or clusters of features.

On disk: `labeler.safetensors` (the ensemble's tensors, those of network m under `network.m.`, and
those of clusters under `clusters.`) and `labeler.json` (a `LabelerInfo`), which carries the sha256
of the former and is written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from factory_core.storage import write_bytes
from factory_core.symmetries import Change, symmetries
from generators.base import REGIONS_MAP, Encoder, FeatureMaps
from labelers.config import Uncertainty, Vote
from labelers.ensemble.classifiers import Ensemble
from labelers.ensemble.inference import FoldedEnsemble
from labelers.ensemble.uncertainty import image_score, pixel_uncertainty
from labelers.ensemble.vote import elect, first_maximum, mean_probability
from labelers.info import (
    FORMAT_VERSION,
    INFO_FILE,
    MAKE_AGAIN,
    WEIGHTS_FILE,
    GeneratorInfo,
    LabelerInfo,
    describe,
    describe_members,
    read_file,
    read_info,
)
from labelers.network.networks import Networks
from labelers.regions.clusters import Clusters
from labelers.regions.naming import class_probabilities, resized

__all__ = ["INFO_FILE", "GeneratorInfo", "Labeler", "LabelerInfo", "Prediction"]

NETWORK_PREFIX, CLUSTERS_PREFIX = "network.", "clusters."
# What building networks from a wrong description, and loading weights into them, may raise.
FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Prediction:
    """Labels of N images.

    `mask` uint8 `[N, H, W]` class ids; `uncertainty` float32 `[N]`, nats, the mean of the
    int(H·W/10) most uncertain pixels; `pixel_uncertainty` float32 `[N, H, W]`, nats;
    `probabilities` float32 `[N, K, H, W]`, of the classes, if asked for.
    """

    mask: torch.Tensor
    uncertainty: torch.Tensor
    pixel_uncertainty: torch.Tensor
    probabilities: torch.Tensor | None = None


@dataclass(frozen=True)
class Labeler:
    """An ensemble of pixel classifiers, segmentation networks, or both, of one generator.

    It predicts in `dtype`: float32, or bfloat16 where the device multiplies it in hardware.
    bfloat16 changes fewer than one of the ensemble's labels in a thousand.

    With both, each of the two teachers has half of the say, whatever its number of members: class
    probabilities are the mean of the teachers'. Uncertainty is that of all members with these
    weights; it is the sum of the divergence between the teachers and the mean of that within each.

    >>> generator = Generator.load("package:factory.demo/generator", device="cpu", steps=2)
    >>> labeler = Labeler.load("labeler")
    >>> images, features = generator.sample([0, 1])
    >>> found = labeler.predict(images, features)
    >>> found.mask.shape, labeler.classes[3]
    (torch.Size([2, 64, 64]), 'nucleus')
    """

    ensemble: Ensemble | None
    info: LabelerInfo
    dtype: torch.dtype = torch.float32
    networks: Networks | None = None
    clusters: Clusters | None = None

    @staticmethod
    def of_regions(info: LabelerInfo, clusters: Clusters | None = None) -> Labeler:
        """A labeler without members: `info.regions` gives the class of each region.

        The regions are `clusters`, or else those of the generator.
        """
        return Labeler(None, info, clusters=clusters)

    @staticmethod
    def both(ensemble: Labeler, networks: Labeler) -> Labeler:
        """The labeler of two, trained on the same images; scores of the latter as `network_...`."""
        config = ensemble.info.config.model_copy(update={"kind": "both"})
        theirs = {f"network_{name}": score for name, score in networks.info.scores.items()}
        scores = {**ensemble.info.scores, **theirs}
        changes = {"config": config, "unet": networks.info.unet, "scores": scores}
        info = ensemble.info.model_copy(update=changes)
        return Labeler(ensemble.ensemble, info, ensemble.dtype, networks.networks)

    @property
    def classes(self) -> list[str]:
        """Class names in id order."""
        return self.info.classes

    @property
    def needs_features(self) -> bool:
        """Whether `predict` reads the generator's features; otherwise the images are enough."""
        return self.info.config.reads_features

    @property
    def needs_images(self) -> bool:
        """Whether `predict` reads the images; otherwise the features are enough."""
        return self.networks is not None

    @cached_property
    def _folded(self) -> FoldedEnsemble:
        assert self.ensemble is not None
        return FoldedEnsemble(self.ensemble, self.dtype)

    @cached_property
    def _weights(self) -> torch.Tensor | None:
        """The weight of each member, `[M]`; None if they are equal."""
        if self.ensemble is None or self.networks is None:
            return None
        counts = (self.ensemble.members, len(self.networks.nets))
        weights = [1 / (2 * count) for count in counts for _ in range(count)]
        return torch.tensor(weights, device=self._folded.device)

    @torch.no_grad()
    def predict(
        self,
        images: torch.Tensor | None,
        features: FeatureMaps | None = None,
        size: tuple[int, int] | None = None,
        vote: Vote | None = None,
        uncertainty: Uncertainty | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Masks and uncertainty at `size` (H, W; default that of training), on the CPU.

        Networks read `images` uint8 `[N, 3, H, W]`, of the size in training, and the ensemble reads
        `features`, both on any device; what the labeler does not read may be None. `vote` and
        `uncertainty` override the configured ones; `vote` applies to an ensemble alone, others take
        the class of the highest mean probability. Raises ValueError if images or features differ
        from those in training.
        """
        count = self._check_input(images, features)
        vote = vote or self.info.config.vote
        uncertainty = uncertainty or self.info.config.uncertainty
        size = size or self.info.image_size
        if self.info.regions is not None:
            assert features is not None
            return self._name(self.regions(features, size), self.info.regions, probabilities)
        device, weights = self._device, self._weights
        shape = (count, size[0] * size[1])
        mask = torch.empty(shape, dtype=torch.uint8, device=device)
        maps = torch.empty(shape, device=device)
        p = None
        if probabilities:
            p = torch.empty(count, len(self.classes), shape[1])
        for run, pixels, logits in self._logits(images, features, size):
            place = maps[run, pixels]
            place.copy_(pixel_uncertainty(logits, uncertainty, weights).view(place.shape))
            if p is not None or self.networks is not None:
                mean = mean_probability(logits, weights)
                if p is not None:
                    part = mean.unflatten(1, place.shape).transpose(0, 1)
                    p[run, :, pixels] = part.cpu()
            found = elect(logits, vote) if self.networks is None else first_maximum(mean)
            mask[run, pixels].copy_(found.view(place.shape))
        maps = maps.view(-1, *size).cpu()
        p = None if p is None else p.view(*p.shape[:2], *size)
        return Prediction(mask.view(-1, *size).cpu(), image_score(maps), maps, p)

    def regions(self, features: FeatureMaps, size: tuple[int, int]) -> torch.Tensor:
        """The masks m float32 `[N, K, H, W]` of the regions, before they are named."""
        if self.clusters is not None:
            return self.clusters.regions(features, size)
        return resized(features[REGIONS_MAP], size)

    def _name(self, m: torch.Tensor, class_of: Sequence[int], probabilities: bool) -> Prediction:
        """The prediction of masks `[N, K, H, W]`; its uncertainty is their entropy."""
        p = class_probabilities(m, class_of, len(self.classes))
        mask = first_maximum(p.flatten(2)).view(len(m), *m.shape[-2:]).to(torch.uint8)
        maps = torch.special.entr(m).sum(1).cpu()
        return Prediction(mask.cpu(), image_score(maps), maps, p.cpu() if probabilities else None)

    @property
    def _device(self) -> torch.device:
        return self._folded.device if self.networks is None else self.networks.device

    def _logits(
        self, images: torch.Tensor | None, features: FeatureMaps | None, size: tuple[int, int]
    ) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Runs of images, runs of their pixels, all members' logits, float32 `[M, K, N·pixels]`."""
        if self.networks is None:
            assert features is not None
            yield from self._folded.logits(features, size)
            return
        assert images is not None
        seen = enumerate(self.networks.logits(images, size, self.dtype, self._views(images)))
        if self.ensemble is None:
            for image, logits in seen:
                yield slice(image, image + 1), slice(None), logits
            return
        assert features is not None
        number, theirs = -1, torch.empty(0)
        for run, pixels, ours in self._folded.logits(features, size, at_once=1):
            if run.start != number:
                number, theirs = next(seen)
            yield run, pixels, torch.cat([ours, theirs[:, :, pixels]])

    def _views(self, images: torch.Tensor) -> list[tuple[Change, Change]]:
        """The changes of an image over which the networks' predictions are averaged."""
        training = self.info.config.network
        if not training.averaged:
            return symmetries()
        is_square = images.shape[-1] == images.shape[-2]
        return symmetries(training.flips, training.flips, training.quarter_turns and is_square)

    def _check_input(self, images: torch.Tensor | None, features: FeatureMaps | None) -> int:
        """The number of images; raises ValueError as `predict`."""
        counts = set()
        if self.needs_features:
            found = () if features is None else features.spec
            if set(found) != set(self.info.features):
                raise ValueError(
                    f"the labeler reads feature maps {describe(self.info.features)}, "
                    f"found {describe(found) or 'none'}"
                )
            assert features is not None
            counts.add(features.batch_size)
        if self.networks is not None:
            size = None if images is None else tuple(images.shape[-2:])
            if images is None or size != self.info.image_size:
                raise ValueError(
                    f"the labeler reads images of {self.info.image_size}, found {size}"
                )
            counts.add(len(images))
        if len(counts) > 1:
            raise ValueError(f"found images and features of different numbers: {sorted(counts)}")
        return counts.pop()

    def check(self, generator: Encoder) -> None:
        """Raise ValueError, naming both, unless `generator` is the one used in training."""
        if self.needs_features:
            self._check_features(generator)
        if self.info.generator.digest != generator.digest:
            raise ValueError(
                f"the labeler belongs to generator {self.info.generator.digest[:12]} "
                f"(weights {self.info.generator.config.get('weights', 'unknown')}), found "
                f"generator {generator.digest[:12]}: use that one, or train a labeler on this one"
            )

    def _check_features(self, generator: Encoder) -> None:
        """Raise ValueError, naming both, if `generator` has different features or settings."""
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

    def save(self, folder: str | Path) -> None:
        """Write the artefact into `folder`, created if missing; raises OSError.

        Each file is written atomically, the description last.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, torch.Tensor] = {}
        if self.ensemble is not None:
            state |= self.ensemble.state_dict()
        if self.networks is not None:
            state |= {f"{NETWORK_PREFIX}{k}": t for k, t in self.networks.state_dict().items()}
        if self.clusters is not None:
            state |= {f"{CLUSTERS_PREFIX}{k}": t for k, t in self.clusters.state().items()}
        weights = save({k: t.detach().cpu().contiguous() for k, t in state.items()})
        sha256 = hashlib.sha256(weights).hexdigest()
        changes = {"weights_sha256": sha256, "format_version": FORMAT_VERSION}
        info = self.info.model_copy(update=changes)
        unknown: dict[str, Any] = {}  # to older versions
        if info.regions is None:
            unknown["regions"] = True
        if info.config.kind != "clusters":
            unknown["config"] = {"clusters"}
        write_bytes(folder / WEIGHTS_FILE, weights)
        content = info.model_dump_json(indent=1, exclude=unknown) + "\n"
        write_bytes(folder / INFO_FILE, content.encode())

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
        info = read_info(folder / INFO_FILE)
        weights = read_file(folder / WEIGHTS_FILE)
        if hashlib.sha256(weights).hexdigest() != info.weights_sha256:
            raise ValueError(
                f"{folder / WEIGHTS_FILE} is damaged or does not belong to {INFO_FILE} "
                f"(sha256 differs): {MAKE_AGAIN}"
            )
        state = load(weights)
        try:
            clusters = _take_clusters(info, state)
            ensemble, networks = _load_members(info, state)
        except FAULTS:  # several lines of tensor names and shapes
            raise ValueError(
                f"{folder / INFO_FILE} ({describe_members(info)}) does not describe "
                f"{WEIGHTS_FILE}: {MAKE_AGAIN}"
            ) from None
        where = torch.device(device)
        return cls(
            None if ensemble is None else ensemble.eval().to(where),
            info,
            dtype,
            None if networks is None else networks.to(where),
            clusters,
        )


def _take_clusters(info: LabelerInfo, state: dict[str, torch.Tensor]) -> Clusters | None:
    """The clusters that `info` describes, taken out of `state`; raises `FAULTS`."""
    if info.config.kind != "clusters":
        return None
    weight, bias = (state.pop(f"{CLUSTERS_PREFIX}{name}") for name in ("weight", "bias"))
    channels = sum(m.channels for m in info.features)
    if info.regions is None or weight.shape != (len(info.regions), channels):
        raise ValueError("clusters of other features")
    return Clusters(info.features, weight, bias.view(len(weight)))


def _load_members(
    info: LabelerInfo, state: Mapping[str, torch.Tensor]
) -> tuple[Ensemble | None, Networks | None]:
    """The members that `info` describes, with weights; raises `FAULTS` if they do not fit."""
    config, classes = info.config, len(info.classes)
    own = {k: t for k, t in state.items() if not k.startswith(NETWORK_PREFIX)}
    other = {k.removeprefix(NETWORK_PREFIX): t for k, t in state.items() if k not in own}
    ensemble = networks = None
    if config.has_ensemble:
        ensemble = Ensemble(info.features, classes, config.hidden_for(classes), config.members)
        ensemble.load_state_dict(own)
    if config.has_network:
        if info.unet is None:
            raise ValueError("networks without a U-Net")
        networks = Networks.untrained(info.unet, classes, config.network.members)
        networks.load_state_dict(other)
    if config.has_regions != (info.regions is not None):
        raise ValueError("regions of another kind of labeler")
    if (own and not config.has_ensemble) or (other and not config.has_network):
        raise RuntimeError("weights of a kind that the labeler has not")
    return ensemble, networks


def _at(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """The value of a dotted key; `default` if an older version recorded none."""
    for part in key.split("."):
        if part not in config:
            return default
        config = config[part]
    return config
