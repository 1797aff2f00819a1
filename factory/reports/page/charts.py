"""Charts as SVG: bars, histograms, lines, points, matrices.

Colours are classes of the page's style sheet (`f1`... fill, `l1`... stroke), so charts follow the
theme. Each chart has a text alternative, labelled axes, and numbers that appear on hovering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 22, 44
COLOURS = 6
CHARACTER = 6.2  # width of an average character, in units of the drawing
LONGEST_NAME = 24  # characters
CELL = 34  # side of a cell of a matrix
MOST_NUMBERED = 16  # with more classes, cells are small and have no numbers


@dataclass(frozen=True)
class Line:
    """A series of points (x, y), joined or not."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool = True
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A dashed line across the plot at `x`."""

    x: float
    label: str


@dataclass(frozen=True)
class Axis:
    """Label and range of an axis; None ends where the data do."""

    label: str
    low: float | None = None
    high: float | None = None


def lines(
    series: Sequence[Line], x: Axis, y: Axis, alternative: str, marks: Sequence[Mark] = ()
) -> Markup:
    """Lines or points over a common pair of axes."""
    plot = _Plot.around(x, y, [v for s in series for v in s.x], [v for s in series for v in s.y])
    parts = [plot.frame(), *(plot.mark(mark) for mark in marks)]
    for i, one in enumerate(series):
        colour, points = i % COLOURS + 1, list(zip(one.x, one.y, strict=True))
        if one.joined:
            path = " ".join(f"{plot.x(a):.1f},{plot.y(b):.1f}" for a, b in points)
            parts.append(Markup('<polyline class="line l{}" points="{}"/>').format(colour, path))
        if one.dots or not one.joined:
            dot = Markup(
                '<circle class="f{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}: {:.4g}, {:.4g}'
                "</title></circle>"
            )
            parts += [dot.format(colour, plot.x(a), plot.y(b), one.name, a, b) for a, b in points]
    return _svg(WIDTH, HEIGHT, alternative, parts) + _key([s.name for s in series])


def histogram(
    edges: Sequence[float],
    counts: Sequence[tuple[str, Sequence[float]]],
    x: Axis,
    y: Axis,
    alternative: str,
    marks: Sequence[Mark] = (),
) -> Markup:
    """Named counts per bin, one above the other."""
    total = np.sum([values for _, values in counts], axis=0)
    plot = _Plot.around(x, y, list(edges), [0.0, *total.tolist()])
    parts, base = [plot.frame()], np.zeros(len(total))
    bar = Markup(
        '<rect class="f{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"><title>'
        "{}: {:.4g} from {:.4g} to {:.4g}</title></rect>"
    )
    for i, (name, values) in enumerate(counts, 1):
        for k, value in enumerate(values):
            if value:
                left, right = plot.x(edges[k]), plot.x(edges[k + 1])
                top, bottom = plot.y(base[k] + value), plot.y(base[k])
                width = max(right - left - 0.6, 0.5)
                shape = (i, left, top, width, bottom - top)
                parts.append(bar.format(*shape, name, value, edges[k], edges[k + 1]))
        base += np.asarray(values)
    parts += [plot.mark(mark) for mark in marks]
    return _svg(WIDTH, HEIGHT, alternative, parts) + _key([name for name, _ in counts])


def bars(
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    axis: Axis,
    alternative: str,
) -> Markup:
    """Horizontal bars: a group per name, a bar per series; None leaves a bar out."""
    thick, gap = (15 if len(series) == 1 else 12), 10
    group = thick * len(series) + gap
    shown = [_short(name) for name in names]
    left = 14 + max(len(name) for name in shown) * CHARACTER
    height = group * len(names) + 46
    values = [v for _, column in series for v in column if v is not None and v == v]
    high = axis.high if axis.high is not None else max([*values, 1e-9])
    ticks = _ticks(0, high)
    scale = (WIDTH - left - 46) / max(high, ticks[-1])
    bottom = group * len(names) + 4
    parts = [_grid(left + t * scale, 0, left + t * scale, bottom) for t in ticks]
    parts += [_text(left + t * scale, bottom + 15, f"{t:g}", "middle") for t in ticks]
    parts.append(_text((left + WIDTH - 46) / 2, height - 6, axis.label, "middle"))
    bar = Markup('<rect class="f{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="2"/>')
    for row, name in enumerate(shown):
        top = row * group + gap / 2
        middle = top + (group - gap) / 2 + 4
        parts.append(_text(left - 8, middle, name, "end", strong=True, hint=names[row]))
        for i, (_, column) in enumerate(series):
            value = column[row]
            if value is None or value != value:
                continue
            y = top + i * thick
            parts.append(bar.format(i + 1, left, y, max(value * scale, 0.8), thick - 1))
            parts.append(_text(left + value * scale + 5, y + thick - 2.5, f"{value:.3g}"))
    return _svg(WIDTH, height, alternative, parts) + _key([name for name, _ in series])


def matrix(names: Sequence[str], shares: np.ndarray, alternative: str) -> Markup:
    """Shares `[K, K]` in 0-1 (nan: none) of each row's class seen as each column's class."""
    k = len(names)
    cell = CELL if k <= MOST_NUMBERED else 16
    shown = [_short(name) for name in names]
    longest = max(len(name) for name in shown) * CHARACTER
    left, top = longest + 26, longest * 0.75 + 22
    width, height = left + k * cell + longest * 0.6 + 12, top + k * cell + 8
    parts = [_text(left, 11, "seen as →"), _text(left - 8, top - 8, "true ↓", "end")]
    square = Markup(
        '<rect class="cell" x="{:.1f}" y="{:.1f}" width="{}" height="{}" fill-opacity="{:.3f}">'
        "<title>{} seen as {}: {:.1f} %</title></rect>"
    )
    for i, name in enumerate(shown):
        parts.append(_text(left - 8, top + i * cell + cell / 2 + 4, name, "end", True, names[i]))
        x, y = left + i * cell + cell / 2, top - 6
        turned = Markup(
            '<text class="strong" transform="translate({:.1f} {:.1f}) rotate(-45)">{}</text>'
        )
        parts.append(turned.format(x, y, name))
        for j in range(k):
            share = float(shares[i, j])
            if share != share:
                continue
            x, y = left + j * cell, top + i * cell
            opacity = 0.04 + 0.96 * share
            parts.append(
                square.format(x, y, cell - 1, cell - 1, opacity, name, names[j], 100 * share)
            )
            if k <= MOST_NUMBERED:
                number = f"{100 * share:.0f}" if share >= 0.095 else f"{100 * share:.1f}"
                kind = "on" if share > 0.55 else "strong"
                text = Markup(
                    '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>'
                )
                parts.append(text.format(kind, x + cell / 2, y + cell / 2 + 4, number))
    return _svg(width, height, alternative, parts, is_wide=width > WIDTH)


# --- parts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plot:
    """A pair of axes: data coordinates to those of the drawing."""

    x_axis: Axis
    y_axis: Axis
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    @classmethod
    def around(cls, x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> _Plot:
        """Axes that hold all the data."""
        ends = [
            _ends(axis, [v for v in values if math.isfinite(v)])
            for axis, values in ((x, xs), (y, ys))
        ]
        (a, b), (c, d) = ends
        return cls(Axis(x.label, a, b), Axis(y.label, c, d), _ticks(a, b), _ticks(c, d))

    def x(self, value: float) -> float:
        low, high = _range(self.x_axis)
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = _range(self.y_axis)
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def frame(self) -> Markup:
        """Grid, ticks and labels."""
        bottom = HEIGHT - BOTTOM
        parts = [_grid(LEFT, self.y(t), WIDTH - RIGHT, self.y(t)) for t in self.y_ticks]
        parts += [_text(LEFT - 6, self.y(t) + 4, f"{t:g}", "end") for t in self.y_ticks]
        parts += [_text(self.x(t), bottom + 16, f"{t:g}", "middle") for t in self.x_ticks]
        axis = Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(axis.format(LEFT, WIDTH - RIGHT, bottom, bottom))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, self.x_axis.label, "middle"))
        middle = (TOP + bottom) / 2
        label = Markup(
            '<text transform="translate(12 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>'
        )
        parts.append(label.format(middle, self.y_axis.label))
        return Markup("").join(parts)

    def mark(self, mark: Mark) -> Markup:
        x, is_right = self.x(mark.x), self.x(mark.x) > WIDTH * 0.6
        line = Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
        anchor = "end" if is_right else "start"
        label = _text(x + (-5 if is_right else 5), TOP - 9, mark.label, anchor, strong=True)
        return line.format(x, TOP - 18, HEIGHT - BOTTOM) + label


def _range(axis: Axis) -> tuple[float, float]:
    assert axis.low is not None
    assert axis.high is not None
    return axis.low, axis.high


def _ends(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    low = axis.low if axis.low is not None else min(values, default=0.0)
    high = axis.high if axis.high is not None else max(values, default=1.0)
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * f for f in (1, 2, 2.5, 5, 10) if unit * f >= rough)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(max(count, 1))]


def _svg(
    width: float, height: float, alternative: str, parts: Sequence[Markup], is_wide: bool = False
) -> Markup:
    # A wide drawing keeps its size and scrolls; others shrink with the page.
    size = Markup(' class="wide" width="{:.0f}"').format(width) if is_wide else Markup("")
    template = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {:.0f} {:.0f}"{}>{}</svg>')
    return template.format(alternative, width, height, size, Markup("").join(parts))


def _key(names: Sequence[str]) -> Markup:
    """The colours of several series; nothing for a single one."""
    if len(names) < 2:
        return Markup("")
    entry = Markup(
        '<li><svg class="swatch" viewBox="0 0 12 12" aria-hidden="true">'
        '<rect class="f{}" width="12" height="12"/></svg>{}</li>'
    )
    items = [entry.format(i % COLOURS + 1, name) for i, name in enumerate(names)]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _grid(x1: float, y1: float, x2: float, y2: float) -> Markup:
    template = Markup('<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return template.format(x1, y1, x2, y2)


def _text(
    x: float, y: float, text: str, anchor: str = "start", strong: bool = False, hint: str = ""
) -> Markup:
    kind = Markup(' class="strong"') if strong else Markup("")
    title = Markup("<title>{}</title>").format(hint) if hint and hint != text else Markup("")
    template = Markup('<text{} x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>')
    return template.format(kind, x, y, anchor, title, text)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
