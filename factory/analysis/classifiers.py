"""Table 7: larger classifiers. And soft votes and the ETF regulariser: DDPM_V, DDPM_E, DDPM_VE.

The latter are those of "Diffusion-Based Semantic Segmentation Using Feature Regularization and Soft
Voting" (2025). Its code takes the last member for the majority, and trains a regulariser that does
not touch the classifiers; ours are a majority and a regulariser of the classifiers.
"""

from __future__ import annotations

from typing import Any

from factory.analysis.base import (
    MIOU,
    Analysis,
    Cell,
    Findings,
    Numbers,
    Results,
    Table,
    Value,
    on_all_splits,
)
from factory.analysis.drawing import score_bars
from factory.analysis.judging import (
    ABOVE,
    Gain,
    Outcome,
    all_of,
    difference,
    does_not_help,
    is_above,
    points,
    sentence,
)
from factory.analysis.study import Study
from labelers.config import LabelerConfig
from labelers.training.loss import check_etf

ETF_WEIGHT = 0.4  # in the paper of DDPM_E
SOFT = "soft.miou"
ORIGINAL, WIDER, DEEPER, ETF = "original", "wider", "deeper", "etf"
# Rows: name, the cell, and which of its numbers.
ROWS = {
    "original": (ORIGINAL, MIOU),
    "twice wider": (WIDER, MIOU),
    "twice deeper": (DEEPER, MIOU),
    "DDPM_V: soft vote": (ORIGINAL, SOFT),
    "DDPM_E: ETF": (ETF, MIOU),
    "DDPM_VE: both": (ETF, SOFT),
}
LARGER, IMPROVED = list(ROWS)[1:3], list(ROWS)[3:]


def variant(config: LabelerConfig, name: str, classes: int) -> LabelerConfig:
    """The settings of a variant: hidden widths twice as large, each layer twice, or with ETF."""
    hidden = config.hidden_for(classes)
    changes: dict[str, dict[str, Any]] = {
        ORIGINAL: {},
        WIDER: {"hidden": tuple(2 * width for width in hidden)},
        DEEPER: {"hidden": tuple(width for width in hidden for _ in range(2))},
        ETF: {"etf_weight": ETF_WEIGHT},
    }
    return config.model_copy(update={"vote": "majority", **changes[name]})


def check(study: Study) -> None:
    """Raise ValueError if the last hidden layer has no room for the ETF, or it is already on."""
    config, classes = study.settings.labeler, len(study.classes)
    check_etf(config.hidden_for(classes)[-1], classes)
    if config.etf_weight:
        raise ValueError(
            f"classifiers: labeler.etf_weight is {config.etf_weight}, expected 0: this analysis "
            "compares classifiers with it and without"
        )


def run(study: Study, cell: Cell) -> Numbers:
    """mIoU of the majority, and of the soft vote of the same members."""
    split = study.split(cell.split)
    config = variant(study.settings.labeler, cell.variant, len(study.classes))
    labeler = study.fit(study.default_maps, split.train, split.seed, config)
    soft = study.score_masks(study.predict(labeler, split.test, vote="soft"), split.test)
    return {**study.score(labeler, split.test), SOFT: soft[MIOU]}


def summarise(study: Study, results: Results) -> Findings:
    """mIoU of every row, and its gain over the original."""
    found = {name: results.spread(*place) for name, place in ROWS.items()}
    gains = {name: _gain(results, name) for name in ROWS}
    rows: list[list[Value]] = [[name, found[name], gains[name]] for name in ROWS]
    larger: Outcome = all_of(does_not_help(gains[name]) for name in LARGER)
    improved: Outcome = all_of(is_above(gains[name]) for name in IMPROVED)
    first = sentence("larger pixel classifiers do not help", larger, _evidence(gains, LARGER))
    second = sentence(
        "soft votes and the ETF regulariser (DDPM_V, DDPM_E, DDPM_VE) help",
        improved,
        _evidence(gains, IMPROVED),
    ).replace("The paper's", "The later paper's", 1)
    original = points(found["original"])
    return Findings(
        Table(["classifiers", "mIoU", "minus the original"], rows),
        f"{first} {second}",
        f"{ABOVE} The original, at {original}, is a majority of classifiers with hidden widths "
        f"{study.settings.labeler.hidden_for(len(study.classes))}.",
        {"classifiers": lambda: score_bars(list(ROWS), list(found.values()))},
    )


def _gain(results: Results, name: str) -> Gain:
    variant, number = ROWS[name]
    return difference(results.by_split(variant, number), results.by_split(*ROWS["original"]))


def _evidence(gains: dict[str, Gain], names: list[str]) -> str:
    changes = ", ".join(f"{points(gains[name])} ({name})" for name in names)
    return f"mIoU differs from the original's by {changes}"


ANALYSIS = Analysis(
    name="classifiers",
    title="mIoU with other pixel classifiers (Table 7)",
    cells=lambda study: on_all_splits(study, (ORIGINAL, WIDER, DEEPER, ETF)),
    run=run,
    summarise=summarise,
    check=check,
)
