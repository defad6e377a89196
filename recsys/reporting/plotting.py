"""Results as matplotlib figures, in one style, without global state and without a display.

Every function returns a new Figure: `figure.savefig(path)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.errors import DataError
from recsys.evaluation.calibration import CalibrationBin
from recsys.evaluation.metrics import lower_is_better
from recsys.latent.maps import LatentMap
from recsys.reporting.map_page import LIGHT, MapTexts, group_numbers, heading, judge, subtitle
from recsys.system.packages import missing_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_P = ParamSpec("_P")

ACCENT = "#0072B2"  # highlights; darker than MUTED also without color vision
INK = "#262626"  # text
MUTED = "#9A9A9A"  # context
GRID = "#E8E8E8"
WIDTH = 6.4  # inches, at 150 dots per inch

_STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.1,  # inches
    "figure.constrained_layout.w_pad": 0.1,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def _styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw in the style of this module, without changing the caller's matplotlib settings."""

    @functools.wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        try:
            from matplotlib import rc_context
        except ModuleNotFoundError as error:
            raise missing_package("matplotlib", "plots") from error
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def _panels(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of WIDTH x `height` inches with `rows` panels that share the x axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


@_styled
def training_curve(epochs: Sequence[Mapping[str, float]], metric: str) -> Figure:
    """Draw the validation metric and the training loss over the epochs, the best epoch marked.

    Parameters
    ----------
    epochs : sequence of mappings
        One per epoch: `loss`, `metric` where the epoch was validated, `epoch` (1, 2, ... if absent).
    metric : str
        Name of the validation metric.

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If no finite value is left to draw.
    """
    from matplotlib.ticker import MaxNLocator

    curves = {name: _curve(epochs, name) for name in (metric, "loss")}
    curves = {name: curve for name, curve in curves.items() if len(curve[0])}
    if not curves:
        raise DataError(f"Expected at least one epoch with a finite {metric} or loss to draw, found none.")
    figure, panels = _panels(0.6 + 1.5 * len(curves), len(curves))
    for axes, (name, (numbers, values)) in zip(panels, curves.items(), strict=True):
        axes.plot(numbers, values, color=ACCENT if name == metric else MUTED, marker="o" if len(numbers) == 1 else None)
        axes.set_title(name if name == metric else "training loss", fontweight="normal")
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.spines.bottom.set_visible(axes is panels[-1])
        axes.tick_params(axis="x", length=3 if axes is panels[-1] else 0)
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(0.5, max(row.get("epoch", i) for i, row in enumerate(epochs, start=1)) + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if metric in curves:
        _mark_best(panels, *curves[metric], metric)
    return figure


def _curve(epochs: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a curve, without epochs that have no finite value."""
    points = [(row.get("epoch", i), row[name]) for i, row in enumerate(epochs, start=1) if name in row]
    points = [(epoch, value) for epoch, value in points if np.isfinite(value)]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _mark_best(panels: Sequence[Axes], epochs: Sequence[float], values: Sequence[float], metric: str) -> None:
    """Mark the best epoch in all panels."""
    best = int(np.argmin(values) if lower_is_better(metric) else np.argmax(values))
    for axes in panels:
        axes.axvline(epochs[best], color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    panels[0].plot(epochs[best], values[best], "o", color=ACCENT, markeredgecolor="white", markersize=7)
    panels[0].set_title(f"{metric}: best {values[best]:.4f} at epoch {epochs[best]:g}", fontweight="bold")


@_styled
def leaderboard(table: pd.DataFrame, metric: str) -> Figure:
    """Draw a leaderboard: for each model, best first, a dot at its mean and a line over its 95 % interval.

    Parameters
    ----------
    table : DataFrame
        Columns model, <metric>, <metric>_low, <metric>_high; NaN for a model without an interval.
    metric : str
        Name of the metric.

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If a column is missing or the table is empty.
    """
    low, high = f"{metric}_low", f"{metric}_high"
    missing = {"model", metric, low, high} - set(table.columns)
    if missing or table.empty:
        raise DataError(
            f"Expected rows with model, {metric}, {low}, {high}; missing {sorted(missing)}, {len(table)} rows."
        )
    ordered = table.sort_values(metric, ascending=lower_is_better(metric), kind="stable")
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _panels(0.9 + 0.28 * len(ordered))
    for position, row in enumerate(ordered.to_dict("records")):
        color, weight = (ACCENT, "bold") if position == 0 else (MUTED, "normal")
        axes.plot([row[low], row[high]], [position, position], color=color, linewidth=2.2)
        axes.plot(row[metric], position, "o", color=color, markersize=6, markeredgecolor="white")
        label: Any = {"transform": axes.get_yaxis_transform(), "va": "center_baseline", "fontweight": weight}
        axes.text(1.02, position, f"{row[metric]:.4f}", **label)
    axes.set_yticks(range(len(ordered)), [str(name) for name in ordered["model"]])
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")
    axes.grid(axis="y", visible=False)
    over = "over all ratings" if lower_is_better(metric) else "mean over users"
    axes.set_title(f"{metric}, {over} and 95 % interval")
    return figure


# predicted ratings


@_styled
def calibration_curve(bins: Sequence[CalibrationBin]) -> Figure:
    """Draw the mean observed rating against the mean predicted one, a dot for each bin.

    Parameters
    ----------
    bins : sequence of CalibrationBin
        From recsys.evaluation.calibration. On the dashed line predictions are right on average.

    Returns
    -------
    Figure

    Raises
    ------
    DataError
        If there is no bin.
    """
    if not bins:
        raise DataError("Expected at least one bin of predicted ratings to draw, found none.")
    predicted, observed = ([each[name] for each in bins] for name in ("predicted", "observed"))
    ends = min(*predicted, *observed), max(*predicted, *observed)
    figure, (axes,) = _panels(WIDTH * 0.75)
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    axes.plot(predicted, observed, color=ACCENT, marker="o", markersize=5, markeredgecolor="white")
    axes.grid(axis="x")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(f"predicted against observed, {sum(each['cells'] for each in bins):,} ratings")
    axes.set_xlabel("mean predicted rating")
    axes.set_ylabel("mean observed rating")
    return figure


# the data


@_styled
def long_tail(interactions: Interactions) -> Figure:
    """Draw the users of each item, most popular first, on logarithmic axes; a line marks half of all rows."""
    counts = np.sort(np.bincount(interactions.item))[::-1]
    half = int(np.searchsorted(np.cumsum(counts), len(interactions) / 2)) + 1
    figure, (axes,) = _panels(3.0)
    axes.loglog(np.arange(1, len(counts) + 1), counts, color=ACCENT, marker="o" if len(counts) == 1 else None)
    axes.axvline(half, color=MUTED, linewidth=1)
    axes.set_title(f"{half:,} of {len(counts):,} items have half of all rows")
    axes.set_xlabel("item, by popularity")
    axes.set_ylabel("users")
    return figure


@_styled
def ratings_histogram(interactions: Interactions) -> Figure:
    """Draw the rows by rating: a bar for each level, or fifty bins where there are more; growing bins for counts.

    Raises
    ------
    DataError
        If there are no ratings.
    """
    if interactions.rating is None:
        raise DataError("Expected ratings to draw, found none.")
    levels, counts = np.unique(interactions.rating, return_counts=True)
    figure, (axes,) = _panels(2.6)
    if interactions.scale is not None and interactions.scale.kind == "count" and levels[0] > 0:
        axes.hist(interactions.rating, bins=list(np.geomspace(levels[0], levels[-1], 51)), color=ACCENT)
        axes.set_xscale("log")
    elif len(levels) <= 50:
        width = 0.8 * float(np.diff(levels).min()) if len(levels) > 1 else 0.8
        axes.bar(levels, counts, width=width, color=ACCENT)
    else:
        axes.hist(interactions.rating, bins=50, color=ACCENT)
    axes.set_title("rows by rating")
    axes.set_xlabel("rating")
    axes.set_ylabel("rows")
    return figure


@_styled
def activity(interactions: Interactions) -> Figure:
    """Draw the rows over time, in a hundred equal periods; DataError if there are no timestamps."""
    if interactions.timestamp is None:
        raise DataError("Expected timestamps to draw, found none.")
    counts, edges = np.histogram(interactions.timestamp, bins=100)
    figure, (axes,) = _panels(2.6)
    axes.fill_between(edges[:-1].astype("datetime64[ms]"), counts, step="post", color=ACCENT, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_title("rows over time")
    axes.set_ylabel("rows")
    return figure


# a batch of lists


@_styled
def exposure(listed: NDArray[np.int64]) -> Figure:
    """Draw how many lists each item is in, most listed first, on logarithmic axes.

    Parameters
    ----------
    listed : ndarray of int64, shape (items,)
        Number of lists of each item.
    """
    counts = np.sort(listed[listed > 0])[::-1]
    figure, (axes,) = _panels(3.0)
    axes.loglog(np.arange(1, len(counts) + 1), counts, color=ACCENT, marker="o" if len(counts) == 1 else None)
    axes.set_title(f"{len(counts):,} of {len(listed):,} items are in a list")
    axes.set_xlabel("item, by number of lists")
    axes.set_ylabel("lists")
    return figure


# a map


@_styled
def latent_map(drawn: LatentMap, texts: MapTexts) -> Figure:
    """Draw a map of items or users: points by cluster or group, the names of clusters, how far to trust it.

    Parameters
    ----------
    drawn : LatentMap
    texts : MapTexts
        Titles and groups of its points.

    Returns
    -------
    Figure
    """
    from matplotlib.patheffects import withStroke

    figure, (axes,) = _panels(WIDTH)
    names, numbers = group_numbers(texts)
    shown = drawn.clusters if texts.groups is None else numbers
    face = [LIGHT[number] if number >= 0 else MUTED for number in shown]
    sizes = 3 + 60 * drawn.popularity / max(1, drawn.popularity.max())
    axes.scatter(drawn.plane[:, 0], drawn.plane[:, 1], s=sizes, c=face, alpha=0.75, linewidths=0)
    halo = [withStroke(linewidth=2.5, foreground="white")]
    room, placed = float(np.ptp(drawn.plane, axis=0).max()) * np.array([0.24, 0.05]), list[NDArray[np.floating]]()
    for cluster, titles in enumerate(texts.clusters):
        x, y = center = np.median(drawn.plane[drawn.clusters == cluster], axis=0)
        if any((np.abs(center - other) < room).all() for other in placed):
            continue  # the name of a larger cluster is there
        placed.append(center)
        text = "\n".join(title if len(title) <= 30 else title[:29] + "…" for title in titles[:2])
        axes.text(
            x, y, text, ha="center", va="center", fontsize=6, fontweight="bold", path_effects=halo, parse_math=False
        )
    for number, name in enumerate(names[: len(LIGHT)] if texts.groups is not None else ()):
        axes.scatter([], [], c=LIGHT[number], s=18, label=name.replace("$", r"\$"))
    if texts.groups is not None:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines.bottom.set_visible(False)
    axes.set_title(f"{heading(drawn, texts)}: {subtitle(drawn, texts)}", fontsize=7, wrap=True)
    verdict = judge(drawn.trust, texts.noun)
    axes.set_xlabel(f"{verdict.title}\n{verdict.measured}", fontsize=7, wrap=True)
    return figure
