"""Reading interactions for a task: one that predicts ratings needs them, all of them."""

from __future__ import annotations

from typing import Any, cast

from recsys.data.interactions import Interactions
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.source import read_interactions
from recsys.errors import ConfigError, DataError


def read_for_task(task: str, source: Any, options: ReadingOptions) -> Interactions:
    """Read interactions for a task, refusing what makes no sense of ratings.

    Parameters
    ----------
    task : str
        "ranking" or "rating".
    source : DataFrame, path or list of paths
        See `read_interactions`.
    options : ReadingOptions
        How to read.

    Returns
    -------
    Interactions

    Raises
    ------
    ConfigError
        If `min_rating` is given for the rating task.
    DataError
        If the rating task finds no ratings.
    """
    if task == "rating" and options.min_rating is not None:
        raise ConfigError(
            "Expected no min_rating for the rating task: a model that never sees a low rating cannot predict one. "
            "Leave it out."
        )
    interactions = read_interactions(cast(Any, source), options)
    if task == "rating" and interactions.rating is None:
        raise DataError(
            "Expected a column of ratings to learn to predict them, found none: name it (rating_column), or train a "
            "model of the ranking task."
        )
    return interactions
