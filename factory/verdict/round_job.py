"""`factory rounds`: rounds until cross-validation no longer improves, then the best on all labels.

Cross-validation of round 0 also decides whether augmentation is strong.

OUT/model.safetensors, model.json   the segmenter of the best round
    rounds.json                     mean mIoU of every round over the folds
    compare.json, cells/, parts/    as in a comparison
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from factory.locking.lock import exclusive
from factory.verdict.bench import Materials, whole_bench
from factory.verdict.contenders import Contender, contenders
from factory.verdict.decision import mean
from factory.verdict.inputs import Given, identity, read
from factory.verdict.models import SegmenterModel
from factory.verdict.results import PARTS_DIR, Results, scores
from factory.verdict.rounds import Source, Variant
from factory.verdict.running import Runner
from factory.verdict.settings import CompareConfig
from factory_core.pictures import remember
from factory_core.storage import write_json
from train_seg.network.segmenter import INFO_NAME

ROUNDS_NAME = "rounds.json"


@dataclass(frozen=True)
class Rules:
    """What rounds learn from, and whether their augmentation is strong; None decides.

    By default they learn from the photographs, or without any, from samples of the generator; and
    with the augmentation that is better in round 0.
    """

    source: Source | None = None
    is_strong: bool | None = None

    def variants(self, given: Given) -> list[Variant]:
        """Those to try; raises ValueError for missing photographs."""
        source = self.source or ("synthetic" if given.images is None else "photographs")
        if given.images is None and source != "synthetic":
            raise ValueError(f"--learn-from {source} needs --images: a folder of photographs")
        strengths = (True, False) if self.is_strong is None else (self.is_strong,)
        return [Variant(source, is_strong) for is_strong in strengths]


DEFAULT = Rules()


def play_rounds(
    given: Given, config: CompareConfig, console: Console, rules: Rules = DEFAULT
) -> str:
    """Play up to `config.rounds` rounds and write the best segmenter; returns its name. Resumes.

    Raises ValueError or OSError for a user's mistake, before any training.
    """
    variants = rules.variants(given)
    m = read(given, config, given.out / PARTS_DIR).materials
    by_name = {contender.name: contender for contender in contenders(m.config)}
    firsts = {_first(m, variant): variant for variant in variants}
    names = [v.name(number) for v in variants for number in range(1, config.rounds + 1)]
    splits = m.splits
    with exclusive(given.out):
        results = Results.begin(given.out, identity(m, [*firsts, *names]))
        runner = Runner(m, results, splits, console)
        means: dict[str, float] = {}

        def score(name: str) -> float:
            for split in splits:
                runner.cell(by_name[name], split, split.train)
            means[name] = mean(scores(runner.cells(by_name[name])))
            console.print(f"{name}: mIoU {means[name]:.3f} over {len(splits)} splits")
            return means[name]

        first = max(firsts, key=score)
        for number in range(1, config.rounds + 1):
            before = max(means.values())
            if score(firsts[first].name(number)) <= before:
                console.print("no better than before: no more rounds")
                break
        winner = max(means, key=lambda name: means[name])
        write_json(given.out / ROUNDS_NAME, {"miou": means, "best": winner})
        if not (given.out / INFO_NAME).is_file():
            _write(by_name[winner], m, given.out)
        shutil.rmtree(m.parts, ignore_errors=True)
    console.print(f"{winner}, trained on all {len(m.masks)} images, in {given.out}")
    return winner


def _first(m: Materials, variant: Variant) -> str:
    """The name of round 0: fine-tuned generators, or the U-Net if it has none."""
    if m.start is None:
        return "unet-strong" if variant.is_strong else "unet"
    return "generator-mean" if variant.is_strong else "generator-mean-light"


def _write(contender: Contender, m: Materials, folder: Path) -> None:
    model = contender.make(whole_bench(m))
    assert isinstance(model, SegmenterModel)
    remember(folder, m.pictures)
    model.segmenter.save(folder)
