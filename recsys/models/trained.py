"""A fitted model together with the ids of its items: what answers in ids and data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.item_features.features import as_type, fingerprint_of
from recsys.data.matrix import UserItemMatrix
from recsys.data.order import for_models
from recsys.data.reading import ReadingOptions
from recsys.data.reading.for_task import read_for_task
from recsys.errors import DataError, NoRatingsError, UnsupportedError
from recsys.inference.pairs import predict_pairs
from recsys.inference.reranking import Request, recommend_by_rules
from recsys.inference.rule_file import read_rules
from recsys.inference.rules import RuleSet
from recsys.inference.topn import check_length, recommend
from recsys.models.base import Recommender
from recsys.models.embedding_frames import EmbeddingFrames, known_positions
from recsys.system.storage import Location

if TYPE_CHECKING:
    from recsys.data.item_features.encoder import FeatureEncoder
    from recsys.data.item_features.table import ItemTable

    Source = str | Path | Sequence[str | Path] | pd.DataFrame | Interactions

READING = ("min_rating", "duplicates", "order")  # what a model remembers of how its ratings were read


@dataclass(frozen=True)
class TrainedModel(EmbeddingFrames):
    """A fitted model and the ids it speaks of: all that recommending needs besides histories.

    Attributes
    ----------
    model : Recommender
        The fitted model, which speaks in positions.
    items : Vocabulary
        Ids of its items, by position.
    item_counts : ndarray of int64, shape (items,)
        Training users of each item.
    users : Vocabulary, optional
        Ids of the training users, for models that know no other users (`needs_training_users`).
    about : mapping
        What model.json says of it: metrics, seed, data, how the ratings were read.
    digest : str
        sha256 of model.json, which holds those of the other files; empty for a model that was not loaded.
    features : FeatureEncoder, optional
        How the features of items were made, for models that use them.
    """

    model: Recommender
    items: Vocabulary
    item_counts: NDArray[np.int64]
    users: Vocabulary | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    features: FeatureEncoder | None = None

    def with_new_items(self, table: ItemTable) -> TrainedModel:
        """Return the model with the items of a table that it does not know yet, by their features, without training.

        Parameters
        ----------
        table : ItemTable
            What is known of the items, with the columns of the training (`features.options`). Known items stay as
            they are.

        Returns
        -------
        TrainedModel
            The new items follow the others, in the order of the table.

        Raises
        ------
        UnsupportedError
            If the model does not use features, or cannot take new items without training.
        DataError
            If the table lacks a column.
        """
        encoder = self.require_features()
        new = np.flatnonzero(self.items.positions(table.ids.ids) < 0)
        if not len(new):
            return self
        ids = as_type(table.ids.take(new), self.items.ids.type)
        features = encoder.transform(table)[new]
        model = self.model.with_new_items(features)
        counts = np.concatenate([self.item_counts, np.zeros(len(new), dtype=np.int64)])
        digest = fingerprint_of(features, self.digest, repr(ids.to_pylist())) if self.digest else ""
        return replace(self, model=model, items=self.items.extended(ids), item_counts=counts, digest=digest)

    def require_features(self) -> FeatureEncoder:
        """Return how the features of items were made; UnsupportedError for a model that does not use them."""
        if self.features is None:
            raise UnsupportedError(
                f"Expected a model that was trained with item features, found {self.model.name} without: train one "
                "that uses them (item_features)."
            )
        return self.features

    def recommend(
        self,
        histories: Source,
        n: int = 10,
        *,
        users: Iterable[Any] | None = None,
        filter_seen: bool = True,
        only_items: Iterable[Any] | None = None,
        exclude_items: Iterable[Any] | None = None,
        rules: RuleSet | str | Path | None = None,
    ) -> pd.DataFrame:
        """Recommend n items to every user of `histories`.

        Parameters
        ----------
        histories : DataFrame, Interactions, path or list of paths
            What each user has had: columns user_id, item_id, perhaps rating and timestamp. Users need not have been in
            training.
        n : int
            Length of a list.
        users : iterable of ids, optional
            The users to recommend to, in this order; all of `histories` without it.
        filter_seen : bool
            Leave out what the user has had, liked or not.
        only_items, exclude_items : iterable of ids, optional
            The only items, and the items never, to recommend.
        rules : RuleSet or path, optional
            Rules of lists, and variety within them: `read_rules`, or a file in TOML (`recsys.inference.rule_file`).

        Returns
        -------
        DataFrame
            user_id, item_id, rank (from 1), score; best first within a user. A user without an item that the model
            knows has no rows.

        Raises
        ------
        DataError
            If `users` names somebody who is not in `histories`, or an item is unknown to the model.
        """
        data = self.to_matrix(self.read_histories(histories))
        rows = np.arange(len(data.users)) if users is None else known_positions(data.users, users, "users", "histories")
        trained = None if self.users is None else self.users.positions(data.users.ids).astype(np.int64)
        able = np.diff(data.matrix.indptr) > 0
        rows = rows[able[rows] if trained is None else able[rows] & (trained[rows] >= 0)]
        history, allowed = data.matrix[rows], self._allowed(only_items, exclude_items)
        seen = None if data.seen is None else data.seen[rows]
        known = None if trained is None else trained[rows]
        if rules is None:
            lists = recommend(
                self.model.score, history, n, filter_seen=filter_seen, allowed=allowed, users=known, seen=seen
            )
        else:
            check_length(n)
            masked = (history if seen is None else seen) if filter_seen else None
            request = Request(data.users.take(rows), history, n, masked, allowed)
            made = rules if isinstance(rules, RuleSet) else self.read_rules(rules)
            lists = recommend_by_rules(self.model.score, made, request, known)
        parts = [self._frame(data.users, rows[batch.start :], batch.positions, batch.scores) for batch in lists]
        return pd.concat(parts, ignore_index=True) if parts else self._frame(data.users, rows[:0], *_NONE)

    def read_rules(self, path: Location | None = None, diversity: float | None = None) -> RuleSet:
        """Read rules of lists for the items of the model.

        Parameters
        ----------
        path : Path or str, optional
            TOML file (`recsys.inference.rule_file`); none but `diversity` without it.
        diversity : float, optional
            From 0 to below 1: how much the items of a list are to differ from each other, in place of what the file
            says. By the column that the file names, else by the embeddings of the model.

        Returns
        -------
        RuleSet
            For `recommend`.

        Raises
        ------
        ConfigError, DataError
            If the file is not one of rules, or a table that it names cannot be read.
        UnsupportedError
            If variety needs embeddings, and the model has none.
        """
        return read_rules(path, self.items, lambda: self.embed_items().to_numpy(np.float32), diversity)

    def recommend_for_items(self, items: Iterable[Any], n: int = 10) -> pd.DataFrame:
        """Recommend n items to a new user who has had these items.

        Parameters
        ----------
        items : iterable of ids
            What the user has had, the oldest first; ids that the model does not know are passed over.
        n : int
            Length of the list.

        Returns
        -------
        DataFrame
            item_id, rank (from 1), score.

        Raises
        ------
        DataError
            If the model knows none of the items.
        UnsupportedError
            If the model needs ratings, or knows only its training users.
        """
        if self.model.task == "rating":
            raise UnsupportedError(f"{self.model.name} needs the ratings of the items: use recommend with a frame.")
        positions = self.items.positions(items if isinstance(items, (str, bytes)) else list(items))
        known = self.items.take(positions[positions >= 0])
        if not len(known):
            raise DataError(f"Expected an item that the model knows, found none among {len(positions)}.")
        history = pd.DataFrame({"user_id": "new user", "item_id": known.to_pandas()})
        if self.users is not None:
            raise UnsupportedError(f"{self.model.name} knows only its training users: use another model.")
        read = self.read_histories(history, ReadingOptions(order="rows"))
        return self.recommend(read, n).drop(columns="user_id")

    def explain(self, histories: Source, user: Any, items: Iterable[Any] | None = None, n: int = 3) -> pd.DataFrame:
        """Explain recommendations to a user by the items of the history.

        Parameters
        ----------
        histories : DataFrame, Interactions, path or list of paths
            What each user has had: columns user_id, item_id, perhaps rating and timestamp.
        user : id
            A user of `histories`.
        items : iterable of ids, optional
            The items to explain; the ten best that `recommend` gives if not given.
        n : int
            Reasons of an item, at most.

        Returns
        -------
        DataFrame
            item_id, rank of the reason (from 1), reason_id (an item of the history), contribution (to the score, in its
            unit) and share (of all contributions above 0 to that item), the strongest reason first. Items of the
            history that contribute nothing, or speak against, are left out; `model.explained_by` says how it was found.

        Raises
        ------
        DataError
            If the user is not in `histories`, an item is unknown to the model, or the model knows no item of the
            history.
        UnsupportedError
            If the scores of the model do not depend on the history.
        """
        check_length(n)
        self.model.check_explainable()
        interactions = self.read_histories(histories)
        data = self.to_matrix(interactions)
        history = data.matrix[int(known_positions(data.users, [user], "users", "histories")[0])]
        if not history.nnz:
            raise DataError(f"Expected a history of {user!r} with an item that the model knows, found none.")
        ids = self.recommend(interactions, users=[user])["item_id"] if items is None else items
        wanted = known_positions(self.items, ids, "items", "the model's items")
        found = self.model.contributions(history, wanted)
        places = found.strongest(n)
        column, rank = np.nonzero(places.T >= 0)
        place = places[rank, column]
        return pd.DataFrame(
            {
                "item_id": self.items.take(wanted[column]).to_pandas(),
                "rank": rank + 1,
                "reason_id": self.items.take(found.history[place]).to_pandas(),
                "contribution": found.values[place, column],
                "share": found.shares[place, column],
            }
        )

    def predict(self, pairs: pd.DataFrame, histories: Source) -> pd.Series[float]:
        """Predict the rating of each (user, item) pair, for models of ratings.

        Parameters
        ----------
        pairs : DataFrame
            Columns user_id, item_id.
        histories : DataFrame, Interactions, path or list of paths
            What each user has rated: user_id, item_id, rating.

        Returns
        -------
        Series of float32
            With the index of `pairs`; NaN where the item is unknown or the user has no history.

        Raises
        ------
        UnsupportedError
            If the model does not predict ratings.
        """
        if self.model.task != "rating":
            raise UnsupportedError(f"{self.model.name} does not predict ratings: train a model of the rating task.")
        data = self.to_matrix(self.read_histories(histories))
        user, item = data.users.positions(pairs["user_id"]), self.items.positions(pairs["item_id"])
        known = (user >= 0) & (item >= 0)
        known[known] = np.diff(data.matrix.indptr)[user[known]] > 0
        found = np.full(len(pairs), np.nan, dtype=np.float32)
        asked, place = np.unique(user[known], return_inverse=True)
        found[known] = predict_pairs(self.model.score, data.matrix[asked], place, item[known])
        return pd.Series(found, index=pairs.index, name="rating")

    def read_histories(self, source: Source, options: ReadingOptions | None = None) -> Interactions:
        """Read histories as the ratings of the training were read.

        Parameters
        ----------
        source : DataFrame, Interactions, path or list of paths
            Interactions are returned as they are.
        options : ReadingOptions, optional
            What they leave open (None) of `min_rating`, `duplicates` and `order` is taken from the training. In a table
            without ratings a remembered minimum does not apply: every row counts.

        Returns
        -------
        Interactions

        Raises
        ------
        DataError
            If the model needs ratings, or times to order the rows by, and there are none.
        """
        return for_models(self._read(source, options), [self.model])

    def _read(self, source: Source, options: ReadingOptions | None) -> Interactions:
        if isinstance(source, Interactions):
            return source
        given = options or ReadingOptions()
        completed = replace(given, **self.remembered(given))
        try:
            return read_for_task(self.model.task, source, completed)
        except NoRatingsError:
            if given.min_rating is not None:
                raise
            return read_for_task(self.model.task, source, replace(completed, min_rating=None))

    def remembered(self, options: ReadingOptions) -> dict[str, Any]:
        """Return what `options` leave open and the training knows: `min_rating`, `duplicates`, `order`.

        Not "error" for duplicates, which says that the training had none.
        """
        kept = self.about.get("reading", {})
        left_open = [name for name in READING if getattr(options, name) is None]
        return {name: kept[name] for name in left_open if kept.get(name) not in (None, "error")}

    def to_matrix(self, interactions: Interactions) -> UserItemMatrix:
        """Return histories over the model's items: ratings for a model of ratings, else ones or places in time."""
        ratings, order = self.model.task == "rating", self.model.uses_order
        return UserItemMatrix.from_interactions(interactions, self.items, ratings=ratings, order=order)

    def _allowed(self, only: Iterable[Any] | None, exclude: Iterable[Any] | None) -> NDArray[np.bool_] | None:
        if only is None and exclude is None:
            return None
        allowed = np.full(len(self.items), only is None)
        for ids, name, value in ((only, "only_items", True), (exclude, "exclude_items", False)):
            if ids is not None:
                allowed[known_positions(self.items, ids, name, "the model's items")] = value
        return allowed

    def _frame(
        self, users: Vocabulary, rows: NDArray[Any], positions: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> pd.DataFrame:
        row, place = np.nonzero(positions >= 0)
        columns = {
            "user_id": users.take(rows[row]).to_pandas(),
            "item_id": self.items.take(positions[row, place]).to_pandas(),
            "rank": place + 1,
            "score": scores[row, place],
        }
        return pd.DataFrame(columns)


_NONE = np.empty((0, 0), dtype=np.int32), np.empty((0, 0), dtype=np.float32)
