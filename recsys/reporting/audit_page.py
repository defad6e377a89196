"""An audit of interactions as one HTML file that opens offline: the most suspicious interactions, users and items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.evaluation.cleaning import CleaningEffect
from recsys.explain.audit import Audit
from recsys.reporting import svg
from recsys.reporting.page import template, trusted
from recsys.reporting.svg import Series
from recsys.system.text import printable

_INTERACTIONS, _OF_A_USER, _USERS, _ITEMS, _ACCOUNTS = 60, 2, 12, 12, 4  # shown
_BESIDE, _OF_A_BLOCK = 4, 8  # titles of a history, and of each of its blocks
_TWO_BLOCKS = 1.0  # contrast from which a history is shown as two
_BINS = 20
_LONGEST = 70  # characters of a title


@dataclass(frozen=True)
class AuditTexts:
    """What the page says besides the audit.

    Attributes
    ----------
    model : str
        Name of the model that judged.
    folds : int
        How many fits that was.
    ledger : str
        The account of the rows.
    titles : mapping of str to str
        Titles by item id; ids stand for items without one.
    version : str
        Of recsys.
    effect : CleaningEffect or None
        What cleaning did.
    """

    model: str
    folds: int
    ledger: str
    titles: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    effect: CleaningEffect | None = None


def render_audit(found: Audit, texts: AuditTexts) -> str:
    """Make the page of an audit.

    Parameters
    ----------
    found : Audit
    texts : AuditTexts

    Returns
    -------
    str
        HTML. Ids and titles are escaped, control characters in them made visible.

    Raises
    ------
    MissingPackageError
        If Jinja2 is not installed.
    """
    names = _Names(found, texts.titles)
    effect = texts.effect
    page: str = template("audit.html").render(
        texts=texts,
        ratings=found.plausibility.expected is not None,
        total=found.data.matrix.nnz,
        judged=len(found.judged),
        share=found.groups.share,
        limit=found.groups.limit,
        summary=_summary(found),
        charts=trusted(_charts(found)),
        cards=_cards(found, names),
        users=_users(found, names),
        items=_items(found, names),
        accounts=_accounts(found, names),
        effect=effect,
        effect_text=None if effect is None else str(effect.difference),
    )
    return page


class _Names:
    """Ids and titles of positions."""

    def __init__(self, found: Audit, titles: Mapping[str, str]):
        self._data, self._titles = found.data, titles

    def user(self, position: int) -> str:
        return printable(str(self._data.users.ids[int(position)].as_py()))

    def items(self, positions: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
        ids = [str(one) for one in self._data.items.take(np.asarray(positions)).to_pylist()]
        names = [self._titles.get(one) or one for one in ids]
        return [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]


def _summary(found: Audit) -> list[str]:
    """What the audit found, in sentences."""
    counts = [n for n in (100, 1_000, 10_000) if n <= len(found.order)] or [len(found.order)]
    parts = [f"about {round((1 - found.false_alarms[n - 1]) * n):,} of the first {n:,}" for n in counts]
    noun = (
        "say nothing of their user" if found.plausibility.expected is not None else "have nothing to do with the rest"
    )
    return [
        f"If {_percent(found.groups.share)} of all interactions {noun}, they are {', '.join(parts)} below.",
        f"How many there really are cannot be read off the data, which allow at most {_percent(found.groups.limit)}.",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _charts(found: Audit) -> dict[str, str]:
    """Where all percentiles are, and how sure one may be down the list."""
    values = found.plausibility.value[found.judged]
    edges = np.linspace(0, 1, _BINS + 1)
    density = np.histogram(values, edges)[0] / len(values) * _BINS
    middles = (edges[1:] + edges[:-1]) / 2
    all_of_them = Series("all", 0, list(zip(middles.tolist(), density.tolist(), strict=True)))
    level = Series("unrelated", 1, [(0.0, found.groups.share), (1.0, found.groups.share)])
    charts = {"plausibility": svg.line_chart([all_of_them, level], "plausibility", title="density of plausibility")}
    last = len(found.order)
    ranks = np.unique(np.geomspace(min(10, last), last, 60).astype(np.int64))
    points = [(float(n), 100 * float(1 - found.false_alarms[n - 1])) for n in ranks]
    if len(points) > 1:
        series = [Series("%", 0, points)]
        charts["ranks"] = svg.line_chart(series, "first interactions (log scale)", log=True, title="share by rank")
    return charts


def _cards(found: Audit, names: _Names) -> list[dict[str, Any]]:
    """The most suspicious interactions, a few of each user, with what else the user has."""
    matrix, expected = found.data.matrix, found.plausibility.expected
    shown: dict[int, int] = {}
    cards: list[dict[str, Any]] = []
    users = np.searchsorted(matrix.indptr, found.order[:20_000], side="right") - 1
    for rank, (cell, user) in enumerate(zip(found.order, users.tolist(), strict=False), start=1):
        shown[user] = shown.get(user, 0) + 1
        if shown[user] > _OF_A_USER:
            continue
        card = {
            "rank": rank,
            "title": names.items([matrix.indices[cell]])[0],
            "user": names.user(user),
            "suspicion": float(found.suspicion[rank - 1]),
            "others": int(found.data.item_counts[matrix.indices[cell]]) - 1,
            "beside": names.items(_typical(found, user, cell)),
        }
        if expected is not None:
            card |= {"rating": f"{matrix.data[cell]:g}", "expected": f"{expected[cell]:.1f}"}
        cards.append(card)
        if len(cards) == _INTERACTIONS:
            break
    return cards


def _typical(found: Audit, user: int, without: int) -> np.ndarray[Any, Any]:
    """The items of a history that the model finds most plausible."""
    start, stop = found.data.matrix.indptr[user : user + 2]
    values = np.nan_to_num(found.plausibility.value[start:stop], nan=-1.0)
    if start <= without < stop:
        values[without - start] = -1.0
    best = np.argsort(-values, kind="stable")[:_BESIDE]
    return np.asarray(found.data.matrix.indices[start:stop][best[values[best] >= 0]])


def _users(found: Audit, names: _Names) -> list[dict[str, Any]]:
    """The users with the largest share of unrelated interactions."""
    sizes = np.diff(found.data.matrix.indptr)
    worst = np.lexsort((-sizes, -found.user_shares))[:_USERS]
    return [
        {
            "name": names.user(user),
            "size": int(sizes[user]),
            "share": float(found.user_shares[user]),
            "beside": names.items(_typical(found, int(user), -1)),
        }
        for user in worst
    ]


def _items(found: Audit, names: _Names) -> list[dict[str, Any]]:
    """The items with the most suspicious users."""
    worst = np.lexsort((-found.data.item_counts, -found.item_shares))[:_ITEMS]
    titles = names.items(worst)
    return [
        {"name": title, "size": int(found.data.item_counts[item]), "share": float(found.item_shares[item])}
        for item, title in zip(worst, titles, strict=True)
    ]


def _accounts(found: Audit, names: _Names) -> list[dict[str, Any]]:
    """The histories that most clearly fall in two blocks."""
    if found.relations is None or found.contrasts is None:
        return []
    matrix = found.data.matrix
    contrasts = np.nan_to_num(found.contrasts, nan=-np.inf)
    # of histories that are long enough for two people; a short one falls in two by chance
    long = np.diff(matrix.indptr) >= np.median(np.diff(matrix.indptr))
    best = np.argsort(-np.where(long, contrasts, -np.inf), kind="stable")[:_ACCOUNTS]
    accounts = []
    for user in best[np.where(long, contrasts, -np.inf)[best] >= _TWO_BLOCKS]:
        history = matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]]
        blocks = [names.items(block[:_OF_A_BLOCK]) for block in found.relations.blocks(history)]
        size, contrast = len(history), float(contrasts[user])
        accounts.append({"name": names.user(int(user)), "size": size, "contrast": contrast, "blocks": blocks})
    return accounts
