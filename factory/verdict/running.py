"""Running a comparison: cells in rungs, within the time, each kept as soon as it is finished."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from factory.terminal.text import duration
from factory.verdict.bench import Bench, Materials
from factory.verdict.contenders import Contender
from factory.verdict.decision import MIN_PAIRS, mean
from factory.verdict.folds import Split
from factory.verdict.models import Model
from factory.verdict.pools import Pool
from factory.verdict.racing import in_order, rungs, worse_half
from factory.verdict.results import Cell, Results, expected_sec, needed, scores
from train_seg.evaluation import metrics

if TYPE_CHECKING:
    from factory.verdict.crew import Crew

RACE_SHARE = 0.75  # of the time; the rest is for the learning curve and the images to annotate
Prepare = Callable[[Sequence[Contender]], None]


def is_needed(contender: Contender, split: Split) -> bool:
    """Whether a verdict needs this score, however little time is left."""
    return contender.group != "factory" and split.number < MIN_PAIRS


@dataclass
class Runner:
    """Trains and scores contenders on splits; finished cells are never repeated.

    `budget_sec` None: no limit. Time counts over all runs in the same folder. `crew` None: all
    in this process.
    """

    materials: Materials
    results: Results
    splits: Sequence[Split]
    console: Console
    budget_sec: float | None = None
    crew: Crew | None = None

    def __post_init__(self) -> None:
        self._began, self._before_sec = time.monotonic(), self._spent_before()

    @property
    def at_once(self) -> int:
        """How many splits run at the same time."""
        return 1 if self.crew is None else self.crew.at_once

    @property
    def limit_sec(self) -> float:
        """The budget; a number that JSON can hold if there is none."""
        return sys.float_info.max if self.budget_sec is None else self.budget_sec

    @property
    def is_over(self) -> bool:
        """Whether an earlier run has raced within as much time: `race` trains nothing more."""
        return self.results.progress.raced_sec >= self.limit_sec

    def left_sec(self, share: float = 1.0) -> float:
        """Time left of a share of the budget."""
        if self.budget_sec is None:
            return math.inf
        return share * self.budget_sec - self._before_sec - (time.monotonic() - self._began)

    def _spent_before(self) -> float:
        """What earlier runs took for that which they finished."""
        whole = {split.number: len(split.train) for split in self.splits}
        spent_sec = self.results.progress.shared_sec
        for cell in self.results.cells.values():
            # Those on fewer images, of the learning curve, are made one after another.
            is_whole = cell.images == whole.get(cell.split)
            spent_sec += cell.seconds / (self.at_once if is_whole else 1)
        return spent_sec

    def race(self, contenders: Sequence[Contender], prepare: Prepare = lambda _: None) -> None:
        """Run the contenders on ever more splits; cut the worse half when time is short.

        Those that are `is_last` begin when the others have ended, if time is left, with what these
        have made. `prepare` does the work that all splits share for some of the contenders.
        """
        if self.is_over:
            return
        first = [c for c in contenders if not c.is_last]
        last = [c for c in contenders if c.is_last]
        if first:
            prepare(first)
        self._race(first, keeps=bool(last))
        if last and self.left_sec(RACE_SHARE) > 0:
            prepare(last)
        self._race(last, before=len(self.splits))
        self.results.note(raced_sec=self.limit_sec)

    def _race(self, contenders: Sequence[Contender], before: int = 0, keeps: bool = False) -> None:
        """One heat; `before` is the number of splits of earlier ones.

        What was made for a split is deleted when it is finished, unless a later heat `keeps` it.
        """
        alive, done = list(contenders), 0
        for rung in rungs(len(self.splits), self.at_once):
            if self.crew is not None:
                self._elsewhere(alive, self.splits[done:rung])
            for split in self.splits[done:rung]:
                if not alive:
                    return
                if split.number >= MIN_PAIRS and self.left_sec(RACE_SHARE) <= 0:
                    self.console.print("time is up")
                    return
                alive = self._split(alive, split)
                if not keeps:
                    self.bench(split).delete()
            done = rung
            if done < len(self.splits):
                alive = self._cut(alive, done, before)

    def _elsewhere(self, alive: Sequence[Contender], splits: Sequence[Split]) -> None:
        """Have other processes make the cells that are missing; `_split` then finds them."""
        assert self.crew is not None
        missing = [s for s in splits if any(not self._is_done(c, s) for c in alive)]
        if missing and self.left_sec(RACE_SHARE) > 0:
            self.crew.run([c.name for c in alive], missing, self.left_sec(RACE_SHARE), self._look)
            self._look()

    def _look(self) -> None:
        """Read the cells that other processes have finished, and print them."""
        known = set(self.results.cells)
        self.results.reload()
        for key, cell in self.results.cells.items():
            if key not in known:
                self._print(cell)

    def _is_done(self, contender: Contender, split: Split) -> bool:
        return self.results.find(contender.name, split.number, len(split.train)) is not None

    def _split(self, alive: list[Contender], split: Split) -> list[Contender]:
        """One split; the contenders for which there was time."""
        ran = []
        for contender in alive:
            is_free = self._is_done(contender, split) or is_needed(contender, split)
            if not is_free and self._is_late(contender, split):
                self.console.print(f"no time left for {contender.name} on split {split.number + 1}")
                self._note_unmeasured(contender.name)
                continue
            self.cell(contender, split, split.train)
            ran.append(contender)
        return ran

    def _is_late(self, contender: Contender, split: Split) -> bool:
        made = self.bench(split).costs.own
        return self.left_sec(RACE_SHARE) <= expected_sec(self.cells(contender).values(), made)

    def _note_unmeasured(self, name: str) -> None:
        names = dict.fromkeys([*self.results.progress.unmeasured, name])
        self.results.note(unmeasured=tuple(names))

    def _cut(self, alive: list[Contender], done: int, before: int) -> list[Contender]:
        """Those that continue after `done` splits of this heat: labels and controls, then the best.

        A resumed race cuts the same, unless it has more time.
        """
        key = before + done
        # A resumed race may have cells of later splits, but not of every contender.
        found = {c.name: {n: cell for n, cell in self.cells(c).items() if n < done} for c in alive}
        means = {name: mean(scores(cells)) for name, cells in found.items()}
        needs = {name: needed(name, cells.values()) for name, cells in found.items()}
        cuts, cut_sec = self.results.progress.cuts, self.results.progress.cut_sec
        if cut_sec.get(key, 0.0) < self.limit_sec:
            dropped: tuple[str, ...] = ()
            if self._rest_sec(found.values(), self.splits[done:]) > self.left_sec(RACE_SHARE):
                groups = [[c.name for c in alive if c.group == g] for g in ("labels", "factory")]
                dropped = worse_half(means, groups, needs)
            cuts = {**cuts, key: dropped}
            self.results.note(cuts=cuts, cut_sec={**cut_sec, key: self.limit_sec})
        if cuts[key]:
            splits = "1 split" if done == 1 else f"{done} splits"
            self.console.print(f"cut after {splits}, to stay in time: {', '.join(cuts[key])}")
        kept = {c.name: c for c in alive if c.name not in cuts[key]}
        measures = [c for c in kept.values() if c.group != "factory"]
        others = {name: means[name] for name, c in kept.items() if c.group == "factory"}
        return [*measures, *(kept[name] for name in in_order(others, needs))]

    def _rest_sec(self, cells: Iterable[Mapping[int, Cell]], rest: Sequence[Split]) -> float:
        """Seconds that the contenders of `cells` take for the splits `rest`."""
        every = [cell for found in cells for cell in found.values()]
        needs = [expected_sec(every, self.bench(split).costs.own) for split in rest]
        return fmean(needs) * math.ceil(len(rest) / self.at_once) if rest else 0.0

    def cell(self, contender: Contender, split: Split, rows: Sequence[int]) -> Cell:
        """Train one contender on `rows` and score it on the split's test images, once."""
        found = self.results.find(contender.name, split.number, len(rows))
        if found is not None:
            return found
        began, bench = time.monotonic(), self.bench(split, rows)
        with bench.costs.part(contender.name):
            model = contender.make(bench)
        made, m = time.monotonic(), self.materials
        scored = self._score(model, m.annotated, m.masks, split.test)
        also = m.also and self._score(model, *m.also, range(len(m.also[1]))).miou
        cell = Cell(
            contender=contender.name,
            split=split.number,
            images=len(rows),
            miou=scored.miou,
            iou=dict(zip(scored.classes, scored.iou, strict=True)),
            also_miou=also,
            seconds=time.monotonic() - began,
            parts_sec=bench.costs.needed(contender.name),
            scoring_sec=time.monotonic() - made,
        )
        self.results.add(cell)
        self._print(cell)
        return cell

    def _print(self, cell: Cell) -> None:
        self.console.print(
            f"split {cell.split + 1} of {len(self.splits)}, {cell.images} images: "
            f"{cell.contender} mIoU {cell.miou:.3f} ({duration(cell.seconds)})"
        )

    def _score(
        self, model: Model, pool: Pool, masks: torch.Tensor, rows: Sequence[int]
    ) -> metrics.Scores:
        classes = self.materials.classes
        confusion = metrics.Confusion(len(classes))
        confusion.update(model.predict(pool, rows), masks[list(rows)])
        return metrics.scores(confusion, classes, len(rows))

    def bench(self, split: Split, rows: Sequence[int] | None = None) -> Bench:
        """The bench of a split, with all of its training images or some."""
        rows = split.train if rows is None else rows
        name = f"split-{split.number:04d}-{len(rows)}"
        return Bench(self.materials, name, rows, split.seed, split.test)

    def cells(self, contender: Contender) -> dict[int, Cell]:
        """The finished cells of a contender on whole training sets, by split."""
        sizes = {split.number: len(split.train) for split in self.splits}
        return self.results.of(contender.name, sizes)
