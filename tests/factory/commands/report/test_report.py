"""`factory report`: what is in the file, what is escaped, and one-line errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from factory.demo.render import CLASSES, render_folder
from tests.made_up import write_dataset

MEASURING = """
from factory.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
print(open("/proc/self/status").read())
"""
HOSTILE = ("back`ground`", "</script><script>alert(1)</script>", '"><img src=x onerror=alert(2)>')


class Elements(HTMLParser):
    """Tags with their attributes, and the text of the headings."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_heading = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings.append(data)
            self._in_heading = False

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_dataset_needs_nothing_else(factory: Callable, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", 60)
    result = factory("report", folder)
    assert result.code == 0, result.err
    assert str(folder / "report.html") in result.out
    text = (folder / "report.html").read_text()
    page = Elements(text)
    assert page.headings == [
        "Gallery",
        "Most and least certain",
        "What was dropped",
        "Uncertainty",
        "Class balance",
        "Examples of each class",
        "Synthetic against real",
        "Near-copies of training images",
        "Recipe and provenance",
    ]
    assert "54 images of 32 × 32 pixels" in text
    assert "1" * 64 in text  # digest of the weights
    assert all(option in text for option in ("--real DIR", "--labeled DIR", "--keep-candidates"))
    orders = [
        float(tile["data-order"] or "nan") for tile in page.named("button") if "data-order" in tile
    ]
    assert len(orders) == 54 + 8 + 8 + 3 * 8
    first, report = text, factory("report", folder, "--out", tmp_path / "again.html")
    assert report.code == 0
    assert (tmp_path / "again.html").read_text() == first


def test_dropped_samples_are_shown_while_their_candidates_exist(
    factory: Callable, tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "data", 60, candidates=True)
    assert factory("report", folder).code == 0
    text = (folder / "report.html").read_text()
    assert "Dropped samples" in text
    assert "--keep-candidates" not in text


def test_text_of_the_data_is_escaped_and_nothing_is_loaded(
    factory: Callable, tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "data", 40, classes=HOSTILE)
    assert factory("report", folder).code == 0
    text = (folder / "report.html").read_text()
    page = Elements(text)
    assert len(page.named("script")) == 1
    assert not any(name.startswith("on") or name == "style" for _, a in page.tags for name in a)
    sources = [a["src"] or "" for _, a in page.tags if "src" in a]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert all((a["href"] or "").startswith("#") for _, a in page.tags if "href" in a)
    assert not any(tag in ("link", "iframe", "object") for tag, _ in page.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "alert(2)&gt;" in text


def test_a_model_that_was_not_tested_says_how(
    factory: Callable, tiny_segmenter: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    tiny_segmenter(CLASSES).save(folder)
    result = factory("report", folder)
    assert result.code == 0, result.err
    text = (folder / "report.html").read_text()
    assert text.count("--labeled DIR") >= 3
    assert "--evaluation FILE" in text


def test_a_model_with_everything(
    factory: Callable, tiny_segmenter: Callable, tmp_path: Path
) -> None:
    for name, seed in (("model", 0), ("other", 1)):
        tiny_segmenter(CLASSES, seed=seed).save(tmp_path / name)
    (tmp_path / "model" / "curves.csv").write_text("step,loss,miou\n10,1.5,0.2\n20,0.9,0.4\n")
    render_folder(tmp_path / "test", range(5), size=32)
    model, labeled = tmp_path / "model", ("--labeled", tmp_path / "test")
    scored = factory("evaluate", "--model", model, *labeled, "--json", tmp_path / "scores.json")
    assert scored.code == 0, scored.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    scores["corruptions"] = {
        "policy": "mean",
        "severities": [1, 2],
        "clean": 0.5,
        "mpc": 0.3,
        "rpc": 0.6,
        "miou": {"motion_blur": [0.4, 0.2]},
    }
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    given = ("--baseline", tmp_path / "other", "--evaluation", tmp_path / "scores.json")
    result = factory("report", model, *labeled, *given)
    assert result.code == 0, result.err
    text = (model / "report.html").read_text()
    assert f"{scores['miou']:.3f}" in text
    assert "motion blur" in text
    assert "baseline (other)" in text
    assert "Validation mIoU" in text
    assert len(Elements(text).named("figure")) > 5
    assert "add <code>" not in text

    only_recorded = factory("report", model, "--evaluation", tmp_path / "scores.json")
    assert only_recorded.code == 0, only_recorded.err
    assert "Confusion matrix" in (model / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("empty",), "holds none of dataset.json, model.json, labeler.json, folds.json"),
        (("data", "--baseline", "model"), "found --baseline for a dataset"),
        (("model", "--real", "photos"), "found --real for a segmenter"),
        (("model", "--baseline", "model"), "add --labeled DIR"),
        (("model", "--evaluation", "none.json"), "--evaluation none.json: no such file"),
        (("model", "--evaluation", "data/dataset.json"), "dataset.json"),
        (("unfinished",), "its job is not finished"),
        (("damaged",), "fidelity.json is damaged: delete it, or give --real DIR"),
        (("data", "--real", "empty"), "empty"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    arguments: tuple[str, ...],
    message: str,
    factory: Callable,
    tiny_segmenter: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / "candidates").mkdir(parents=True)
    for name in ("data", "damaged"):
        write_dataset(tmp_path / name, 20)
    (tmp_path / "damaged" / "fidelity.json").write_text("[")
    tiny_segmenter(CLASSES).save(tmp_path / "model")
    result = factory("report", *arguments)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not list(tmp_path.rglob("report.html"))


@pytest.mark.slow
def test_fifty_thousand_samples_stay_small(tmp_path: Path) -> None:
    """Below 10 MB, and below 1 GB of memory."""
    folder = write_dataset(tmp_path / "data", 50_000, size=(64, 64))
    command = [sys.executable, "-c", MEASURING, "report", str(folder)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (folder / "report.html").stat().st_size < 10e6
    found = re.search(r"VmHWM:\s+(\d+) kB", printed)
    assert found
    assert int(found[1]) < 1e9 / 1024
