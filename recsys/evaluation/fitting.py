"""Fit one model on interactions: hold some out, validate, then learn from everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from recsys import splitting
from recsys.data.interactions import Interactions
from recsys.data.item_features.features import ItemFeatures, encoder_of, read_item_features, with_features
from recsys.data.matrix import UserItemMatrix
from recsys.data.order import for_models
from recsys.data.reading import ReadingOptions
from recsys.data.reading.for_task import read_for_task
from recsys.evaluation.evaluate import Validator
from recsys.evaluation.tasks import TASKS
from recsys.evaluation.warm_fit import Origin, find_origin, fit_on, place
from recsys.models import Recommender, create_model
from recsys.models.cost import Size
from recsys.models.default import choose_model
from recsys.models.trained import READING, TrainedModel
from recsys.models.warm_start import Earlier
from recsys.splitting.holdout import Split
from recsys.training.context import TrainingContext, WarmStart


def fit(
    ratings: str | Path | Sequence[str | Path] | pd.DataFrame | Interactions,
    model: str | Recommender | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    held_out: float = 0.1,
    refit: bool = True,
    reading: ReadingOptions | None = None,
    context: TrainingContext | None = None,
    init_from: TrainedModel | None = None,
    grow: bool = False,
    encoder_from: TrainedModel | None = None,
    item_features: str | Path | ItemFeatures | None = None,
) -> TrainedModel:
    """Fit a model on ratings and return it with the ids of its items.

    Parameters
    ----------
    ratings : path, list of paths, DataFrame or Interactions
        What to learn from.
    model : str or Recommender, optional
        A name in MODELS, or a model; chosen by the size of the data without it.
    settings : mapping, optional
        Settings of a model given by name.
    held_out : float
        Share of users (for models of ratings: of rows) held out to choose the number of epochs, or the weights of a
        blend, and to measure. 0: nothing is held out, all epochs run, nothing is measured.
    refit : bool
        Fit once more, on everybody, for the number of epochs that was best. Without it the held-out rows are not
        learned from.
    reading : ReadingOptions, optional
        How to read; the model remembers `min_rating`, `duplicates` and `order` for the histories it is given later.
    context : TrainingContext, optional
        Seed, device, precision, patience, progress.
    init_from : TrainedModel, optional
        Go on from this model, of the same kind and settings: what it learned of known users and items is kept, and
        fewer epochs are needed (`recsys.models.warm_start`). The model is then its own by default.
    grow : bool
        With `init_from`: keep all of its items, at their positions; new ones follow.
    encoder_from : TrainedModel, optional
        A `vae`, `dae`, `ae` or `sparse-ae` fitted on a large implicit log, whose first layers a network over few
        ratings begins with (`recsys.models.pretraining`).
    item_features : path or ItemFeatures, optional
        The table that describes the items, for a model that uses it; items that only the table knows are items of the
        model too (`recsys.data.item_features`).

    Returns
    -------
    TrainedModel
        `about["metrics"]` holds the validation metrics: mean, low and high end of the 95 % confidence interval.

    Raises
    ------
    ConfigError
        For unknown models or settings, for other settings than those of `init_from`, and for `init_from` together
        with `encoder_from`.
    DataError
        For ratings that cannot be used.

    Examples
    --------
    >>> trained = fit("ratings.csv", "vae", {"latent": 50})  # doctest: +SKIP
    >>> trained.recommend("ratings.csv", n=10)  # doctest: +SKIP
    """
    context, reading = context or TrainingContext(), reading or ReadingOptions()
    origin = find_origin(init_from, encoder_from, grow)
    chosen = _unfitted(model, settings, origin)
    task = TASKS["ranking" if chosen is None else chosen.task]
    interactions = _read(ratings, task.name, reading, init_from)
    chosen = _default_model(interactions, held_out, context) if chosen is None else chosen
    interactions = for_models(_with_features(interactions, item_features, chosen), [chosen])
    split = place(origin, validation_split(interactions, chosen, held_out, context.seed))
    metrics, validate = {}, None
    if split.validation is not None:
        validate = Validator(split.validation, task.metric, chosen.needs_training_users)

    def fit_it(model: Recommender, start: WarmStart | None) -> Recommender:
        features = split.train.features
        return model.fit(split.train.matrix, replace(context, validate=validate, start=start, item_features=features))

    def refit_it(model: Recommender, start: WarmStart | None) -> Recommender:
        return model.refit(split.train.matrix, replace(context, start=start, item_features=split.train.features))

    fit_on(origin, chosen, split, interactions, fit_it)
    if split.validation is not None:
        found = task.evaluate(chosen, split.validation, task.metrics)
        metrics = {label: asdict(interval) for label, interval in found.intervals(context.seed).items()}
        if refit:
            split = place(origin, splitting.everybody(interactions, task.ratings))
            chosen = fit_on(origin, chosen, split, interactions, refit_it)
    about = {
        "metrics": metrics,
        "seed": context.seed,
        "data": interactions.describe(),
        "reading": _remembered(interactions, reading),
        "split": {"protocol": split.protocol, "held_out": held_out, "refit": refit, **split.facts},
    }
    about |= {} if origin is None else origin.record(split.train)
    return _trained(chosen, split.train, interactions, about)


def _unfitted(
    model: str | Recommender | None, settings: Mapping[str, Any] | None, origin: Origin | None
) -> Recommender | None:
    """The model to fit; None where the size of the data decides."""
    if isinstance(model, Recommender):
        if isinstance(origin, Earlier):
            origin.check(model)
        return model
    if origin is not None:
        return origin.create(model or "", settings)
    return None if model is None else create_model(model, settings)


def _read(ratings: Any, task: str, reading: ReadingOptions, init_from: TrainedModel | None) -> Interactions:
    """The ratings; read as those of the earlier model were, where `reading` leaves it open."""
    if isinstance(ratings, Interactions):
        return ratings
    return read_for_task(task, ratings, reading) if init_from is None else init_from.read_histories(ratings, reading)


def _trained(
    model: Recommender, train: UserItemMatrix, interactions: Interactions, about: dict[str, Any]
) -> TrainedModel:
    """The model with the ids of what it was fitted on."""
    users = train.users if model.needs_training_users else None
    return TrainedModel(model, train.items, train.item_counts, users, about, features=encoder_of(interactions))


def _with_features(
    interactions: Interactions, features: str | Path | ItemFeatures | None, model: Recommender
) -> Interactions:
    """The interactions with what is known of their items, where the model uses it."""
    if features is None or not model.uses_features:
        return interactions
    found = features if isinstance(features, ItemFeatures) else read_item_features(features)
    return with_features(interactions, found)


def _remembered(interactions: Interactions, reading: ReadingOptions) -> dict[str, Any]:
    """What the model keeps of how its ratings were read."""
    kept = {name: interactions.policies.get(name, getattr(reading, name)) for name in READING}
    return kept | {"order": interactions.order}


def _default_model(interactions: Interactions, held_out: float, context: TrainingContext) -> Recommender:
    """The model that suits the data and this machine."""
    size = Size.of(interactions.user, interactions.item)
    default = choose_model(size, held_out > 0, context.resolve_device(), context.group.size)
    return create_model(default.model, default.settings)


def validation_split(interactions: Interactions, model: Recommender, held_out: float, seed: int) -> Split:
    """Hold out what the model's task validates on.

    Parameters
    ----------
    interactions : Interactions
        All rows.
    model : Recommender
        Its task decides what is held out: users, or, for models of ratings, rows.
    held_out : float
        The share; 0 for nothing.
    seed : int
        Seed of the choice.

    Returns
    -------
    Split
        Without a test part.
    """
    task, interactions = TASKS[model.task], for_models(interactions, [model])
    if not held_out:
        return splitting.everybody(interactions, task.ratings)
    return task.validation_split(interactions, model, held_out, seed)
