"""The grid of blocks and timesteps: one cell per map, shared by two figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.analysis import blocks, class_size
from factory.analysis.base import Cell, Results
from factory.analysis.grid import Axes, thirds
from factory.recipe.networks import EMBEDDED
from tests.factory.analysis.conftest import GRID, Analyse
from tests.factory.analysis.test_analyse import cell_times

AXES = Axes((0, 1, 2), (0, 500))


def made_up(scores: dict[str, tuple[float, float]], name: str = "miou") -> Results:
    """Results with the scores of each map on two splits."""
    return Results(
        {Cell(v, i): {name: s} for v, values in scores.items() for i, s in enumerate(values)}
    )


def test_blocks_and_class_size_share_cells(analyse: Analyse, tmp_path: Path) -> None:
    result = analyse("blocks", **GRID)
    assert result.code == 0, result.err
    out = tmp_path / "out"
    cells = cell_times(out)
    assert len(cells) == 3 * 2 * 2
    content = json.loads((out / "blocks.json").read_text())
    assert [row["block"] for row in content["rows"]] == ["0", "1", "3"]
    assert all(0 <= row["t = 500"]["mean"] <= 1 for row in content["rows"])
    assert (out / "blocks.png").read_bytes().startswith(b"\x89PNG")
    result = analyse("class-size", **GRID)
    assert result.code == 0, result.err
    assert cell_times(out) == cells
    content = json.loads((out / "class-size.json").read_text())
    assert [row["classes"] for row in content["rows"]] == ["small"] * 3 + ["large"] * 3
    assert content["notes"][0].startswith("small: square (14.1 % of the pixels)")
    assert (out / "class-size.png").read_bytes().startswith(b"\x89PNG")
    more = analyse("blocks", **GRID | {"timesteps": "[0,250,500]"})
    assert more.code == 0, more.err
    grown = cell_times(out)
    assert len(grown) == 3 * 3 * 2
    assert {name: grown[name] for name in cells} == cells


def test_one_pass_serves_all_blocks(
    analyse: Analyse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from generators.ddpm.model import DDPMGenerator

    encode, passes = DDPMGenerator.encode, []

    def counted(self: DDPMGenerator, images, indices=None):
        passes.append(self.config.features.timesteps)
        return encode(self, images, indices)

    monkeypatch.setattr(DDPMGenerator, "encode", counted)
    assert analyse("blocks", **GRID).code == 0
    assert passes == [(0,), (500,)]


def test_an_encoder_has_one_column(analyse: Analyse, tmp_path: Path) -> None:
    """Images of a generator with the features of an encoder: its maps are the rows."""
    pixels = {"generator.encoders": f"[{{weights: '{EMBEDDED['pixels']}'}}]"}
    result = analyse("blocks", **pixels)
    assert result.code == 0, result.err
    rows = json.loads((tmp_path / "out" / "blocks.json").read_text())["rows"]
    assert rows
    assert all(row.keys() == {"map", "miou"} for row in rows)
    refused = analyse("", command="choose-features", **pixels)
    assert refused.code == 1
    assert "found features of an encoder" in refused.err


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"middle": 0.8, "others": 0.6, "late": 0.2}, "holds on this data"),
        ({"middle": 0.5, "others": 0.6, "late": 0.2}, "does not hold on this data"),
        ({"middle": 0.8, "others": 0.6, "late": 0.9}, "does not hold on this data"),
    ],
)
def test_the_finding_of_figure_2(scores: dict[str, float], words: str) -> None:
    found = {
        AXES.variant(row, column): scores["late"]
        if column
        else scores["middle" if row == 1 else "others"]
        for row in range(3)
        for column in range(2)
    }
    results = made_up({name: (s, s + 0.01) for name, s in found.items()})
    outcomes, evidence = blocks._compare(AXES, results)
    assert words in blocks.sentence(blocks.FINDING, blocks.all_of(outcomes), evidence[0])


def test_the_finding_of_figure_3() -> None:
    """Large classes lead in deep blocks and last longer; small ones the other way round."""
    iou = {
        "large": [[0.9, 0.8], [0.8, 0.7], [0.7, 0.6]],
        "small": [[0.2, 0.0], [0.4, 0.0], [0.6, 0.1]],
    }
    numbers = {
        Cell(AXES.variant(row, column), split): {
            f"iou.{name}": values[row][column] + 0.01 * split for name, values in iou.items()
        }
        for row in range(3)
        for column in range(2)
        for split in range(2)
    }
    groups = {"small": ["small"], "large": ["large"]}
    assert class_size._compare(AXES, Results(numbers), groups)[0] == "holds"
    swapped = {"small": ["large"], "large": ["small"]}
    assert class_size._compare(AXES, Results(numbers), swapped)[0] == "does not hold"


def test_thirds() -> None:
    assert [list(part) for part in thirds(8)] == [[0, 1], [2, 3, 4, 5], [6, 7]]
    assert [list(part) for part in thirds(3)] == [[0], [1], [2]]
    assert [list(part) for part in thirds(2)] == [[0], [], [1]]
    assert [list(part) for part in thirds(1)] == [[0], [], [0]]
