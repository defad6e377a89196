"""Lists on request: what a service answers, without HTTP. Queries in positions, scored many at a time.

A query is made on one model and answered by the same one, also where another has taken its place meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Interactions
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError, UnsupportedError
from recsys.explain.reasons import Explanation, explain_item, reasons_of_lists
from recsys.inference.reranking import Request, ruled_lists
from recsys.inference.rules import RuleSet
from recsys.inference.topn import BLOCK, check_length, refuse_infinite, top_n, top_n_of_blocks
from recsys.models.trained import TrainedModel
from recsys.serving.queries import Query, Row, Wishes, histories_of, masked_of, row_of

LONGEST_EXPLAINED = 500  # items of a history: a network is asked once without each of them


class UnknownIdError(DataError):
    """The service knows no such user or item."""


class ListMaker:
    """Makes lists with one model for known users and for histories that come with the request.

    Parameters
    ----------
    trained : TrainedModel
        The model.
    histories : Interactions, optional
        What the known users have had.
    titles : mapping of str to str, optional
        Titles by item id.
    rules : RuleSet, optional
        Rules of all lists, and variety within them.
    """

    def __init__(
        self,
        trained: TrainedModel,
        histories: Interactions | None = None,
        titles: Mapping[str, str] | None = None,
        rules: RuleSet | None = None,
    ):
        self.trained = trained
        self.rules = rules
        self.item_ids: list[Any] = trained.items.to_list()
        self._titles = titles or {}
        self._position = {str(item): position for position, item in enumerate(self.item_ids)}
        self._known: UserItemMatrix | None = None if histories is None else trained.to_matrix(histories)
        users = [] if self._known is None else self._known.users.to_list()
        self._row = {str(user): row for row, user in enumerate(users)}
        trained_users = [] if trained.users is None else trained.users.to_list()
        self._trained_row = {str(user): row for row, user in enumerate(trained_users)}

    @property
    def n_users(self) -> int:
        """Number of users whose histories are known."""
        return len(self._row)

    def position(self, item: str | int) -> int:
        """Return the position of an item. Raises UnknownIdError if there is no such item."""
        try:
            return self._position[str(item)]
        except KeyError:
            raise UnknownIdError(f"Expected an item of the model, found {item!r}.") from None

    def for_user(self, user: str, wishes: Wishes) -> Query:
        """Make the query of a known user.

        Parameters
        ----------
        user : str
            Id, in text.
        wishes : Wishes
            What may be in the list.

        Returns
        -------
        Query

        Raises
        ------
        UnknownIdError
            If the user is not in the histories, or (for some models) was not in training.
        ConfigError
            If n is below 1.
        """
        row = self._row.get(user)
        if self._known is None or row is None:
            raise UnknownIdError(f"Expected a user with a known history, found {user!r}: send the history instead.")
        trained_row = self._trained_row.get(user)
        if self.trained.model.needs_training_users and trained_row is None:
            raise UnknownIdError(
                f"Expected a user that {self.trained.model.name} was trained on, found {user!r}: it knows no others."
            )
        known = self._known
        seen = known.matrix if known.seen is None else known.seen
        query = self._query(row_of(known.matrix, row), row_of(seen, row)[0], wishes, trained_row)
        return replace(query, user_id=user)

    def history_of(self, user: str) -> list[dict[str, Any]]:
        """Return the items that a known user has had, as they are written in an answer.

        Raises
        ------
        UnknownIdError
            If the user is not in the histories.
        """
        row = self._row.get(user)
        if self._known is None or row is None:
            raise UnknownIdError(f"Expected a user with a known history, found {user!r}.")
        return [self.named(int(at)) for at in row_of(self._known.matrix, row)[0]]

    def for_history(self, items: Sequence[str | int], ratings: Sequence[float] | None, wishes: Wishes) -> Query:
        """Make the query of somebody who is a history and nothing else.

        Parameters
        ----------
        items : sequence of ids
            What the user has had, the oldest first; unknown ones are left out and named in the query.
        ratings : sequence of float, optional
            Of the items, for models that need them.
        wishes : Wishes
            What may be in the list.

        Returns
        -------
        Query

        Raises
        ------
        UnsupportedError
            If the model scores only users of its training, or needs ratings and gets none.
        ConfigError
            If n is below 1.
        """
        model = self.trained.model
        if model.needs_training_users:
            raise UnsupportedError(f"{model.name} can score only users it was trained on, found a history.")
        if model.task == "rating" and ratings is None:
            raise UnsupportedError(f"{model.name} needs a rating for every item of the history, found none.")
        minimum = self.trained.about.get("reading", {}).get("min_rating")
        values = dict(zip(items, ratings if ratings is not None else [1.0] * len(items), strict=True))
        found = {self._position[str(item)]: value for item, value in values.items() if str(item) in self._position}
        is_liked = minimum is None or ratings is None or model.task == "rating"
        liked = sorted(found if is_liked else (at for at, value in found.items() if value >= minimum))
        places = {self._position.get(str(item), -1): float(place) for place, item in enumerate(items, 1)}
        scored = [found[at] if model.task == "rating" else places[at] if model.uses_order else 1.0 for at in liked]
        row = np.array(liked, dtype=np.int32), np.array(scored, dtype=np.float32)
        unknown = tuple(item for item in values if str(item) not in self._position)
        return self._query(row, np.array(sorted(found), dtype=np.int32), wishes, None, unknown)

    def _query(
        self,
        history: Row,
        seen: NDArray[np.int32],
        wishes: Wishes,
        user: int | None,
        unknown: tuple[str | int, ...] = (),
    ) -> Query:
        check_length(wishes.n)
        excluded, more = self._positions(wishes.exclude_items)
        masked = np.union1d(seen, excluded).astype(np.int32) if wishes.filter_seen else excluded
        candidates = None
        if wishes.candidate_items is not None:
            candidates, others = self._positions(wishes.candidate_items)
            more = (*more, *others)
        if wishes.reasons:
            self.trained.model.check_explainable()
            if len(history[0]) > LONGEST_EXPLAINED:
                raise ConfigError(
                    f"Expected a history of at most {LONGEST_EXPLAINED} items together with reasons, found "
                    f"{len(history[0])}."
                )
        n = min(wishes.n, len(self.item_ids))
        return Query(history, masked, n, candidates, user, wishes.reasons, (*unknown, *more))

    def _positions(self, items: Iterable[str | int]) -> tuple[NDArray[np.int32], tuple[str | int, ...]]:
        """Positions in order, each once, and the ids that the model does not know."""
        given = list(items)
        known = {self._position[str(item)] for item in given if str(item) in self._position}
        return np.array(sorted(known), dtype=np.int32), tuple(i for i in given if str(i) not in self._position)

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query]) -> list[list[dict[str, Any]]]:
        """Make the lists of several queries, scored together.

        Parameters
        ----------
        queries : sequence of Query
            All made by this object.

        Returns
        -------
        list of list of dict
            For each query its items, best first: item_id, rank (from 1), score, and title where one is known. Empty
            where the history has no item that the model knows.

        Raises
        ------
        DataError
            If scores are not finite.
        """
        lists: list[list[dict[str, Any]]] = [[] for _ in queries]
        able = [at for at, query in enumerate(queries) if len(query.history[0])]
        if self.rules is not None:
            return self._by_rules(queries, able, self.rules)
        together = [at for at in able if queries[at].candidates is None]
        if together:
            some = [queries[at] for at in together]
            blocks = self.trained.model.score_blocks(*self._histories(some), width=BLOCK)
            listed, scores = top_n_of_blocks(blocks, max(query.n for query in some), masked_of(some, self._n_items))
            for at, places, values in zip(together, listed, scores, strict=True):
                lists[at] = self._entries(queries[at], places[: queries[at].n], values)
        for at in able:
            if (candidates := queries[at].candidates) is not None:
                lists[at] = self._of_candidates(queries[at], candidates)
        return lists

    def _by_rules(self, queries: Sequence[Query], able: Sequence[int], rules: RuleSet) -> list[list[dict[str, Any]]]:
        """The lists of queries by rules; those of one length are made together."""
        lists: list[list[dict[str, Any]]] = [[] for _ in queries]
        groups: dict[Any, list[int]] = {}
        for at in able:  # a list depends on its length, where there are shares or variety
            groups.setdefault((queries[at].n, at if queries[at].candidates is not None else None), []).append(at)
        for (n, _), group in groups.items():
            some = [queries[at] for at in group]
            history, users = self._histories(some)
            allowed = None
            if (candidates := some[0].candidates) is not None:
                allowed = np.zeros(self._n_items, dtype=bool)
                allowed[candidates] = True
            ids = pa.array([query.user_id for query in some], pa.string())
            request = Request(ids, history, n, masked_of(some, self._n_items), allowed)
            ruled = ruled_lists(partial(self.trained.model.score_blocks, history, users, width=BLOCK), rules, request)
            refuse_infinite(ruled.scores)
            for at, places, values in zip(group, ruled.positions, ruled.scores, strict=True):
                lists[at] = self._entries(queries[at], places, values)
        return lists

    def _of_candidates(self, query: Query, candidates: NDArray[np.int32]) -> list[dict[str, Any]]:
        left = np.setdiff1d(candidates, query.masked)
        if not len(left):
            return []
        history, users = self._histories([query])
        listed, scores = top_n(self.trained.model.score(history, left, users), query.n)
        return self._entries(query, left[listed[0]], scores[0])

    def _histories(self, queries: Sequence[Query]) -> tuple[csr_matrix, NDArray[np.int64] | None]:
        positions, values = zip(*(query.history for query in queries), strict=True)
        users = [query.user for query in queries if query.user is not None]
        matrix = histories_of(positions, np.concatenate(values), self._n_items)
        return matrix, np.array(users, dtype=np.int64) if len(users) == len(queries) else None

    @property
    def _n_items(self) -> int:
        return len(self.item_ids)

    def _entries(
        self, query: Query | None, places: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> list[dict[str, Any]]:
        found = zip(places.tolist(), scores.tolist(), strict=False)
        entries = [self.named(at, rank=rank, score=score) for rank, (at, score) in enumerate(found, 1) if at >= 0]
        if query is not None and query.reasons:
            history, _ = self._histories([query])
            items, shares = reasons_of_lists(self.trained.model, history, places[None], query.reasons)
            for entry, own, part in zip(entries, items[0], shares[0], strict=False):
                named = zip(own.tolist(), part.tolist(), strict=True)
                entry["reasons"] = [self.named(at, share=share) for at, share in named if at >= 0]
        return entries

    def named(self, position: int, **more: Any) -> dict[str, Any]:
        """Return an item as it is written in an answer: item_id, its title where one is known, and what is given."""
        item = self.item_ids[position]
        title = self._titles.get(str(item))
        return {"item_id": item, **({"title": title} if title else {}), **more}

    @property
    def can_explain(self) -> bool:
        """Whether the model has reasons for its scores."""
        try:
            self.trained.model.check_explainable()
        except UnsupportedError:
            return False
        return True

    def explain(self, user: str, item: str | int, count: int = 5) -> Explanation:
        """Explain the score of an item for a known user; see `recsys.explain.reasons.explain_item`.

        Raises
        ------
        UnknownIdError
            If there is no such user or item.
        """
        position, row = self.position(item), self._row.get(user)
        if self._known is None or row is None:
            raise UnknownIdError(f"Expected a user with a known history, found {user!r}.")
        return explain_item(self.trained, self._known, row, position, count)

    def similar(self, item: str | int, n: int) -> list[dict[str, Any]]:
        """Find the items nearest to an item.

        Parameters
        ----------
        item : id
            An item of the model.
        n : int
            How many, at least 1.

        Returns
        -------
        list of dict
            item_id, rank (from 1), score (cosine of the embeddings), title where one is known.

        Raises
        ------
        UnknownIdError
            If there is no such item.
        ConfigError
            If n is below 1.
        UnsupportedError
            If the model has no embeddings of items.
        """
        check_length(n)
        position = self.position(item)
        best, cosines = self.trained.model.similar_items(position, N=min(n, self._n_items - 1) + 1)
        kept = (best >= 0) & (best != position)
        return self._entries(None, best[kept][:n], cosines[kept])


def check_most(n: int, most: int) -> None:
    """Raise ConfigError where a list longer than the service makes is asked for."""
    if n > most:
        raise ConfigError(f"Expected n of at most {most}, found {n}.")
