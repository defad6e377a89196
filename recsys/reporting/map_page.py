"""A map of items or users as one HTML file that opens offline, and the words that say how far to trust it.

Titles come from files of other people: they reach the page as JSON in which no character can end a script, and its
script writes them as text. A content security policy forbids the page to load anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.latent.maps import LatentMap
from recsys.latent.projection import Trust
from recsys.reporting.page import template, trusted
from recsys.system.text import plural, printable

LONGEST_TITLE, LARGEST_TITLE = 60, 110  # characters, and bytes: a page of 20,000 points then stays below 5 MB
METHODS = {"pca": "PCA", "tsne": "t-SNE"}
_GRID = 10_000  # steps of a coordinate

# Of clusters and groups; the first seven are those of reports.
LIGHT = (
    *("#0072b2", "#d55e00", "#009e73", "#b0569a", "#a07c00", "#6b6bd0", "#8a5a44", "#c2304a"),
    *("#2aa0b8", "#6c9a1f", "#e0891e", "#8e44ad", "#3f5fc0", "#cf6f8f", "#4f7f5f", "#7d7460"),
)
DARK = (
    *("#56b4e9", "#f0904a", "#3cc49c", "#dd92c8", "#d9b93c", "#a3a3f2", "#c99a82", "#f0798a"),
    *("#62d0e0", "#a8cf5a", "#f7b955", "#c58be0", "#84a0f5", "#f2a7bd", "#93bf9f", "#bdb39a"),
)


@dataclass(frozen=True)
class MapTexts:
    """What the points of a map are called.

    Attributes
    ----------
    names : sequence of str
        Titles of the points, in their order.
    clusters : sequence of sequence of str
        Titles that name each cluster.
    ids : sequence of str
        Ids of the points, to be searched for.
    groups : sequence of sequence of str, optional
        Groups of each point; several, one or none.
    of_users : bool
        Whether the points are users; else items.
    model : str
        Whose embeddings they are.
    size : int
        Length of an embedding.
    """

    names: Sequence[str]
    clusters: Sequence[Sequence[str]]
    ids: Sequence[str]
    groups: Sequence[Sequence[str]] | None = None
    of_users: bool = False
    model: str = ""
    size: int = 0

    @property
    def noun(self) -> str:
        """What a point is."""
        return "user" if self.of_users else "item"


@dataclass(frozen=True)
class Verdict:
    """How far to trust a map, in words.

    Attributes
    ----------
    level : {"good", "fair", "poor"}
        From which share of neighbors kept: half, a fifth.
    title : str
        In one sentence.
    measured, advice : str
        What was measured, and how to see where the map misleads.
    percent : str
        Share of the nearest neighbors that the map keeps.
    """

    level: str
    title: str
    measured: str
    advice: str
    percent: str


def judge(trust: Trust, noun: str = "item") -> Verdict:
    """Say how far a map is to be trusted.

    Parameters
    ----------
    trust : Trust
        What was measured.
    noun : str
        What a point is.

    Returns
    -------
    Verdict
    """
    level, title = "poor", f"Do not trust this map for single {noun}s."
    if trust.kept >= 0.5:
        level, title = "good", f"Neighboring {noun}s are mostly neighbors indeed."
    elif trust.kept >= 0.2:
        level, title = "fair", "Trust the regions of this map, not single neighbors."
    percent = f"{trust.kept:.0%}"
    measured = (
        f"It keeps {trust.kept:.0%} of the {trust.neighbors} nearest neighbors that {noun}s have in the embedding "
        f"({trust.by_chance:.1%} by chance); trustworthiness {trust.trustworthiness:.2f} of 1."
    )
    advice = (
        f"Lines lead from a chosen {noun} to its nearest ones in the embedding: where they are long, the map misleads."
    )
    return Verdict(level, title, measured, advice, percent)


def heading(drawn: LatentMap, texts: MapTexts) -> str:
    """The title of a map."""
    return f"Map of {plural(len(drawn.rows), texts.noun)}"


def subtitle(drawn: LatentMap, texts: MapTexts) -> str:
    """What a map was made from, in a line."""
    axes = f"{METHODS[drawn.method]} of {texts.size}-dimensional embeddings of {texts.model}"
    scaled = "items of the user" if texts.of_users else "users of the item"
    left = f" · {drawn.left_out:,} less popular ones are not drawn" if drawn.left_out else ""
    return f"{axes} · size: {scaled}{left}"


def render_map(drawn: LatentMap, texts: MapTexts, version: str = "") -> str:
    """Make the page of a map.

    Parameters
    ----------
    drawn : LatentMap
    texts : MapTexts
        Titles and groups of its points.
    version : str
        Of recsys, for the last line.

    Returns
    -------
    str
        HTML, with the data in it.

    Raises
    ------
    MissingPackageError
        If Jinja2 is not installed.
    """
    page: str = template("map.html").render(
        heading=heading(drawn, texts),
        subtitle=subtitle(drawn, texts),
        noun=texts.noun,
        searched="user id" if texts.of_users else "title or id",
        verdict=judge(drawn.trust, texts.noun),
        footer=f"Made by recsys {version}".strip() + ".",
        **trusted({"data": script_json(page_data(drawn, texts))}),
    )
    return page


def script_json(content: Any) -> str:
    """Write JSON that may stand in a script element: nothing in it can end the script or open a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def page_data(drawn: LatentMap, texts: MapTexts) -> dict[str, Any]:
    """Collect what the script of the page draws: columns over the points, clusters, groups, colors."""
    x, y = (drawn.plane - drawn.plane.min(0)).T / max(float(np.ptp(drawn.plane, axis=0).max()), 1e-12) * _GRID
    names = [_cut(name) for name in texts.names]
    ids = [_cut(one) for one in texts.ids]
    clusters = [
        {
            "name": [_cut(name) for name in titles],
            "size": int(drawn.cluster_sizes[cluster]),
            "x": round(float(np.median(x[drawn.clusters == cluster]))),
            "y": round(float(np.median(y[drawn.clusters == cluster]))),
        }
        for cluster, titles in enumerate(texts.clusters)
    ]
    return {
        "x": np.rint(x).astype(int).tolist(),
        "y": np.rint(y).astype(int).tolist(),
        "n": drawn.popularity.tolist(),
        "c": drawn.clusters.tolist(),
        "t": names,
        "id": None if ids == names else ids,
        "near": drawn.neighbors.ravel().tolist(),
        "k": drawn.neighbors.shape[1],
        "clusters": clusters,
        **_group_columns(texts),
        "colors": {"light": LIGHT, "dark": DARK},
        "noun": texts.noun,
        "unit": "item" if texts.of_users else "user",
        "named": "items of their users" if texts.of_users else "titles",
    }


def group_numbers(texts: MapTexts) -> tuple[list[str], list[int]]:
    """Number the groups of a map.

    Returns
    -------
    names : list of str
        Groups, the largest first.
    numbers : list of int
        For each point the number of its rarest group among those that have a color; -1 without one.
    """
    sizes = Counter(name for own in texts.groups or () for name in own)
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    number = {name: i for i, name in enumerate(names)}
    colored = [[number[name] for name in own if number[name] < len(LIGHT)] for own in texts.groups or ()]
    return names, [max(own, default=-1) for own in colored]


def _group_columns(texts: MapTexts) -> dict[str, Any]:
    """The groups with their sizes, and the groups of each point."""
    if texts.groups is None:
        return {"groups": None, "g": None}
    sizes = Counter(name for own in texts.groups for name in own)
    names, _ = group_numbers(texts)
    number = {name: i for i, name in enumerate(names)}
    own = [sorted(number[name] for name in groups) for groups in texts.groups]
    return {"groups": [{"name": _cut(name), "size": sizes[name]} for name in names], "g": own}


def _cut(text: str) -> str:
    """A title as the page shows it: control characters visible, not endless."""
    shown = printable(text, single_line=True)
    if len(shown) <= LONGEST_TITLE and len(shown.encode()) <= LARGEST_TITLE:
        return shown
    return shown[: LONGEST_TITLE - 1].encode()[: LARGEST_TITLE - 3].decode(errors="ignore") + "…"
