"""A comparison from its inputs to the verdict: the race, the learning curve, the delivery."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console

from factory.annotation.choosing import Candidates, choose_images
from factory.locking.lock import exclusive
from factory.pipeline.executors.cluster import cluster
from factory.recipe.picture_settings import as_overrides
from factory.verdict import report
from factory.verdict.bench import Materials, whole_bench
from factory.verdict.commands import Inputs, commands
from factory.verdict.contenders import (
    WHY_NOT,
    Contender,
    Need,
    contenders,
    missing,
    runs_unasked,
)
from factory.verdict.crew import Crew, LocalCrew
from factory.verdict.delivery import deliver, segmenter_to_deliver
from factory.verdict.folds import Split
from factory.verdict.inputs import Given, Read, identity, read
from factory.verdict.learning_curve import Curve, budgets, fit_curve, rows_by_split
from factory.verdict.on_ray import RayCrew
from factory.verdict.results import PARTS_DIR, Results
from factory.verdict.running import Runner
from factory.verdict.settings import CompareConfig
from factory.verdict.verdict import Verdict, decide_on, table_rows
from factory.verdict.wording import sentence
from factory_core.device import pick_device
from factory_core.machine import available_cpus
from factory_core.output_folder import contents
from train_seg.network.segmenter import INFO_NAME

NEXT_IMAGES = 8


@dataclass(frozen=True)
class Wanted:
    """How to compare: time in seconds (None: no limit), and where to write the best model.

    `names` are the contenders, all but extras if empty. Several splits run at once on the Ray
    cluster `address`, or in `processes` processes: None, as many as there are cores, or one with
    an accelerator.
    """

    budget_sec: float | None = None
    deliver: Path | None = None
    names: Sequence[str] = ()
    address: str | None = None
    processes: int | None = None


def compare(given: Given, wanted: Wanted, config: CompareConfig, console: Console) -> Verdict:
    """Compare all contenders, print and write the verdict, and deliver the best; resumes.

    Raises ValueError or OSError for a user's mistake, before any training.
    """
    found = read(given, config, given.out / PARTS_DIR)
    m = found.materials
    splits = m.splits
    runnable, left_out = choose(m, wanted.names)
    if not any(contender.group == "labels" for contender in runnable):
        raise ValueError(
            "found no contender that uses the labels alone, by which all others are measured: add "
            "--contender unet, or leave out --contender"
        )
    with exclusive(given.out), _crew(given, wanted, config) as crew:
        names = [c.name for c in [*runnable, *left_out]]
        results = Results.begin(given.out, identity(m, names))
        if wanted.deliver is not None:
            _refuse_others(wanted.deliver, results)
        found.keep_photographs()
        runner = Runner(m, results, splits, console, wanted.budget_sec, crew)
        runner.race(runnable, partial(_prepare, m, results, console))
        verdict = _judge(runner, runnable, left_out, found, given)
        verdict = replace(verdict, next_images=_next(runner, found))
        if config.curve:  # last, because it takes the time that is left
            early = replace(verdict, seconds=results.seconds)
            report.write(early, given.out, Console(quiet=True))
            verdict = replace(verdict, curves=_curves(runner, runnable, verdict))
        verdict = replace(verdict, seconds=results.seconds)
        files = report.write(verdict, given.out, console)
        report.show(verdict, console)
        console.print(f"{', '.join(files)} in {given.out}")
        if wanted.deliver is not None and not verdict.decision.is_hopeless:
            _deliver_once(verdict, runnable, runner, wanted.deliver)
        shutil.rmtree(m.parts, ignore_errors=True)
    if wanted.deliver is not None and verdict.decision.is_hopeless:
        raise ValueError(f"nothing to deliver in {wanted.deliver}: {verdict.sentence}")
    return verdict


@contextmanager
def _crew(given: Given, wanted: Wanted, config: CompareConfig) -> Iterator[Crew | None]:
    """What runs splits elsewhere: the cluster, joined, or processes; None if one is enough."""
    cpus = available_cpus()
    if wanted.address is not None:
        if given.device.startswith("cuda:"):
            raise ValueError(
                f"--device {given.device} --address {wanted.address}: Ray assigns the GPUs: give "
                "--device cuda, or leave out --address"
            )
        with cluster(wanted.address, cpus):
            yield RayCrew(given, config)
        return
    processes = wanted.processes
    if processes is None:
        processes = cpus if pick_device(given.device).type == "cpu" else 1
    processes = min(processes, config.folds * config.seeds)
    yield LocalCrew(given, config, processes, cpus) if processes > 1 else None


def choose(
    materials: Materials, names: Sequence[str] = ()
) -> tuple[list[Contender], dict[Contender, str]]:
    """The contenders that can run, and why the others cannot: those in `names`, or all but extras.

    The controls that need no training are always among them: without one there is no verdict.
    Raises ValueError for an unknown name in `names`.
    """
    every = contenders(materials.config)
    known = [c.name for c in every]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--contender {unknown[0]}: expected one of {', '.join(known)}")
    runnable, left_out = [], {}
    for contender in every:
        is_control = contender.group == "blind" and not contender.is_segmenter
        wanted = contender.name in names if names else runs_unasked(contender, materials)
        if not (wanted or is_control):
            continue
        need = missing(contender, materials)
        if need is None:
            runnable.append(contender)
        else:
            left_out[contender] = WHY_NOT[need]
    return runnable, left_out


def _prepare(m: Materials, results: Results, console: Console, racing: Sequence[Contender]) -> None:
    """Do the work that all splits share for the contenders that are about to race."""
    began = time.monotonic()
    needs = frozenset[Need]().union(*(c.needs for c in racing))
    pools = [p for p in (m.annotated, m.photographs, m.also and m.also[0]) if p is not None]
    if "generator" in needs and not all(pool.has_features for pool in pools):
        console.print("computing the generator's features of the images")
        for pool in pools:
            _ = pool.store
    if "samples" in needs:
        console.print(f"sampling {m.config.synthetic} images")
        _ = m.synthetic
    results.note(shared_sec=results.progress.shared_sec + time.monotonic() - began)


def _judge(
    runner: Runner,
    runnable: Sequence[Contender],
    left_out: dict[Contender, str],
    found: Read,
    given: Given,
) -> Verdict:
    m, cells = runner.materials, {c.name: runner.cells(c) for c in runnable}
    decision = decide_on(cells, runnable, _test_share(runner.splits))
    reasons = {c.name: why for c, why in left_out.items()}
    rows = table_rows(
        cells, [*runnable, *left_out], decision, runner.results, reasons, len(runner.splits)
    )
    images = len(m.masks)
    photographs = None if given.images is None else str(given.images)
    kind = whole_bench(m).best_kind
    pictures = as_overrides(given.pictures)
    inputs = Inputs(str(given.labeled), photographs, given.generator, m.size, kind, pictures)
    return Verdict(
        images=images,
        splits=len(runner.splits),
        rows=rows,
        decision=decision,
        sentence=sentence(decision, images),
        commands=commands(decision.winner, inputs, m.config),
        notes=_notes(found),
    )


def _notes(found: Read) -> list[str]:
    notes = []
    if found.photographs is not None:
        used, there = len(found.photographs.names), found.photographs.found
        if used < there:
            notes.append(
                f"{used} of {there} photographs were used, evenly spaced (--set photographs=N)"
            )
        notes.append(
            "The generator saw all photographs, unlabelled, also those of the images scored here; "
            "no contender learned from labels of those."
        )
    elif found.materials.generator is not None:
        notes.append("The generator may have seen the images scored here, unlabelled.")
    return notes


def _test_share(splits: Sequence[Split]) -> float:
    return float(np.mean([split.test_share for split in splits]))


def _curves(runner: Runner, runnable: Sequence[Contender], verdict: Verdict) -> dict[str, Curve]:
    """Curves of the best labels-only contender and of the winner, if time permits."""
    names = dict.fromkeys([verdict.decision.baseline, verdict.decision.winner])
    by_name = {c.name: c for c in runnable}
    curves = {}
    for name in names:
        contender, points = by_name[name], []
        whole = runner.cells(contender)
        # On fewer labels, nothing that a contender shares with others is there yet.
        expected = fmean(cell.cost_sec for cell in whole.values()) if whole else 0.0
        for split in (s for s in runner.splits if s.seed == 0 and s.number in whole):
            points.append((split.number, len(split.train), whole[split.number].miou))
            for size in budgets(len(split.train))[:-1]:
                rows = split.subset(size)
                is_done = runner.results.find(name, split.number, size)
                is_late = is_done is None and runner.left_sec() < expected
                if is_late or not runner.materials.can_learn_from(rows):
                    continue
                cell = runner.cell(contender, split, rows)
                points.append((split.number, size, cell.miou))
                runner.bench(split, rows).delete()
        labeled, share = len(runner.materials.masks), _test_share(runner.splits)
        curve = fit_curve(rows_by_split(points), labeled, share)
        if len(curve.means) > 1:  # one point says what the table says
            curves[name] = curve
    return curves


def _next(runner: Runner, found: Read) -> list[str]:
    """Names of the photographs to annotate next, by a labeler trained on all labels."""
    m, known = runner.materials, runner.results.progress.next_images
    if known is not None:
        return list(known)
    if m.photographs is None:
        runner.results.note(next_images=())
        return []
    began = time.monotonic()
    bench = whole_bench(m)
    labels, images = bench.taught("photographs"), m.photographs.images
    is_new = m.may_learn_from(images, range(len(m.masks)))
    free = np.flatnonzero(is_new.numpy())
    names: list[str] = []
    if len(free):
        pooled = [m.photographs.features([row]).pooled() for row in free.tolist()]
        candidates = Candidates(np.concatenate(pooled), labels.uncertainty.numpy()[free])
        chosen = choose_images("both", candidates, NEXT_IMAGES)
        assert found.photographs is not None
        names = [found.photographs.names[free[choice.row]] for choice in chosen]
    shared = runner.results.progress.shared_sec + time.monotonic() - began
    runner.results.note(shared_sec=shared, next_images=tuple(names))
    return names


def _refuse_others(folder: Path, results: Results) -> None:
    """Raise ValueError if `folder` holds anything but what an earlier run delivered."""
    if str(folder.absolute()) not in results.progress.delivered and (others := contents(folder)):
        raise ValueError(f"--deliver {folder} holds {others[0]}: give a new or empty folder")


def _deliver_once(
    verdict: Verdict, runnable: Sequence[Contender], runner: Runner, folder: Path
) -> None:
    """Deliver, unless an earlier run has delivered the same to `folder`."""
    place, before = str(folder.absolute()), runner.results.progress.delivered
    name = segmenter_to_deliver(verdict.decision, runnable)
    if before.get(place) == name and (folder / INFO_NAME).is_file():
        runner.console.print(f"{name} is in {folder} already")
        return
    if name != verdict.decision.winner:
        runner.console.print(
            f"{verdict.decision.winner} needs the generator wherever it is used: delivering "
            f"{name}, the best segmenter"
        )
    runner.results.note(delivered={**before, place: ""})  # begun: a later run may write there
    contender = next(c for c in runnable if c.name == name)
    deliver(contender, runner.materials, folder, runner.console)
    runner.results.note(delivered={**before, place: name})
