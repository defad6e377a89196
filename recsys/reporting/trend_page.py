"""The last nights of a nightly job as one HTML file that opens offline: measures over time, and what has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from recsys.batch.shift import FEWEST, LARGE, SLIGHT, is_unusual
from recsys.reporting.page import template, trusted
from recsys.reporting.svg import WIDTH
from recsys.reporting.texts import figure
from recsys.system.text import plural

SHIFTS = ("score_shift", "item_shift")  # judged by their own thresholds
MEANINGS = {
    "score_shift": "population stability index of the scores against the lists in use before",
    "item_shift": "population stability index of which items are listed, against the lists in use before",
    "overlap": "share of a list that was in the same user’s list before",
    "coverage": "share of the catalog in at least one list",
    "popularity": "share of the rows on the items that have half of all interactions",
    "short_lists": "share of users with fewer items than asked for",
    "score_p05": "5 % of the scores are lower",
    "score_p50": "the median score",
    "score_p95": "95 % of the scores are lower",
    "users": "users with a list",
    "rows": "rows of all lists",
}
_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 130, 54, 10, 12, 22
_WORDS = {"large": "has shifted", "unusual": "is unusual", "slight": "has moved a little"}


@dataclass(frozen=True)
class NightFacts:
    """What is known of a night.

    Attributes
    ----------
    name : str
        Of its folder: the date, and the first digits of the fingerprint of its inputs.
    state : {"published", "refused", "unfinished"}
        Refused: by a gate.
    in_use : bool
        Whether CURRENT names it.
    model : str
        Which model was trained.
    promoted : bool or None
        Whether it took over; None where that was not decided.
    decision, refusal : str
        Why, in sentences.
    gain : (float, float, float) or None
        Of the challenger, with its interval; None where there was no champion to compare with.
    measures : mapping of str to float
        Of the lists.
    """

    name: str
    state: str
    in_use: bool = False
    model: str = ""
    promoted: bool | None = None
    decision: str = ""
    refusal: str = ""
    gain: tuple[float, float, float] | None = None
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def day(self) -> str:
        """The date."""
        return self.name[:10]


def find_flags(nights: Sequence[NightFacts]) -> list[dict[str, str]]:
    """Find the measures of each night that are not like those before.

    Parameters
    ----------
    nights : sequence of NightFacts
        In the order of time.

    Returns
    -------
    list of dict of str to str
        For each night, the flagged measures: "large" or "slight" for a population stability index, by the rule of
        `recsys.batch.shift`; "unusual" for another measure, by `is_unusual` among the nights that were not refused.
    """
    flags: list[dict[str, str]] = []
    kept: list[NightFacts] = []
    for night in nights:
        found = {}
        for name, value in night.measures.items():
            if name in SHIFTS:
                if value >= SLIGHT:
                    found[name] = "large" if value >= LARGE else "slight"
            elif is_unusual([one.measures.get(name, math.nan) for one in kept], value):
                found[name] = "unusual"
        flags.append(found)
        if night.state != "refused":
            kept.append(night)
    return flags


def render_trend(
    name: str, nights: Sequence[NightFacts], gates: Mapping[str, tuple[float, float]], version: str = ""
) -> str:
    """Make the page.

    Parameters
    ----------
    name : str
        Of the registered model.
    nights : sequence of NightFacts
        In the order of time, at least one.
    gates : mapping of str to (float, float)
        Least and most allowed value of measures.
    version : str
        Of recsys.

    Returns
    -------
    str
        HTML, texts escaped.

    Raises
    ------
    MissingPackageError
        If Jinja2 is not installed.
    """
    flags = find_flags(nights)
    names = [
        one for one in _ordered(nights) if any(math.isfinite(night.measures.get(one, math.nan)) for night in nights)
    ]
    charts = trusted({one: _chart(one, nights, flags, gates.get(one)) for one in names})
    rows = [
        {"night": night, "flags": {_name(key): _WORDS[kind] for key, kind in found.items()}, "worst": _worst(found)}
        for night, found in zip(nights, flags, strict=True)
    ]
    latest = nights[-1].measures
    page: str = template("trend.html").render(
        name=name,
        rows=rows,
        summary=_summary(nights, flags),
        alarm=nights[-1].state == "refused" or "large" in flags[-1].values(),
        charts=[
            {
                "name": _name(one),
                "value": figure(float(latest[one]), 3) if math.isfinite(latest.get(one, math.nan)) else "–",
                "flag": flags[-1].get(one, ""),
                "svg": charts[one],
                "meaning": MEANINGS.get(one, "of the new model, on users it was not trained on"),
                "gate": _gate(gates.get(one)),
            }
            for one in names
        ],
        rule={"fewest": FEWEST, "slight": SLIGHT, "large": LARGE},
        version=version,
    )
    return page


def _ordered(nights: Sequence[NightFacts]) -> list[str]:
    """Names of all measures: quality first, then the shifts, then the others as they come."""
    every = dict.fromkeys(name for night in nights for name in night.measures)
    known = list(MEANINGS)
    return sorted(every, key=lambda one: known.index(one) if one in known else -1)


def _name(measure: str) -> str:
    return measure.replace("_", " ")


def _worst(found: Mapping[str, str]) -> str:
    return next((kind for kind in ("large", "unusual", "slight") if kind in found.values()), "")


def _gate(limits: tuple[float, float] | None) -> str:
    """The limits in words."""
    if limits is None:
        return ""
    least, most = limits
    sides = [f"at least {least:g}"] * math.isfinite(least) + [f"at most {most:g}"] * math.isfinite(most)
    return " and ".join(sides)


def _summary(nights: Sequence[NightFacts], flags: Sequence[Mapping[str, str]]) -> list[str]:
    """The last night in sentences, and how the others went."""
    last, found = nights[-1], flags[-1]
    opening = {
        "published": f"The lists of {last.day} are in use.",
        "refused": f"The lists of {last.day} were refused; those before them stay in use.",
        "unfinished": f"The night of {last.day} is not finished.",
    }[last.state]
    if last.state == "published" and not last.in_use:
        opening = f"The lists of {last.day} were published, and are not in use any more."
    parts = [opening]
    parts += [one for one in (last.refusal, last.decision) if one]
    changed = [
        f"{_name(name)} {figure(float(last.measures[name]), 3)}" for name, one in found.items() if one != "slight"
    ]
    if changed:
        parts.append(f"Unlike the nights before: {', '.join(changed)}.")
    if last.state == "published" and not _worst(found) and len(nights) > FEWEST:
        parts.append("Nothing in these lists is unlike the nights before.")
    refused = sum(night.state == "refused" for night in nights)
    taken = sum(night.promoted is True for night in nights)
    batches = plural(refused, "refused batch", "refused batches")
    parts.append(f"{plural(len(nights), 'night')}: {plural(taken, 'new champion')}, {batches}.")
    return parts


def _chart(
    name: str, nights: Sequence[NightFacts], flags: Sequence[Mapping[str, str]], gate: tuple[float, float] | None
) -> str:
    """A measure over the nights: limits dashed, refused nights hollow, flagged ones in their color."""
    values = [night.measures.get(name, math.nan) for night in nights]
    limits = [one for one in gate or () if math.isfinite(one)] + [LARGE] * (name in SHIFTS)
    kept = [i for i, value in enumerate(values) if math.isfinite(value) and nights[i].state != "refused"]
    shown = [values[i] for i in kept] + limits or [value for value in values if math.isfinite(value)]
    low, high = min([*shown, *[0.0] * (name in SHIFTS)]), max(shown)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    bottom, top = max(0.0, low - pad) if low >= 0 else low - pad, high + pad
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(nights) - 1)
    x = [_LEFT + step * i for i in range(len(nights))] if len(nights) > 1 else [(_LEFT + WIDTH - _RIGHT) / 2]

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    across = f'x1="{_LEFT}" x2="{WIDTH - _RIGHT}"'
    parts = [
        f'<line class="grid" {across} y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{figure(tick, 3)}</text>'
        for tick in dict.fromkeys((low, high))
    ]
    parts += [f'<line class="limit" {across} y1="{y(one):.1f}" y2="{y(one):.1f}"/>' for one in limits]
    parts.append(f'<polyline class="line s0" points="{" ".join(f"{x[i]:.1f},{y(values[i]):.1f}" for i in kept)}"/>')
    for i, value in enumerate(values):
        if math.isfinite(value):
            within = min(max(value, bottom), top)  # a refused one may be far outside: at the edge
            parts.append(_dot(x[i], y(within), value, nights[i], flags[i].get(name, "quiet")))
    ends = {0: "start", len(nights) - 1: "end"} if len(nights) > 1 else {0: "middle"}
    parts += [
        f'<text class="tick" x="{x[i]:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{escape(nights[i].day)}</text>'
        for i, anchor in ends.items()
    ]
    label = escape(f"{_name(name)} from {nights[0].day} to {nights[-1].day}")
    box = f'viewBox="0 0 {WIDTH} {_HEIGHT}"'
    return f'<svg class="chart" {box} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _dot(x: float, y: float, value: float, night: NightFacts, kind: str) -> str:
    """A night on a chart; its figures are shown under the mouse."""
    refused = night.state == "refused"
    text = f"{night.day}: {figure(value, 4)}{', refused' if refused else ''}"
    radius = 4 if refused or kind != "quiet" else 2.4
    where = f'class="dot {"refused" if refused else kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
    return f"<circle {where}><title>{escape(text)}</title></circle>"
