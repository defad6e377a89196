"""Size of the code against what it keeps: models at several sizes, and how much of a history comes back out of them.

A history goes through a code of few numbers and comes back as a score for every item. Scores of different models have
no unit in common (log-probabilities, projections, distances), but all of them order the items. So reconstruction is
measured on the order alone, as lists are: it is 1 if the items of the history have the highest scores of all.

```
history  x x x . . .     order of the scores, best first:  x . x | x . .     2 of the first 3 came back: 2/3
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from recsys.errors import ConfigError
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import item_ids
from recsys.evaluation.metrics import find_hits
from recsys.evaluation.results import ModelResult
from recsys.inference.ties import TieBreak
from recsys.inference.topn import recommend
from recsys.models import Recommender
from recsys.splitting.holdout import Holdout
from recsys.types import ScoreFunction


def size_of(model: Recommender) -> dict[str, int]:
    """Return the setting that is the size of a user's code, by its name; empty for a model without a code."""
    name = model.size_setting
    return {name: getattr(model.config, name)} if name else {}


def at_sizes(models: Mapping[str, Recommender], sizes: Sequence[int]) -> dict[str, Recommender]:
    """Make every model once for each size of its code.

    Parameters
    ----------
    models : mapping of str to Recommender
        By name. Their other settings stay as they are.
    sizes : sequence of int
        Widths of the code, different from each other.

    Returns
    -------
    dict of str to Recommender
        Not fitted, by name and size: `vae-32`. A model without a code stays as it is, under its own name.

    Raises
    ------
    ConfigError
        If a size occurs twice or is not possible, or no model has a code.
    """
    if not sizes or len(set(sizes)) < len(sizes):
        raise ConfigError(f"Expected different sizes of the code, found {', '.join(map(str, sizes)) or 'none'}.")
    if not any(model.size_setting for model in models.values()):
        raise ConfigError(
            f"Expected models with a code (latent factors or units) for latent_sizes, found {', '.join(models)}."
        )
    found: dict[str, Recommender] = {}
    for name, model in models.items():
        if not model.size_setting:
            found[name] = model
            continue
        for size in sizes:
            found[f"{name}-{size}"] = model.create({**asdict(model.config), model.size_setting: size})
    return found


def best_sizes(results: Sequence[ModelResult]) -> dict[str, str]:
    """Choose the size of the code of every model that was compared at several, by the validation part.

    Parameters
    ----------
    results : sequence of ModelResult

    Returns
    -------
    dict of str to str
        By the name of a model among MODELS the name of its chosen result, such as `vae-32`; empty without a validation
        part.
    """
    values: dict[str, dict[str, float]] = {}
    for result in results:
        found = [fit.validation for fit in result.fits if fit.validation is not None]
        if found and size_of(result.first.model):
            values.setdefault(result.first.model.name, {})[result.name] = sum(found) / len(found)
    return {model: max(rows, key=rows.__getitem__) for model, rows in values.items() if len(rows) > 1}


def reconstruction(score: ScoreFunction, holdout: Holdout, batch_size: int = 512, with_users: bool = False) -> Average:
    """Measure how much of each history comes back: the share of its n items among the n highest scores of all items.

    The R-precision of the input. 1: the code kept the whole history. Chance: the share of the catalog in the history.

    Parameters
    ----------
    score : ScoreFunction
        From histories to scores.
    holdout : Holdout
        Its histories are what goes in and has to come back; its held-out items are not used.
    batch_size : int
        Users scored at once.
    with_users : bool
        Pass the users' rows of the training matrix to `score`.

    Returns
    -------
    Average
        Over users. Equal scores are ordered by hashes of the ids, as in `evaluate`.
    """
    lengths = np.diff(holdout.history.indptr)
    users = holdout.train_rows if with_users else None
    batches = recommend(
        score,
        holdout.history,
        max(1, int(lengths.max(initial=0))),
        batch_size,
        filter_seen=False,
        users=users,
        tie_break=TieBreak.from_ids(item_ids(holdout), holdout.users),
    )
    positions = np.concatenate([batch.positions for batch in batches])
    hits = find_hits(positions, holdout.history) & (np.arange(positions.shape[1]) < lengths[:, None])
    return Average.of(np.where(lengths > 0, hits.sum(axis=1) / np.maximum(lengths, 1), np.nan))
