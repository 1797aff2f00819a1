"""Evaluations as terminal tables, Markdown, JSON and figures."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from train_seg.evaluation.evaluate import evaluate
from train_seg.evaluation.plots import draw
from train_seg.evaluation.report import Report
from train_seg.evaluation.robustness import Robustness


@pytest.fixture
def report(make_labeled, by_colour) -> Report:
    """Two models, one perfect and one blind, with splits and two corruptions."""
    data = make_labeled(4)
    found = [
        evaluate(f, data.images, data.masks, data.classes, splits=2)
        for f in (by_colour, lambda images: by_colour(images) * 0)
    ]
    names = ["fog", "pixelate"]
    robust = [
        Robustness(names, [1, 5], [[v, 0.25], [0.5, v]], e.scores.miou, names)
        for v, e in zip((0.75, 0.25), found, strict=True)
    ]
    return Report("4 squares", ["sharp", "blind"], found, robust)


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    for grid in report.grids():
        console.print(grid.to_rich())
    return console.file.getvalue()


def test_tables_contain_the_policies_and_all_parts(report):
    text = " ".join(shown(report).split())
    for words in (
        "4 squares",
        "mean over the classes present in the ground truth",
        "predictions on ignored pixels enter the unions",
        "0.75 % of the diagonal",
        "mean ± std of 2 models",
        "mean ± std of 2 splits",
        "blind",
        "of the pixels of a class (row)",
        "mPC 0.4375",
    ):
        assert words in text


def test_one_model_shows_no_spread_over_models(report):
    alone = Report("4 squares", ["sharp"], report.evaluations[:1], [])
    text = shown(alone)
    assert "models" not in text
    assert "all images" in text
    assert "corruption" not in text
    assert "corruptions" not in alone.to_dict()
    assert alone.to_dict()["std_over_models"]["miou"] is None


def test_numbers_are_means_over_the_models(report):
    found = json.loads(json.dumps(report.to_dict()))
    single = [e.scores for e in report.evaluations]
    assert found["miou"] == pytest.approx((single[0].miou + single[1].miou) / 2)
    assert found["std_over_models"]["miou"] == pytest.approx(
        abs(single[0].miou - single[1].miou) / 2**0.5
    )
    assert found["iou"]["red"] == 0.5
    assert [m["iou"]["red"] for m in found["models"]] == [1, 0]
    assert [m["model"] for m in found["models"]] == ["sharp", "blind"]
    assert found["class_pixels"] == dict(zip(report.classes, single[0].class_pixels, strict=True))
    assert np.array(found["confusion"]).sum() == 2 * 4 * 32 * 32
    assert len(found["splits"]["miou"]["values"]) == 2
    assert found["splits"]["miou"]["mean"] == pytest.approx(
        np.mean([[part.scores.miou for part in e.splits] for e in report.evaluations])
    )
    assert found["corruptions"]["miou"]["fog"] == [0.5, 0.25]
    assert found["corruptions"]["models"][0]["fog"] == [0.75, 0.25]


def test_markdown_tables_are_complete(report):
    blocks = report.to_markdown().split("### ")[1:]
    assert len(blocks) == 5
    for block in blocks:
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len(rows) > 2
        assert len({row.count("|") for row in rows}) == 1
        assert set(rows[1]) <= set("|-: ")


def test_names_with_bars_do_not_break_the_table(report):
    piped = Report("t", ["a|b", "c"], report.evaluations, [])
    assert "a\\|b" in piped.to_markdown()


def test_figures(report):
    files = draw(report)
    assert sorted(files) == ["confusion.png", "corruptions.png", "iou.png"]
    for data in files.values():
        assert np.asarray(Image.open(io.BytesIO(data)).convert("L")).std() > 5
    assert draw(report) == files
    assert "corruptions.png" not in draw(Report("t", ["a"], report.evaluations[:1], []))


def test_the_error_without_matplotlib_names_the_extra(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'dataset-factory\[plots\]'"):
        draw(report)
