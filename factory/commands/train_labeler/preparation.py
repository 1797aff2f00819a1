"""The labeler job: encode the annotated images, train the ensemble, write it; resumes.

    DIR/labeler.safetensors, labeler.json   the result, which replaces what is there before it:
        unfinished.json                     the settings of the run
        features/                           the features of the annotated images, as far as made
        checkpoint.safetensors              where training goes on

What a run of other settings left there is never mixed with this one: it is refused.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.annotation.sample_features import features_of_samples, pair
from factory.annotation.samples import find_samples, load_generator
from factory.commands.train_deeplab.job import ENCODE_BATCH
from factory.locking.lock import exclusive
from factory.recipe.recipe import diff
from factory.reports.projection import quality
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory.terminal.text import duration
from factory_core.dataset import canonical_json, default_palette, write_json
from factory_core.output_folder import contents

if TYPE_CHECKING:
    from factory.recipe.recipe import Recipe
    from factory_core.annotated.annotations import Annotations
    from generators.base import FeatureMaps
    from labelers.labeler import Labeler, LabelerInfo
    from labelers.training.budget import Budget
    from labelers.training.feature_store import FeatureStore
    from labelers.training.trainer import Report

FEATURES_DIR = "features"
CHECKPOINT_NAME = "checkpoint.safetensors"
UNFINISHED_NAME = "unfinished.json"
FOLDS_NAME = "folds.json"
ENCODE_BYTES = 2**28  # float32 features of a batch of images at most: two of the LSUN setting
GIB = 2**30


@dataclass(frozen=True)
class LabelerJob:
    """What `train-labeler` was given."""

    recipe: Recipe
    labeled: Path
    out: Path
    device: str
    console: Console


class Preparation:
    """The generator and the annotations of a job, and what its labeler will say of itself."""

    def __init__(self, job: LabelerJob):
        from factory_core.annotated.annotations import read_annotations
        from factory_core.device import pick_device, pick_dtype
        from labelers.labeler import GeneratorInfo, LabelerInfo
        from labelers.training.fit import check

        quiet_libraries()
        recipe, self.console = job.recipe, job.console
        self.device = pick_device(job.device)
        self.dtype = pick_dtype(recipe.labeler.training.precision, self.device)
        self.folder, self.samples = find_samples(job.labeled)
        self.generator, noted = load_generator("--generator", recipe.generator, job.device)
        self.sample_batch = recipe.generator.batch_size
        self.psnr: list[float] = []  # of the images that are searched for, dB
        if self.samples is not None:
            self.samples.check(self.folder, self.generator.digest, recipe.generator)
        size = self.generator.image_size
        self.annotations: Annotations = read_annotations(job.labeled, size, recipe.classes)
        self.console.print(self._found())
        # What is wrong with them is told now, not after hours of encoding.
        check(self.annotations.masks, len(self.annotations.classes), recipe.labeler)
        if self.samples is not None:
            self.annotations = pair(self.annotations, self.folder, self.samples, self.generator)
        self.info = LabelerInfo(
            classes=self.annotations.classes,
            palette=_palette(recipe, self.annotations),
            features=self.generator.feature_spec,
            generator=GeneratorInfo(
                digest=self.generator.digest, config=noted.model_dump(mode="json")
            ),
            image_size=size,
            data_digest=self.annotations.digest,
            config=recipe.labeler.model_copy(update={"weights": None}),
        )

    def _found(self) -> str:
        """What there is to learn from, in one line."""
        names = self.annotations.classes
        of = "" if self.samples is None else f" of {len(self.samples.images)} samples"
        return f"{self.images} annotated images{of}, {len(names)} classes: {', '.join(names)}"

    @property
    def images(self) -> int:
        """How many annotated images there are."""
        return len(self.annotations.stems)

    @property
    def encode_batch(self) -> int:
        """How many images are encoded, or sampled again, at once."""
        if self.samples is not None:
            return self.sample_batch
        image_bytes = 4 * sum(m.channels * m.height * m.width for m in self.info.features)
        return max(1, min(self.sample_batch, ENCODE_BATCH, ENCODE_BYTES // image_bytes))

    def budget(self) -> Budget:
        """What the training takes."""
        from labelers.training.budget import budget

        info = self.info
        return budget(
            *(info.features, self.images, info.image_size, len(info.classes)),
            *(info.config, self.dtype),
        )

    def store(self, folder: Path) -> FeatureStore:
        """The features in `folder`, as far as they are there."""
        from labelers.training.feature_store import FeatureStore

        info = self.info
        made_of = [info.generator.digest, info.generator.config, info.data_digest]
        source = hashlib.sha256(canonical_json(made_of)).hexdigest()
        dtype = info.config.feature_dtype
        return FeatureStore(folder, info.features, self.images, dtype, source)

    def encode(self, folder: Path) -> FeatureStore:
        """The features of all images, in `folder`; what is there is not made again.

        Gives the generator up, which may be larger than all the rest.
        """
        store, images = self.store(folder), self.annotations.images
        if store.written < len(images):
            _refuse_full_disk(folder, self.budget(), store.written / len(images))
            verb = "encoding" if self.samples is None else "sampling again"
            with ProgressLine(verb, "images", len(images), self.console) as line:
                for start in range(store.written, len(images), self.encode_batch):
                    rows = range(start, min(start + self.encode_batch, len(images)))
                    store.append(self.features(rows, line.update))
                    line.update(rows.stop)
        if self.psnr:
            self.console.print(quality(self.psnr, self.annotations.stems[-len(self.psnr) :]))
        del self.generator
        return store

    def features(self, rows: range, tell: Callable[[int], None] = lambda _: None) -> FeatureMaps:
        """Features of some images, as `generate` or `label` will see them.

        `tell` hears how many images are done where one batch takes long.
        """
        from generators.base import Projecting

        if self.samples is not None:  # those of the sampling itself
            return features_of_samples(self.annotations, rows, self.generator, self.folder)
        images = self.annotations.images[rows.start : rows.stop]
        if not isinstance(self.generator, Projecting):
            return self.generator.encode(images, rows)
        found = self.generator.project(images, lambda done: tell(rows.start + int(done)))
        self.psnr += found.psnr.tolist()
        return self.generator.features_at(found.latents)

    def fit(
        self, store: FeatureStore, annotations: Annotations, checkpoint: Path, title: str
    ) -> Labeler:
        """Train on `annotations`: those of the job, of which some may be blanked."""
        from labelers.training.fit import fit

        with ProgressLine(title, "steps", 1, self.console) as line:

            def show(report: Report) -> None:
                line.update(report.step, self._status(report), report.total)

            return fit(
                store,
                annotations.masks,
                self.info.config,
                classes=self.info.classes,
                generator=self.info.generator,
                data_digest=annotations.digest,
                palette=self.info.palette,
                device=self.device,
                dtype=self.dtype,
                checkpoint=checkpoint,
                progress=show,
            )

    def _status(self, report: Report) -> str:
        """Loss and accuracy; in a log, where there is room, the accuracy of every member."""
        mean = sum(report.accuracy) / len(report.accuracy)
        each = f"{min(report.accuracy):.3f} to {max(report.accuracy):.3f}"
        if not self.console.is_terminal:
            each = " ".join(f"{accuracy:.3f}" for accuracy in report.accuracy)
        return f"loss {report.loss:.4f}  accuracy {mean:.3f} (members {each})"


def _palette(recipe: Recipe, annotations: Annotations) -> list[list[int]]:
    if recipe.palette is not None:
        return [list(colour) for colour in recipe.palette]
    return annotations.palette or default_palette(len(annotations.classes))


def _refuse_full_disk(folder: Path, needed: Budget, written: float) -> None:
    """Tell now what would fail after hours; `written` is the part of the features there is."""
    missing = (1 - written) * needed.features_bytes + 2 * needed.checkpoint_bytes
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise ValueError(
            f"{folder}: features and checkpoint need {missing / GIB:.1f} GiB, found "
            f"{free / GIB:.1f} GiB free: free some space, or give an --out on another disk"
        )


def settings_of(info: LabelerInfo, folds: dict[str, int] | None = None) -> dict[str, Any]:
    """What two runs in one folder must agree on, by the names that a user knows."""
    content = info.model_dump(mode="json")
    generator = content["generator"]
    return {
        "folds": folds,
        "annotations": info.data_digest,
        "classes": content["classes"],
        "palette": content["palette"],
        "features": content["features"],
        # Where the weights are does not matter, what they are does.
        "generator": {**generator["config"], "weights": generator["digest"]},
        "labeler": content["config"],
    }


def read_json(path: Path) -> dict[str, Any]:
    """What an earlier run noted in `path`; raises ValueError if that is damaged."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise ValueError(f"{path} is damaged: delete its folder to train anew") from None


def begin(folder: Path, settings: dict[str, Any]) -> None:
    """Claim `folder` for a run; raise ValueError, naming the fields, if it is of another."""
    from labelers.labeler import INFO_FILE, Labeler

    if (folder / INFO_FILE).is_file():
        found = settings_of(Labeler.load(folder).info)
    elif (folder / FOLDS_NAME).is_file():
        found = read_json(folder / FOLDS_NAME)["settings"]
    elif (folder / UNFINISHED_NAME).is_file():
        found = read_json(folder / UNFINISHED_NAME)
    elif foreign := contents(folder):
        raise ValueError(
            f"--out {folder} holds no labeler but {foreign[0]}: give a new or empty folder"
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / UNFINISHED_NAME, settings)
        return
    if different := diff(found, settings):
        raise ValueError(
            f"{folder} holds a labeler with other settings ({', '.join(different)}): give another "
            "--out, or delete it"
        )


def train_labeler(job: LabelerJob) -> None:
    """Train the ensemble on an annotated folder and write it to `job.out`.

    Raises ValueError if the folder is of a training with other settings, naming those.
    """
    from labelers.labeler import INFO_FILE, Labeler

    prepared = Preparation(job)
    with exclusive(job.out):
        begin(job.out, settings_of(prepared.info))
        if (job.out / INFO_FILE).is_file():
            info = Labeler.load(job.out).info
        else:
            store = prepared.encode(job.out / FEATURES_DIR)
            checkpoint = job.out / CHECKPOINT_NAME
            labeler = prepared.fit(store, prepared.annotations, checkpoint, "training")
            labeler.save(job.out)
            info = labeler.info
        clean(job.out, prepared)
    job.console.print(
        f"labeler in {job.out} (training accuracy {info.scores['train_accuracy']:.3f}, "
        f"{info.scores['steps']:.0f} steps)"
    )


def clean(folder: Path, prepared: Preparation) -> None:
    """Remove what a finished run does not need; idempotent."""
    features = folder / FEATURES_DIR
    if features.is_dir() and not prepared.info.config.keep_features:
        prepared.store(features).delete()
    for name in (CHECKPOINT_NAME, UNFINISHED_NAME):
        (folder / name).unlink(missing_ok=True)


def dry_run(job: LabelerJob) -> None:
    """Print what the job would take, after encoding one batch of images; write nothing."""
    prepared = Preparation(job)
    config, needed = prepared.info.config, prepared.budget()
    rows = range(min(prepared.encode_batch, prepared.images))
    for _ in range(2):  # the first batch is slow for reasons that do not last
        began = time.perf_counter()
        prepared.features(rows)
        encode_sec = (time.perf_counter() - began) / len(rows) * prepared.images
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_gib = peak * (1 if sys.platform == "darwin" else 1024) / GIB
    existing = next(p for p in [job.out.resolve(), *job.out.resolve().parents] if p.exists())
    channels = sum(m.channels for m in prepared.info.features)
    hidden = " and ".join(map(str, config.hidden_for(len(prepared.info.classes))))
    kept = "kept" if config.keep_features else "deleted afterwards"
    features_gib = needed.features_bytes / GIB
    job.console.print(
        f"{config.members} members, {channels} channels, {hidden} hidden units: "
        f"{needed.weights / 1e6:.1f} M weights, {config.training.kind} training\n"
        f"disk: {features_gib:.2f} GiB of features ({config.feature_dtype}, {kept}) and "
        f"{needed.checkpoint_bytes / GIB:.2f} GiB of checkpoint; "
        f"{shutil.disk_usage(existing).free / GIB:.0f} GiB free\n"
        f"memory: {peak_gib:.1f} GiB while encoding (about {duration(encode_sec)}), then "
        f"{needed.working_bytes / GIB:.2f} GiB to train, and as much of the {features_gib:.2f} GiB "
        "of features as the system has room for"
    )
