"""`factory rounds`: rounds until cross-validation no longer improves, then the best on all labels.

OUT/model.safetensors, model.json   the segmenter of the best round
    rounds.json                     mean mIoU of every round over the folds
    compare.json, cells/, parts/    as in a comparison
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from factory.locking.lock import exclusive
from factory.verdict.bench import Materials, whole_bench
from factory.verdict.contenders import Contender, contenders
from factory.verdict.decision import mean
from factory.verdict.folds import draw_splits
from factory.verdict.inputs import Given, identity, read
from factory.verdict.models import SegmenterModel
from factory.verdict.results import PARTS_DIR, Results, scores
from factory.verdict.running import Runner
from factory.verdict.settings import CompareConfig
from factory_core.pictures import remember
from factory_core.storage import write_json
from train_seg.network.segmenter import INFO_NAME

ROUNDS_NAME = "rounds.json"


def play_rounds(given: Given, config: CompareConfig, console: Console) -> str:
    """Play up to `config.rounds` rounds and write the best segmenter; returns its name. Resumes.

    Raises ValueError or OSError for a user's mistake, before any training.
    """
    if given.images is None or given.generator is None:
        raise ValueError("rounds need --images and --generator: give both")
    m = read(given, config, given.out / PARTS_DIR).materials
    splits = draw_splits(m.masks.numpy(), config.folds, config.seeds)
    every = _rounds(m)
    with exclusive(given.out):
        names = [c.name for c in every]
        results = Results.begin(given.out, identity(m, names))
        runner = Runner(m, results, splits, console)
        means: dict[str, float] = {}
        for contender in every:
            for split in splits:
                runner.cell(contender, split, split.train)
            found, best = mean(scores(runner.cells(contender))), max(means.values(), default=0.0)
            means[contender.name] = found
            console.print(f"{contender.name}: mIoU {found:.3f} over {len(splits)} splits")
            if len(means) > 1 and found <= best:
                console.print("no better than before: no more rounds")
                break
        winner = max(means, key=lambda name: means[name])
        write_json(given.out / ROUNDS_NAME, {"miou": means, "best": winner})
        if not (given.out / INFO_NAME).is_file():
            _write(next(c for c in every if c.name == winner), m, given.out)
        shutil.rmtree(m.parts, ignore_errors=True)
    console.print(f"{winner}, trained on all {len(m.masks)} images, in {given.out}")
    return winner


def _rounds(m: Materials) -> list[Contender]:
    """Round 0, which is fine-tuned generators (or the U-Net, if it has none), and all others."""
    first = "unet-strong" if m.start is None else "generator-mean"
    every = contenders(m.config)
    return [
        *(c for c in every if c.name == first),
        *(c for c in every if c.name.startswith("round-")),
    ]


def _write(contender: Contender, m: Materials, folder: Path) -> None:
    model = contender.make(whole_bench(m))
    assert isinstance(model, SegmenterModel)
    remember(folder, m.pictures)
    model.segmenter.save(folder)
