"""Small charts as SVG for an HTML page, whose style sheet gives the colors: they follow light and dark mode.

Every chart is drawn for a width of 360 pixels, that of a phone. `color` is a number in the palette of the page.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 14, 38
_LINE = 13  # least distance of two labels
_LETTER = 6.2  # mean width of a letter at 11 px


@dataclass(frozen=True)
class Series:
    """Points of one model.

    Attributes
    ----------
    name : str
        Label.
    color : int
        Number in the palette.
    points : sequence of (float, float)
        x and y.
    bounds : sequence of (float, float)
        Ends of the interval of y at each point, drawn as a band; empty where there are none.
    """

    name: str
    color: int
    points: Sequence[tuple[float, float]]
    bounds: Sequence[tuple[float, float]] = ()

    @property
    def band(self) -> list[tuple[float, float]]:
        """The outline of the band: the lower ends from left to right, then the upper ends back."""
        xs = [x for x, _ in self.points][: len(self.bounds)]
        lows, highs = ([pair[end] for pair in self.bounds] for end in (0, 1))
        return [*zip(xs, lows, strict=True), *reversed([*zip(xs, highs, strict=True)])]


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, of one model.

    Attributes
    ----------
    name : str
        Label.
    color : int
        Number in the palette.
    mean, low, high : float
        The mean, and the ends of the interval.
    """

    name: str
    color: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class _Axis:
    """Values low..high on pixels start..stop, by the logarithm if `log`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round values on the axis."""
        if not self.log:
            return _ticks(self.low, self.high)
        powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        return [10.0**power for power in powers]


def line_chart(
    series: Sequence[Series],
    x_label: str,
    x_ticks: Sequence[float] | None = None,
    log: bool = False,
    title: str = "",
    diagonal: bool = False,
) -> str:
    """Draw a line for each series, its name at the right end.

    Parameters
    ----------
    series : sequence of Series
        At least one; each with at least one point.
    x_label : str
        Name of the x axis.
    x_ticks : sequence of float, optional
        Where to mark the x axis; at round numbers if None.
    log : bool
        Whether the x axis is logarithmic.
    title : str
        Description for screen readers.
    diagonal : bool
        Whether to mark where y equals x.

    Returns
    -------
    str
        SVG, names escaped.
    """
    room = 14 + _LETTER * max(len(one.name) for one in series)
    x, y = _axes([point for one in series for point in (*one.points, *one.band)], log, right=room)
    parts = [_grid(x, y, x_label, "", x_ticks, right=room)]
    for one in series:
        if one.bounds:
            outline = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in one.band)
            parts.append(f'<polygon class="band s{one.color}" points="{outline}"/>')
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        where = f'x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}" y2="{y(high):.1f}"'
        parts.append(f'<line class="base" {where}/>')
    for one in series:
        path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in one.points)
        parts.append(f'<polyline class="line s{one.color}" points="{path}"/>')
        if len(one.points) <= 10:
            parts += [
                f'<circle class="dot s{one.color}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="2.6"/>' for px, py in one.points
            ]
    ends = _apart([y(one.points[-1][1]) for one in series])
    for one, end in zip(series, ends, strict=True):
        parts.append(
            f'<text class="name s{one.color}" x="{WIDTH - room + 6:.1f}" y="{end + 4:.1f}">{escape(one.name)}</text>'
        )
    return _svg(parts, title)


def scatter_chart(series: Sequence[Series], x_label: str, y_label: str, log: bool = False, title: str = "") -> str:
    """Draw a named dot for each series, at its only point.

    Parameters
    ----------
    series : sequence of Series
        Each with one point.
    x_label, y_label : str
        Names of the axes.
    log : bool
        Whether the x axis is logarithmic.
    title : str
        Description for screen readers.

    Returns
    -------
    str
        SVG, names escaped.
    """
    x, y = _axes([one.points[0] for one in series], log, margin=0.12)
    parts = [_grid(x, y, x_label, y_label)]
    dots = [(x(one.points[0][0]), y(one.points[0][1])) for one in series]
    taken = [(px - 7, px + 7, py) for px, py in dots]
    for one, (px, py) in zip(series, dots, strict=True):
        width = _LETTER * len(one.name)
        start, line = _free_position(px, py, width, taken)
        taken.append((start, start + width, line))
        if abs(line - py) > 6:
            near = min(max(px, start), start + width)
            parts.append(f'<line class="lead" x1="{px:.1f}" y1="{py:.1f}" x2="{near:.1f}" y2="{line:.1f}"/>')
        parts.append(f'<circle class="dot s{one.color}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>')
        parts.append(f'<text class="name s{one.color}" x="{start:.1f}" y="{line + 4:.1f}">{escape(one.name)}</text>')
    return _svg(parts, title)


def _free_position(
    px: float, py: float, width: float, taken: Sequence[tuple[float, float, float]]
) -> tuple[float, float]:
    """Left end and height of a label near a dot that touches no other: beside the dot first, then further away."""
    lines = [py + step * sign for step in range(0, 120, 7) for sign in (1, -1)]
    positions = [(start, line) for line in lines for start in (px + 9, px - 9 - width)]
    for start, line in positions:
        inside = start >= _LEFT and start + width <= WIDTH - 2 and _TOP <= line <= HEIGHT - _BOTTOM - 6
        if inside and all(
            start > right or left > start + width or abs(line - other) >= _LINE for left, right, other in taken
        ):
            return start, line
    return positions[0]


def interval_chart(
    rows: Mapping[str, Sequence[Interval]], x_label: str, title: str = "", from_zero: bool = True
) -> str:
    """Draw intervals in rows under headings.

    Parameters
    ----------
    rows : mapping of str to sequence of Interval
        The intervals under each heading.
    x_label : str
        Name of the x axis.
    title : str
        Description for screen readers.
    from_zero : bool
        Whether the axis starts at 0; otherwise near the lowest value.

    Returns
    -------
    str
        SVG, names escaped.
    """
    marks = [mark for group in rows.values() for mark in group] or [Interval("", 0, 0.0, 0.0, 0.0)]
    height = _TOP + sum(24 + 15 * len(group) for group in rows.values()) + _BOTTOM - 2
    room = 10 + _LETTER * max(len(mark.name) for mark in marks)
    high = max(mark.high for mark in marks)
    low, high = (0, high * 1.02 or 1) if from_zero else _padded(min(mark.low for mark in marks), high, 0.04)
    x = _Axis(low, high, room, WIDTH - _RIGHT)
    parts = [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{height - _BOTTOM + 14}" text-anchor="middle">{_number(tick)}</text>'
        for tick in x.ticks()
    ]
    parts.append(
        f'<text class="label" x="{WIDTH - _RIGHT}" y="{height - 6}" text-anchor="end">{escape(x_label)}</text>'
    )
    line = float(_TOP)
    for heading, group in rows.items():
        line += 14
        parts.append(f'<text class="heading" x="0" y="{line:.1f}">{escape(heading)}</text>')
        for mark in group:
            line += 15
            parts.append(
                f'<text class="tick" x="{room - 8:.1f}" y="{line + 3.5:.1f}" text-anchor="end">'
                f"{escape(mark.name)}</text>"
                f'<line class="line s{mark.color}" x1="{x(mark.low):.1f}" x2="{x(mark.high):.1f}" '
                f'y1="{line:.1f}" y2="{line:.1f}"/>'
                f'<circle class="dot s{mark.color}" cx="{x(mark.mean):.1f}" cy="{line:.1f}" r="3.6"/>'
            )
        line += 10
    return _svg(parts, title, height)


def interval_bar(mean: float, low: float, high: float, scale: tuple[float, float], color: int) -> str:
    """Draw a dot with its interval for a cell of a table.

    Parameters
    ----------
    mean, low, high : float
        The mean, and the ends of its interval.
    scale : (float, float)
        Values at the left and the right end of the cell.
    color : int
        Number in the palette.

    Returns
    -------
    str
        SVG.
    """
    x = _Axis(*scale, 5, 115)
    return (
        f'<svg class="bar" viewBox="0 0 120 14" aria-hidden="true"><line class="grid" x1="4" x2="116" y1="7" y2="7"/>'
        f'<line class="line s{color}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="7" y2="7"/>'
        f'<circle class="dot s{color}" cx="{x(mean):.1f}" cy="7" r="4"/></svg>'
    )


def _axes(
    points: Sequence[tuple[float, float]], log: bool, right: float = _RIGHT, margin: float = 0.04
) -> tuple[_Axis, _Axis]:
    """The axes of a chart of these points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low_y, high_y = _padded(min(ys), max(ys), margin)
    if log:
        low_x, high_x = max(min(xs), 1e-3), max(max(xs), 2e-3)
        pad = (high_x / low_x) ** (margin if margin > 0.05 else 0) if high_x > low_x else 2.0
        low_x, high_x = low_x / pad, high_x * pad
    else:
        low_x, high_x = _padded(min(xs), max(xs), margin if margin > 0.05 else 0)
    return _Axis(low_x, high_x, _LEFT, WIDTH - right, log), _Axis(low_y, high_y, HEIGHT - _BOTTOM, _TOP)


def _padded(low: float, high: float, margin: float) -> tuple[float, float]:
    """A range with a margin on both sides; a range from 0 on does not go below 0."""
    pad = (high - low) * margin or abs(high) * 0.1 or 1
    return (max(0.0, low - pad) if low >= 0 else low - pad), high + pad


def _grid(
    x: _Axis, y: _Axis, x_label: str, y_label: str, x_ticks: Sequence[float] | None = None, right: float = _RIGHT
) -> str:
    """Grid lines, ticks and labels of the axes."""
    base = HEIGHT - _BOTTOM
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - right:.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>'
        for tick in y.ticks()
    ]
    parts += [
        f'<text class="tick" x="{x(tick):.1f}" y="{base + 15}" text-anchor="middle">{_number(tick)}</text>'
        for tick in (x.ticks() if x_ticks is None else x_ticks)
    ]
    parts.append(f'<line class="base" x1="{_LEFT}" x2="{WIDTH - right:.1f}" y1="{base}" y2="{base}"/>')
    parts.append(
        f'<text class="label" x="{WIDTH - right:.1f}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>'
    )
    if y_label:
        parts.append(f'<text class="label" x="0" y="9">{escape(y_label)}</text>')
    return "".join(parts)


def _apart(heights: Sequence[float]) -> list[float]:
    """The same heights, moved so that no two labels touch and all stay on the chart."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for one, two in itertools.pairwise(order):
        moved[two] = max(moved[two], moved[one] + _LINE)
    over = max(moved, default=0) - (HEIGHT - _BOTTOM)
    if over > 0:
        moved[order[-1]] -= over
        for two, one in itertools.pairwise(order[::-1]):
            moved[one] = min(moved[one], moved[two] - _LINE)
    return moved


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about `count` of them."""
    raw = (high - low) / count or 1
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    """The label of a tick."""
    return f"{value:,.10g}"


def _svg(parts: Sequence[str], title: str, height: float = HEIGHT) -> str:
    """The whole chart."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
