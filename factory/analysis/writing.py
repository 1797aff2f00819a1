"""The findings of an analysis as Markdown, JSON, CSV and PNG, and on the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from factory.analysis.base import Analysis, Findings, Table, Value
from factory.analysis.judging import points
from factory.analysis.study import Study
from factory_core.storage import write_bytes
from train_seg.evaluation.evaluate import Spread
from train_seg.evaluation.plots import encode_png, figure_type
from train_seg.evaluation.report import Grid

MOST_ROWS = 40  # printed on a terminal


def write(
    analysis: Analysis, study: Study, findings: Findings, folder: Path, console: Console
) -> None:
    """Write all files of the analysis to `folder`, and print table and sentence.

    Without matplotlib there are no pictures, and a line says how to install it.
    """
    pictures, notes = [], list(findings.notes)
    try:
        figure_type()
        for name, draw in findings.figures.items():
            write_bytes(folder / f"{name}.png", encode_png(draw()))
            pictures.append(f"{name}.png")
    except ImportError as error:
        notes.append(f"no picture: {error}")
    grid = _grid(analysis.title, findings.table)
    texts = {
        "md": _markdown(grid, study, findings, pictures),
        "json": json.dumps(_content(analysis, study, findings), indent=1, ensure_ascii=False),
        "csv": _csv(findings.table),
    }
    for suffix, text in texts.items():
        write_bytes(folder / f"{analysis.name}.{suffix}", (text.rstrip("\n") + "\n").encode())
    if len(grid.rows) <= MOST_ROWS:
        console.print(grid.to_rich())
    for line in (findings.sentence, *notes):
        console.print(line)
    files = [f"{analysis.name}.{suffix}" for suffix in texts]
    console.print(f"{', '.join([*files, *pictures])} in {folder}")


def _grid(title: str, table: Table) -> Grid:
    return Grid(title, list(table.columns), [[_text(v) for v in row] for row in table.rows])


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, Spread):
        return points(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(grid: Grid, study: Study, findings: Findings, pictures: Sequence[str]) -> str:
    split = study.splits[0]
    how = (
        f"{len(study.annotations.stems)} annotated images, {len(study.splits)} random splits of "
        f"{len(split.train)} to train on and {len(split.test)} to score; scores in points (0-100), "
        "mean ± standard deviation over the splits."
    )
    lines = [findings.sentence, "", *(line for p in pictures for line in (f"![]({p})", ""))]
    lines += [grid.to_markdown(), how, "", findings.rule, *(f"\n{note}" for note in findings.notes)]
    return "\n".join(lines)


def _content(analysis: Analysis, study: Study, findings: Findings) -> dict[str, Any]:
    names = findings.table.columns
    return {
        "analysis": analysis.name,
        "title": analysis.title,
        "sentence": findings.sentence,
        "rule": findings.rule,
        "notes": list(findings.notes),
        "rows": [
            {name: _plain(value) for name, value in zip(names, row, strict=True)}
            for row in findings.table.rows
        ],
        "images": len(study.annotations.stems),
        "splits": len(study.splits),
        "settings": study.settings.model_dump(mode="json"),
        "generator": study.info.digest,
    }


def _plain(value: Value) -> Any:
    if isinstance(value, Spread):
        return {"mean": value.mean, "std": value.std, "values": value.values}
    return value


def _csv(table: Table) -> str:
    """One line per row; a score has a second column with its standard deviation."""
    spread = [
        any(isinstance(row[i], Spread) for row in table.rows) for i in range(len(table.columns))
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = zip(table.columns, spread, strict=True)
    writer.writerow([c for name, s in header for c in ([name, f"{name} std"] if s else [name])])
    for row in table.rows:
        cells: list[Any] = []
        for value, s in zip(row, spread, strict=True):
            if isinstance(value, Spread):
                cells += [value.mean, value.std]
            else:
                cells += [value, None] if s else [value]
        writer.writerow(cells)
    return buffer.getvalue()
