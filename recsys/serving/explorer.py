"""The page of a model as one offline file: its strongest item-to-item weights are in it, and the browser adds them up.

A linear model's scores are sums of rows of its item-to-item weights. Of any other model the page has an approximation:
what each item alone adds to the scores of the empty history. Either way the page keeps the strongest weights of each
item, in 8 bits, and says how far its lists agree with those of the model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity

from recsys.errors import DataError, UnsupportedError
from recsys.inference.topn import top_n
from recsys.models.trained import TrainedModel
from recsys.serving.page import PAGE
from recsys.types import FloatArray

BYTES = 4_200_000  # of weights in the page, in base64: the whole stays below 5 MB
MOST_WEIGHTS, LEAST_WEIGHTS = 128, 24  # of an item
SIMILAR = 8
N = 10  # of the lists that are compared
_STEP = 256  # items whose weights are made at once


@dataclass(frozen=True)
class Explorer:
    """What the page of a model knows.

    Attributes
    ----------
    positions : ndarray of int64, shape (items,)
        The items in the page, the most popular first.
    columns : ndarray of uint16, shape (items, weights)
        For each item, the items (places in `positions`) whose scores it changes most.
    levels : ndarray of int8, shape (items, weights)
        How: a weight is its level x the item's scale.
    scales : ndarray of float32, shape (items,)
    base : ndarray of float32, shape (items,)
        Scores of the empty history.
    similar : ndarray of uint16, shape (items, 8)
        The nearest items, by cosine of the embeddings; empty for a model that has none.
    """

    positions: NDArray[np.int64]
    columns: NDArray[np.uint16]
    levels: NDArray[np.int8]
    scales: FloatArray
    base: FloatArray
    similar: NDArray[np.uint16]

    def score(self, history: csr_matrix) -> FloatArray:
        """Score as the page does.

        Parameters
        ----------
        history : csr_matrix, shape (users, items of the page)

        Returns
        -------
        ndarray of float32, shape (users, items of the page)
        """
        count, kept = self.columns.shape
        weights = (self.levels * self.scales[:, None]).ravel()
        indptr = np.arange(0, count * kept + 1, kept)
        table = csr_matrix((weights, self.columns.ravel().astype(np.int32), indptr), shape=(count, count))
        scores: FloatArray = (history @ table).toarray().astype(np.float32) + self.base
        return scores


def make_explorer(trained: TrainedModel, most_bytes: int = BYTES) -> Explorer:
    """Take from a model what its page needs.

    Parameters
    ----------
    trained : TrainedModel
        Of lists, for new users.
    most_bytes : int
        Of weights, in base64; with many items each has fewer weights, with very many only the popular ones are there.

    Returns
    -------
    Explorer

    Raises
    ------
    UnsupportedError
        If the model predicts ratings, knows only its training users, or uses the order of histories.
    """
    model = trained.model
    if model.uses_order:
        raise UnsupportedError(
            f"Expected a model of histories without order, found {model.name}: the page adds up what each item "
            "contributes, wherever it stands. Use `recsys serve MODEL --ui`."
        )
    if model.task == "rating" or model.needs_training_users:
        raise UnsupportedError(f"Expected a model that makes lists for new users, found {model.name}.")
    count = min(len(trained.items), 65_535, most_bytes // (4 * LEAST_WEIGHTS))
    positions = np.argsort(-trained.item_counts, kind="stable")[:count]
    kept = min(MOST_WEIGHTS, max(1, count - 1), most_bytes // (4 * count))
    one_each = csr_matrix(identity(len(trained.items), dtype=np.float32, format="csr")[positions])
    is_linear = model.item_weights() is not None
    base = np.zeros(count, dtype=np.float32)
    if not is_linear:  # the mean over histories of one item stands for the empty one, which some models cannot score
        base = np.mean(
            [_scores(trained, one_each[i : i + _STEP], positions).mean(axis=0) for i in _starts(count)], axis=0
        )
    columns, levels = np.empty((count, kept), np.uint16), np.empty((count, kept), np.int8)
    scales = np.empty(count, np.float32)
    for start in _starts(count):
        rows = slice(start, min(start + _STEP, count))
        weights = _scores(trained, one_each[rows], positions) - base
        weights[np.arange(len(weights)), np.arange(rows.start, rows.stop)] = 0  # a seen item is not listed
        strongest = np.argpartition(-np.abs(weights), kept - 1, axis=1)[:, :kept]
        values = np.take_along_axis(weights, strongest, axis=1)
        scales[rows] = np.maximum(np.abs(values).max(axis=1), 1e-12) / 127
        columns[rows], levels[rows] = strongest, np.rint(values / scales[rows, None])
    return Explorer(positions, columns, levels, scales, base.astype(np.float32), _similar(trained, positions))


def _starts(count: int) -> range:
    return range(0, count, _STEP)


@torch.inference_mode()
def _scores(trained: TrainedModel, history: csr_matrix, positions: NDArray[np.int64]) -> FloatArray:
    scores: FloatArray = trained.model.score(history).cpu().numpy()[:, positions]
    return scores


def _similar(trained: TrainedModel, positions: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Places of the nearest items in the page."""
    count = min(SIMILAR, len(positions) - 1)
    try:
        nearest, _ = trained.model.similar_items(positions, N=count + 1, items=positions)
    except UnsupportedError:
        return np.empty((len(positions), 0), np.uint16)
    place = np.zeros(len(trained.items), np.uint16)
    place[positions] = np.arange(len(positions))
    others = np.stack([row[row != own][:count] for row, own in zip(nearest, positions, strict=True)])
    found: NDArray[np.uint16] = place[others]
    return found


def measure_overlap(trained: TrainedModel, explorer: Explorer, histories: csr_matrix) -> float:
    """Measure the share of the model's lists that the page's lists have too.

    Parameters
    ----------
    trained : TrainedModel
    explorer : Explorer
    histories : csr_matrix, shape (users, items of the model)

    Returns
    -------
    float
        Mean over the users with an item in the page, and another to list: share of the model's 10 best items (of those
        in the page) that are among the page's 10 best.

    Raises
    ------
    DataError
        If no user has an item in the page, or all have all of them.
    """
    inside = csr_matrix(histories[:, explorer.positions])
    able = np.flatnonzero(np.diff(inside.indptr) > 0)
    if not len(able):
        raise DataError("Expected histories with an item of the page, found none.")
    inside, own = inside[able], csr_matrix(histories[able])
    allowed = np.zeros(histories.shape[1], dtype=bool)
    allowed[explorer.positions] = True
    model_lists, _ = top_n(trained.model.score(own), N, own, allowed)
    page_lists, _ = top_n(explorer.score(inside), N, inside)
    there = np.where(page_lists >= 0, explorer.positions[page_lists], -2)
    lists = [(a[a >= 0], b) for a, b in zip(model_lists, there, strict=True)]
    shared = [len(np.intersect1d(a, b)) / len(a) for a, b in lists if len(a)]  # who has had everything has no list
    if not shared:
        raise DataError("Expected histories that leave an item of the page to list, found none.")
    return float(np.mean(shared))


def some_histories(histories: csr_matrix, users: int, seed: int = 0) -> csr_matrix:
    """Choose the histories of some users at random, in their order."""
    chosen = np.random.default_rng(seed).permutation(histories.shape[0])[:users]
    return csr_matrix(histories[np.sort(chosen)])


def made_up_histories(explorer: Explorer, items: int, users: int, seed: int = 0) -> csr_matrix:
    """Make histories of an item and up to four of the twenty that it supports most: for want of real ones.

    Parameters
    ----------
    explorer : Explorer
    items : int
        Items of the model.
    users : int
        How many.
    seed : int
        Decides which.

    Returns
    -------
    csr_matrix of float32, shape (users, items)
    """
    rng = np.random.default_rng(seed)
    rows = []
    for first in rng.integers(0, len(explorer.positions), users):
        order = np.argsort(-explorer.levels[first], kind="stable")[: min(20, int((explorer.levels[first] > 0).sum()))]
        others = explorer.columns[first][rng.permutation(order)[:4]]
        rows.append(np.unique(explorer.positions[[int(first), *map(int, others)]]))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    cells = np.concatenate(rows)
    return csr_matrix((np.ones(len(cells), np.float32), cells, indptr), shape=(users, items))


def explorer_page(trained: TrainedModel, explorer: Explorer, titles: Mapping[str, str], note: str) -> str:
    """Make the page.

    Parameters
    ----------
    trained : TrainedModel
    explorer : Explorer
    titles : mapping of str to str
        Titles by item id.
    note : str
        What the page says of its lists.

    Returns
    -------
    str
        HTML that opens offline and asks no host for anything.
    """
    ids = trained.items.take(explorer.positions).to_pylist()
    data = {
        "model": trained.model.name,
        "version": trained.digest[:12],
        "note": note,
        "items": [[item, titles.get(str(item), "")] for item in ids],
        "kept": explorer.columns.shape[1],
        "nearest": explorer.similar.shape[1],
    }
    for name in ("columns", "levels", "scales", "base", "similar"):
        data[name] = base64.b64encode(np.ascontiguousarray(getattr(explorer, name)).tobytes()).decode()
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    marked = '<script type="application/json" id="data">' + text + "</script>"
    return PAGE.read_text("utf-8").replace("<!-- data -->", marked, 1)
