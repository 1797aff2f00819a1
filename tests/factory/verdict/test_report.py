"""The verdict as people and programs read it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from factory.verdict import report
from factory.verdict.decision import Decision
from factory.verdict.learning_curve import Curve
from factory.verdict.statistics import Interval
from factory.verdict.verdict import Row, Verdict

LEAD = Interval(0.041, 0.012, 8)
DECISION = Decision(
    "unet", "photographs", "photographs", {"photographs": LEAD}, "blind-place", LEAD, True
)


def make(decision: Decision = DECISION) -> Verdict:
    rows = [
        Row("photographs", "on photographs", "factory", 8, 0.861, 0.02, LEAD, 95.0, 0.7),
        Row("unet", "labels alone", "labels", 8, 0.82, 0.03, None, 40.0, 0.65),
        Row(
            *("mixture", "mixed", "factory", 2, 0.8, 0.1, Interval(-0.1, 1.3, 2), 60.0, 0.6),
            note="cut",
        ),
        Row("round-1", "rounds", "factory", 0, note="needs --images"),
    ]
    curves = {"unet": Curve({3: 0.6, 6: 0.75, 9: 0.82}, Interval(0.05, 0.03, 4))}
    commands = ["factory train-deeplab --data photos --out model"]
    return Verdict(12, 8, rows, decision, "With your 12 images: photographs.", commands, curves)


def shown(verdict: Verdict, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.show(verdict, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table() -> None:
    text = shown(make())
    assert "86.1 ± 2.0" in text
    assert "+4.1 ± 1.2" in text
    assert "best labels only" in text
    assert "2, cut" in text
    assert "-10.0 " in text  # two splits: the interval says nothing
    assert "130" not in text
    assert "Not measured, needs --images: round-1" in text
    assert "60.0 with 3, 75.0 with 6, 82.0 with 9 training images" in text
    assert "8 more would probably bring +5.0 ± 3.0" in text
    assert "factory train-deeplab" in text


def test_names_are_whole_in_a_narrow_terminal() -> None:
    row = Row("deeplab-photographs-labels", "", "factory", 2, 0.8, 0.11, LEAD, 60.0, note="cut")
    verdict = make()
    rows = [replace(row, also=None) for row in [*verdict.rows, row]]
    lines = shown(replace(verdict, rows=rows), width=80).splitlines()
    assert any("deeplab-photographs-labels" in line for line in lines)
    assert max(map(len, lines[:12])) <= 80


def test_commands_can_be_copied() -> None:
    """However narrow the terminal, and whatever the names."""
    long = f"factory train-deeplab --data '{'my [red] labels ' * 12}' --out model"
    assert f"  {long}\n" in shown(replace(make(), commands=[long]))


def test_nothing_learned_gives_no_commands() -> None:
    decision = Decision("unet", "unet", "unet", {}, "blind-place", LEAD, False)
    assert "factory train-deeplab" not in shown(make(decision))
    assert make(decision).to_dict()["recommended"] is None


def test_files(tmp_path: Path) -> None:
    names = report.write(make(), tmp_path, Console(quiet=True))
    assert names == ["verdict.json", "verdict.md", "verdict.png"]
    content = json.loads((tmp_path / "verdict.json").read_text())
    assert content["recommended"] == "photographs"
    assert content["contenders"][2]["difference"] == {
        "mean": -0.1,
        "half_width": 1.3,
        "splits": 2,
    }
    text = (tmp_path / "verdict.md").read_text()
    assert "| **photographs** | 86.1 ± 2.0 | +4.1 ± 1.2 | 95 s | 8 | 70.0 |" in text.replace(
        "2 min", "95 s"
    )
    assert text.count("factory train-deeplab") == 1
    assert (tmp_path / "verdict.png").read_bytes().startswith(b"\x89PNG")


def test_one_split_has_no_interval() -> None:
    row = Row("mixture", "mixed", "factory", 1, 0.8, None, Interval(-0.1, math.inf, 1), 60.0)
    found = replace(make(), rows=[row]).to_dict()["contenders"][0]
    assert found["difference"] == {"mean": -0.1, "half_width": None, "splits": 1}
