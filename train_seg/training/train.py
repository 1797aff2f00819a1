"""Training a segmenter: from dataset folders to a folder that `Segmenter.load` reads.

OUT/model.safetensors, model.json   the segmenter, written at the end
    training.json                   settings and digests, which a resumed run must share
    checkpoints/                    last.ckpt, best.safetensors; checkpoints-then/: second stage
    curves.csv, curves.png, tensorboard/        loss and mIoU over the steps
    panels/                         images, truth and predictions after each round
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from factory_core.dataset import default_palette
from factory_core.device import pick_device
from factory_core.storage import naming_full_disk
from train_seg.config import SegmenterConfig
from train_seg.data.augment import Augment
from train_seg.data.foreign import ForeignTars
from train_seg.data.samples import Size, check_ids
from train_seg.data.training_data import LabeledImages, TrainingData, open_training_data
from train_seg.network.network import Network, check_sizes
from train_seg.network.pretrained import (
    describe_weights,
    settle_encoder_weights,
    weights_identity,
)
from train_seg.network.segmenter import Segmenter
from train_seg.network.sizes import settle_sizes
from train_seg.network.start import Start, build_from, settle_start, start_digest, start_size
from train_seg.training.curves import write_plot
from train_seg.training.folder import LENGTH, prepare_folder
from train_seg.training.module import Place, SegmenterModule
from train_seg.training.parallel import barrier, rank, synchronise
from train_seg.training.plan import is_continuation, pick_num_workers, then_config
from train_seg.training.stage import Runner, Stage, Together

TENSORBOARD_DIRS = ("tensorboard", "tensorboard-then")  # of each stage

Data = Sequence[str | Path | LabeledImages | ForeignTars]


def train(
    data: Data,
    out: str | Path,
    config: SegmenterConfig,
    val: LabeledImages | None = None,
    *,
    then: Data = (),
    mix: Sequence[float] | None = None,
    init: Start | None = None,
    device: str = "auto",
    wandb: bool = False,
    callbacks: Sequence[Callback] = (),
    together: Together | None = None,
) -> Segmenter:
    """Train on dataset folders and annotated images together; write the result to `out`.

    With `then`, a second stage trains the result on those data, by the settings `config.then`. With
    `val`, the weights of the best validation mIoU of each stage are kept, else the last ones. An
    interrupted run resumes from its last checkpoint and ends with the same weights as an
    uninterrupted one. `mix` is the share of each of `data` in the samples; without it, each sample
    comes once per epoch. `init` gives the weights to start from: a generator's U-Net (for the
    architecture UNetGN; the last layer is new), or a segmenter with the same network (the last
    layer is new if its classes differ); images are resized to the size of those that it was trained
    on, unless `config.image_size` is given. `callbacks` watch (a progress bar): they find `loss`,
    `images/s` and `miou` among Lightning's progress bar metrics.

    Raises:
        FileNotFoundError: a dataset or one of its shards is missing.
        ImportError: `wandb` is set, but the package is not installed.
        ValueError: the data are damaged or disagree, the network cannot be built or is not that
            of `init`, `out` holds a training that is damaged or has other settings, data or start,
            or the training diverged.
    """
    num_workers = pick_num_workers(config, pick_device(device))
    stages = open_stages(data, then, config, val, mix, init, num_workers)
    with _quiet(), torch.random.fork_rng(), naming_full_disk(Path(out)):
        job = _Job(stages, Path(out), stages[0].config, val, mix, init, device)
        return job.run(wandb, callbacks, together)


def open_stages(
    data: Data,
    then: Data,
    config: SegmenterConfig,
    val: LabeledImages | None,
    mix: Sequence[float] | None,
    init: Start | None = None,
    num_workers: int = 0,
) -> list[Stage]:
    """What `train` trains on, one stage or two, with the same checks and errors.

    The settings of the stages suit this machine, the size of the images and the start.
    """
    first = _open(data, config, val, mix, num_workers, config.image_size or start_size(init))
    config = settle_sizes(settle_encoder_weights(config), first.image_size)
    config = settle_start(config, init)
    stages = [Stage(first, config)]
    if then:
        has_datasets = not all(isinstance(d, LabeledImages | ForeignTars) for d in then)
        second, shares = then_config(config, has_datasets), config.then.mix
        if shares is not None and len(shares) != len(then):
            raise ValueError(
                f"then.mix has {len(shares)} weights, expected {len(then)}, one per --then"
            )
        more = _open(then, second, val, shares, num_workers, first.image_size)
        if more.classes != first.classes:
            raise ValueError(
                f"--then has the classes {', '.join(more.classes)}, --data "
                f"{', '.join(first.classes)}: they must agree in names and order"
            )
        stages.append(Stage(more, second))
    return stages


def _open(
    data: Data,
    config: SegmenterConfig,
    val: LabeledImages | None,
    mix: Sequence[float] | None,
    num_workers: int,
    size: Size | None,
) -> TrainingData:
    training_data = open_training_data(
        data,
        lambda size: Augment(config.augment, size),
        size,
        config.seed,
        num_workers,
        config.shuffle_buffer,
        config.ignore_above_quantile,
        mix=mix,
        skip_damaged=config.skip_damaged,
        soft_labels=config.soft_labels,
    )
    if val is not None:
        _check_validation(val, training_data.classes)
    elif config.patience is not None:
        raise ValueError("patience counts validations: also give --val, or leave it out")
    return training_data


@dataclass(frozen=True)
class _Job:
    """The arguments of `train`, checked."""

    stages: list[Stage]
    out: Path
    config: SegmenterConfig
    val: LabeledImages | None
    mix: Sequence[float] | None
    init: Start | None
    device: str

    def run(
        self, wandb: bool, callbacks: Sequence[Callback], together: Together | None
    ) -> Segmenter:
        config, data, where = self.config, self.stages[0].data, pick_device(self.device)
        shared = _wandb(self.out) if wandb else []
        torch.manual_seed(config.seed)
        network = build_from(self.init, config, data.classes, data.image_size)
        check_sizes(network, data.image_size)
        synchronise(network, where)
        palette = data.palette or default_palette(len(data.classes))
        if rank() == 0:
            prepare_folder(self.out, self._identity(), self._continues, len(self.stages))
        barrier()
        runner = Runner(self.out, palette, self.val, self.device, callbacks, together)
        module = self._run_stages(runner, network, shared)
        segmenter = Segmenter.create(
            network,
            config,
            data.classes,
            palette,
            data.image_size,
            self._data_digest(),
            module.best,
            dict(sum((s.data.source.skipped for s in self.stages), Counter())),
            self._encoder_start(),
        )
        if rank() == 0:
            segmenter.save(self.out)
            write_plot(self.out, module.rows, len(module.place.history))
        return segmenter

    def _encoder_start(self) -> str | None:
        """What the encoder started from; None without one, or if `init` gave its weights."""
        if self.config.is_unet_gn or self.init is not None:
            return None
        return describe_weights(self.config.encoder_weights)

    def _run_stages(
        self, runner: Runner, network: Network, shared: list[Logger]
    ) -> SegmenterModule:
        """Train `network` in each stage; the module of the last one.

        When a run resumes, finished stages take no step and only give their result again.
        """
        place = Place(stages=len(self.stages), total=sum(stage.steps for stage in self.stages))
        for name, stage in zip(TENSORBOARD_DIRS, self.stages, strict=False):
            loggers = [TensorBoardLogger(self.out, name="", version=name), *shared]
            module = runner.fit(stage, network, place, loggers)
            result = module.restore_best()
            module.to(pick_device(self.device)).check_weights()
            network.load_state_dict(result.state_dict())
            place = place.after(module.rows)
        return module

    def _data_digest(self) -> str:
        """sha256 of the data of all stages."""
        digests = [stage.data.digest for stage in self.stages]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _continues(self, found: Mapping[str, Any]) -> bool:
        """Whether this training continues that of the identity `found`, of another length.

        One of two stages never does: its second stage started from the shorter one.
        """
        if len(self.stages) > 1:
            return False
        before = self.config.model_copy(update={key: found.get(key) for key in LENGTH})
        samples = self.stages[0].data.source.samples
        return is_continuation(before, self.config, samples, self.val is not None)

    def _identity(self) -> dict[str, Any]:
        """What determines the result, apart from the machine and the number of processes."""
        data, *more = (stage.data.digest for stage in self.stages)
        then = self.config.then.model_dump(mode="json") if more else {}
        return {
            **self.config.model_dump(mode="json", exclude={"num_workers", "then"}),
            "encoder_weights": weights_identity(self.config.encoder_weights),
            **{f"then.{key}": value for key, value in then.items()},
            "init": start_digest(self.init),
            "data": data,
            "then.data": more[0] if more else None,
            "mix": None if self.mix is None else list(self.mix),
            "validation": None if self.val is None else _digest(self.val),
        }


def _wandb(out: Path) -> list[Logger]:
    """The logger of all stages, in the first process."""
    if find_spec("wandb") is None:
        raise ImportError("--wandb needs Weights & Biases: pip install 'dataset-factory[wandb]'")
    if rank() > 0:
        return []
    return [WandbLogger(name=out.name, save_dir=out, project="dataset-factory")]


def _check_validation(val: LabeledImages, classes: Sequence[str]) -> None:
    if list(val.classes) != list(classes):
        raise ValueError(
            f"{val.name} has the classes {', '.join(val.classes)}, the training data "
            f"{', '.join(classes)}: they must agree in names and order"
        )
    check_ids(val.masks, len(classes), val.name)


def _digest(val: LabeledImages) -> str:
    h = hashlib.sha256(val.images.numpy().tobytes())
    h.update(val.masks.numpy().tobytes())
    return h.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Lightning's tips and the warnings of libraries about each other."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|torch|webdataset|timm)(\.|$)")
            yield
    finally:
        logger.setLevel(level)
