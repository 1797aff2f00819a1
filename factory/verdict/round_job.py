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
from factory.verdict.inputs import Given, identity, read
from factory.verdict.models import SegmenterModel
from factory.verdict.results import PARTS_DIR, Results, scores
from factory.verdict.rounds import Source, round_name
from factory.verdict.running import Runner
from factory.verdict.settings import CompareConfig
from factory_core.pictures import remember
from factory_core.storage import write_json
from train_seg.network.segmenter import INFO_NAME

ROUNDS_NAME = "rounds.json"


def play_rounds(
    given: Given, config: CompareConfig, console: Console, source: Source | None = None
) -> str:
    """Play up to `config.rounds` rounds and write the best segmenter; returns its name. Resumes.

    `source` is what they learn from; by default the photographs, or without any, samples of the
    generator. Raises ValueError or OSError for a user's mistake, before any training.
    """
    if given.generator is None:
        raise ValueError("rounds need --generator")
    if source is None:
        source = "synthetic" if given.images is None else "photographs"
    elif given.images is None and source != "synthetic":
        raise ValueError(f"--learn-from {source} needs --images: a folder of photographs")
    m = read(given, config, given.out / PARTS_DIR).materials
    splits = m.splits
    every = _rounds(m, source)
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


def _rounds(m: Materials, source: Source) -> list[Contender]:
    """Round 0, which is fine-tuned generators (or the U-Net, if it has none), and all others."""
    first = "unet-strong" if m.start is None else "generator-mean"
    names = [first, *(round_name(number, source) for number in range(1, m.config.rounds + 1))]
    by_name = {contender.name: contender for contender in contenders(m.config)}
    return [by_name[name] for name in names]


def _write(contender: Contender, m: Materials, folder: Path) -> None:
    model = contender.make(whole_bench(m))
    assert isinstance(model, SegmenterModel)
    remember(folder, m.pictures)
    model.segmenter.save(folder)
