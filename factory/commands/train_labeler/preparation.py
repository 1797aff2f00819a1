"""What all labeler trainings start from: generator, annotations, features, the U-Net."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from factory.annotation.encoding import encode_batch
from factory.annotation.sample_features import features_of_samples, match_samples
from factory.annotation.samples import find_samples, load_encoder, load_generator
from factory.recipe import find_weights
from factory.reports.projection import quality
from factory.terminal.notes import print_notes
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory.terminal.text import byte_size
from factory_core.dataset import canonical_json, default_palette
from factory_core.machine import disk_free_bytes
from factory_core.pictures import remembered

if TYPE_CHECKING:
    from factory.recipe import Recipe
    from factory_core.annotated.annotations import Annotations
    from factory_core.segmentation_unet import UNetDescription
    from generators.base import Encoder, FeatureMaps, Generator
    from generators.config import GeneratorConfig
    from labelers.labeler import Labeler
    from labelers.network.trainer import NetworkTrainer
    from labelers.training.budget import Budget
    from labelers.training.feature_store import FeatureStore
    from labelers.training.trainer import Report

CHECKPOINT_NAME, NETWORK_CHECKPOINT = "checkpoint.safetensors", "networks.checkpoint.safetensors"


@dataclass(frozen=True)
class LabelerJob:
    """The input of `train-labeler`; `labeled` may select some images of its folder."""

    recipe: Recipe
    labeled: Path
    out: Path
    device: str
    console: Console


class Preparation:
    """The generator and the annotations of a job, and the description of its labeler."""

    def __init__(self, job: LabelerJob):
        from factory_core.annotated.annotations import read_annotations
        from factory_core.device import pick_device, pick_dtype
        from generators.encoders.paired import maker_of
        from labelers.labeler import GeneratorInfo, LabelerInfo
        from labelers.training.fit import check

        quiet_libraries()
        recipe, self.console = job.recipe, job.console
        self.device = pick_device(job.device)
        config = recipe.labeler
        self.dtype = pick_dtype(config.training.precision, self.device)
        self.network_dtype = pick_dtype(config.network.precision, self.device)
        self.folder, self.samples = find_samples(job.labeled)
        wanted = with_regions(recipe.generator) if config.kind == "regions" else recipe.generator
        self.generator: Encoder
        if self.samples is None:
            option = "--encoder" if wanted.kind == "encoder" else "--generator"
            self.generator, recorded = load_encoder(option, wanted, job.device)
        else:
            maker, recorded = load_generator("--generator", wanted, job.device)
            self.samples.check(self.folder, maker_of(maker).digest, recipe.generator)
            self.generator = maker
        print_notes(self.console, getattr(self.generator, "notes", ()))
        self.start = describe_unet(self.generator) if config.has_network else None
        self.sample_batch = recipe.generator.batch_size
        self.psnr: list[float] = []  # of the projected images, dB
        size, weights = self.generator.image_size, recipe.generator.weights
        pictures = recipe.pictures.over(remembered(find_weights("--generator", weights)))
        self.annotations: Annotations = read_annotations(
            job.labeled, size, recipe.classes, pictures
        )
        self.console.print(self._found())
        print_notes(self.console, self.annotations.notes)
        # Faults in them are reported now, not after hours of encoding.
        check(self.annotations.masks, len(self.annotations.classes), config)
        if self.samples is not None:
            self.annotations = match_samples(self.annotations, self.folder, self.samples, maker)
        self.info = LabelerInfo(
            classes=self.annotations.classes,
            palette=_palette(recipe, self.annotations),
            features=self.generator.feature_spec if config.reads_features else (),
            generator=GeneratorInfo(
                digest=self.generator.digest, config=recorded.model_dump(mode="json")
            ),
            image_size=size,
            data_digest=self.annotations.digest,
            config=config.model_copy(update={"weights": None}),
        )

    def _found(self) -> str:
        """The annotated images and their classes, in one line."""
        names = self.annotations.classes
        of = "" if self.samples is None else f" of {len(self.samples.images)} samples"
        return f"{self.images} annotated images{of}, {len(names)} classes: {', '.join(names)}"

    @property
    def images(self) -> int:
        """The number of annotated images."""
        return len(self.annotations.stems)

    @property
    def encode_batch(self) -> int:
        """Images encoded, or sampled again, per batch."""
        if self.samples is not None:
            return self.sample_batch
        return encode_batch(self.info.features, self.sample_batch)

    def budget(self) -> Budget:
        """The disk and memory that the training needs."""
        if not self.info.config.has_network:
            return self.ensemble_budget()
        if not self.info.config.has_ensemble:
            return self.network_budget()
        return self.ensemble_budget() + self.network_budget()

    def ensemble_budget(self) -> Budget:
        """The share of the ensemble."""
        from labelers.training.budget import budget

        info = self.info
        of_data = (info.features, self.images, info.image_size, len(info.classes))
        return budget(*of_data, info.config, self.dtype)

    def network_budget(self) -> Budget:
        """The share of the networks, activations left out."""
        from labelers.network.fit import network_budget

        assert self.start is not None
        return network_budget(self.start, self.info.config.network)

    def network_trainer(self) -> NetworkTrainer:
        """What trains the networks, to measure its speed."""
        from labelers.network.fit import network_trainer

        assert self.start is not None
        images, masks = self.annotations.images, self.annotations.masks
        return network_trainer(
            *(images, masks, self.start, self.info.config, len(self.info.classes)),
            *(self.device, self.network_dtype),
        )

    def store(self, folder: Path) -> FeatureStore:
        """The features in `folder`, complete or not."""
        from labelers.training.feature_store import FeatureStore

        info = self.info
        inputs = [info.generator.digest, info.generator.config, info.data_digest]
        source = hashlib.sha256(canonical_json(inputs)).hexdigest()
        dtype = info.config.feature_dtype
        return FeatureStore(folder, info.features, self.images, dtype, source)

    def encode(self, folder: Path) -> FeatureStore | None:
        """Write the features of all images to `folder`; existing ones are kept.

        None if the labeler needs no features. Releases the generator, which may take more memory
        than everything else.
        """
        if not self.info.config.reads_features:
            _refuse_full_disk(folder, self.budget(), 1)
            del self.generator
            return None
        store, images = self.store(folder), self.annotations.images
        if store.written < len(images):
            _refuse_full_disk(folder, self.budget(), store.written / len(images))
            verb = "encoding" if self.samples is None else "sampling again"
            with ProgressLine(verb, "images", len(images), self.console, folder) as line:
                for start in range(store.written, len(images), self.encode_batch):
                    rows = range(start, min(start + self.encode_batch, len(images)))
                    store.append(self.features(rows, line.update))
                    line.update(rows.stop)
        if self.psnr:
            self.console.print(quality(self.psnr, self.annotations.stems[-len(self.psnr) :]))
        del self.generator
        return store

    def features(self, rows: range, report: Callable[[int], None] = lambda _: None) -> FeatureMaps:
        """Features of the images `rows`, as `generate` or `label` will see them.

        `report` is called with the number of finished images if a batch takes long.
        """
        from generators.base import Projecting

        if self.samples is not None:  # recorded during sampling
            maker = cast("Generator", self.generator)
            return features_of_samples(self.annotations, rows, maker, self.folder)
        images = self.annotations.images[rows.start : rows.stop]
        if not isinstance(self.generator, Projecting):
            return self.generator.encode(images, rows)
        found = self.generator.project(images, lambda done: report(rows.start + int(done)))
        self.psnr += found.psnr.tolist()
        return self.generator.features_at(found.latents)

    def fit(
        self, store: FeatureStore | None, annotations: Annotations, folder: Path, title: str
    ) -> Labeler:
        """Train on `annotations`: those of the job, with some of the masks possibly blanked.

        `folder` is for checkpoints to resume from, see `remove_checkpoints`; `title` is the start
        of the progress line.
        """
        from labelers.labeler import Labeler
        from labelers.network.fit import fit_network
        from labelers.training.fit import fit

        info, found = self.info, []
        about: dict[str, Any] = {
            "classes": info.classes,
            "generator": info.generator,
            "data_digest": annotations.digest,
            "palette": info.palette,
            "device": self.device,
        }
        if info.config.has_regions:
            from labelers.regions.fit import fit_regions

            assert store is not None
            del about["device"]
            return fit_regions(store, annotations.masks, info.config, **about)
        if store is not None:
            with self._progress(title) as about["progress"]:
                about |= {"dtype": self.dtype, "checkpoint": folder / CHECKPOINT_NAME}
                found.append(fit(store, annotations.masks, info.config, **about))
        if self.start is not None:
            with self._progress(f"{title}, networks") as about["progress"]:
                about |= {"dtype": self.network_dtype, "checkpoint": folder / NETWORK_CHECKPOINT}
                images, masks = annotations.images, annotations.masks
                found.append(fit_network(images, masks, self.start, info.config, **about))
        return found[0] if len(found) == 1 else Labeler.both(*found)

    @contextmanager
    def _progress(self, title: str) -> Iterator[Callable[[Report], None]]:
        """What shows the reports of a training on one progress line."""
        with ProgressLine(title, "steps", 1, self.console) as line:

            def show(report: Report) -> None:
                line.update(report.step, self._status(report), report.total)

            yield show

    def _status(self, report: Report) -> str:
        """Loss and accuracy; in a log, which has room, also the range over the members."""
        mean = sum(report.accuracy) / len(report.accuracy)
        each = f"{min(report.accuracy):.3f} to {max(report.accuracy):.3f}"
        if not self.console.is_terminal:
            each = " ".join(f"{accuracy:.3f}" for accuracy in report.accuracy)
        return f"loss {report.loss:.4f}  accuracy {mean:.3f} (members {each})"


def with_regions(config: GeneratorConfig) -> GeneratorConfig:
    """The settings of a factorized generator that gives its regions and nothing else.

    Raises FileNotFoundError if nothing is there, ValueError for other kinds.
    """
    find_weights("--generator", config.weights)
    if config.kind != "factorized":
        raise ValueError(
            f"--kind regions: found a generator of kind '{config.kind}', expected one of "
            "`train-generator --kind factorized`"
        )
    features = config.features.model_copy(update={"record": "regions"})
    return config.model_copy(update={"features": features})


def describe_unet(generator: Encoder) -> UNetDescription:
    """The generator's U-Net; raises ValueError if it has none that can be fine-tuned."""
    from generators.base import Finetunable

    if not isinstance(generator, Finetunable):
        raise ValueError(
            "found a generator without a U-Net to fine-tune, expected a diffusion model: give "
            "--kind ensemble, or a diffusion generator (--generator DIR)"
        )
    return generator.describe_unet()


def remove_checkpoints(folder: Path) -> None:
    """Remove what `Preparation.fit` left in `folder` to resume from; idempotent."""
    for name in (CHECKPOINT_NAME, NETWORK_CHECKPOINT):
        (folder / name).unlink(missing_ok=True)


def _palette(recipe: Recipe, annotations: Annotations) -> list[list[int]]:
    if recipe.palette is not None:
        return [list(colour) for colour in recipe.palette]
    return annotations.palette or default_palette(len(annotations.classes))


def _refuse_full_disk(folder: Path, needed: Budget, written: float) -> None:
    """Raise ValueError if the disk cannot hold the job; `written` is the share of features done."""
    missing = (1 - written) * needed.features_bytes + 2 * needed.checkpoint_bytes
    free = disk_free_bytes(folder)
    if missing > free:
        raise ValueError(
            f"{folder}: features and checkpoint need {byte_size(missing)}, found "
            f"{byte_size(free)} free: free some space, or give an --out on another disk"
        )
