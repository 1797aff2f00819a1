"""factory.reports.page.charts: what is drawn where, read back from the SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from factory.reports.page import charts
from factory.reports.page.charts import Axis, Line, Mark


def parsed(chart: Markup) -> ElementTree.Element:
    """The chart, and the list of its colours if it has one."""
    return ElementTree.fromstring(f"<figure>{chart}</figure>")


def texts(chart: Markup) -> list[str]:
    return [element.text or "" for element in parsed(chart).iter("text")]


def test_points_lie_in_proportion_and_axes_are_labelled():
    chart = charts.lines(
        [Line("a", [0, 5, 10], [0, 2, 4], dots=True)],
        Axis("steps", 0, 10),
        Axis("loss, nats", 0, 4),
        "Loss",
        [Mark(5, "half")],
    )
    dots = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in parsed(chart).iter("circle")]
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y2 < y0  # upwards
    assert {"steps", "loss, nats", "half", "10", "4"} <= set(texts(chart))
    assert next(parsed(chart).iter("svg")).get("aria-label") == "Loss"


def test_histograms_stack():
    chart = charts.histogram(
        [0, 1, 2], [("kept", [3, 1]), ("dropped", [0, 3])], Axis("x", 0), Axis("y", 0), "h"
    )
    bars = [r for r in parsed(chart).iter("rect") if r.find("title") is not None]
    assert [r.get("class") for r in bars] == ["f1", "f1", "f2"]
    heights = [float(r.get("height", "")) for r in bars]
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.1)
    assert heights[2] == pytest.approx(heights[0], abs=0.1)
    bottom_of_dropped = float(bars[2].get("y", "")) + heights[2]
    assert bottom_of_dropped == pytest.approx(float(bars[1].get("y", "")), abs=0.1)
    assert "dropped: 3 from 1 to 2" in [r.findtext("title") for r in bars]


def test_bars_have_a_row_for_each_name_and_leave_out_what_is_unknown():
    chart = charts.bars(
        ["a", "b"], [("ours", [1.0, None]), ("other", [0.5, 0.25])], Axis("IoU"), "b"
    )
    widths = [float(r.get("width", "")) for r in parsed(chart).iter("rect") if r.get("rx")]
    assert len(widths) == 3
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert {"a", "b", "IoU"} <= set(texts(chart))


def test_cells_of_a_matrix_are_as_dark_as_their_share():
    shares = np.array([[0.75, 0.25], [np.nan, np.nan]])
    chart = charts.matrix(["cat", "dog"], shares, "m")
    cells = list(parsed(chart).iter("rect"))
    assert [c.findtext("title") for c in cells] == [
        "cat seen as cat: 75.0 %",
        "cat seen as dog: 25.0 %",
    ]
    dark, light = (float(c.get("fill-opacity", "")) for c in cells)
    assert dark == pytest.approx(0.04 + 0.96 * 0.75)
    assert light < dark
    many = [f"class {i}" for i in range(30)]
    wide = charts.matrix(many, np.eye(30), "m")
    assert "100" not in texts(wide)


def test_names_are_escaped_and_shortened():
    name = '<script>"&' + "x" * 40
    chart = charts.bars([name], [("s", [1.0])], Axis("&"), "<&>")
    assert "<script>" not in chart
    shown = next(text for text in parsed(chart).iter("text") if text.find("title") is not None)
    assert shown.findtext("title") == name
    assert (shown.find("title").tail or "").endswith("…")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.13, [0, 0.05, 0.1]),
        (3, 3.0001, None),
        (0, 50_000, [0, 10_000, 20_000, 30_000, 40_000, 50_000]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float] | None):
    found = charts._ticks(low, high)
    assert low <= found[0]
    assert found[-1] <= high
    if expected is not None:
        assert found == pytest.approx(expected)


def test_empty_and_constant_data_are_drawn():
    for x, y in (([1.0], [0.0]), ([], [])):
        chart = charts.lines([Line("a", x, y)], Axis("x"), Axis("y"), "flat")
        assert "nan" not in chart
