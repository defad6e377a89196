"""What removing suspicious interactions does to accuracy on held-out data that no audit touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recsys.errors import UnsupportedError
from recsys.evaluation.averages import Interval
from recsys.evaluation.significance import Difference, differences
from recsys.evaluation.tasks import TASKS
from recsys.explain.audit import audit, clean
from recsys.models.base import Recommender
from recsys.splitting.holdout import Split
from recsys.training.context import TrainingContext

CLEANED, AS_IT_IS = "cleaned", "as it is"


@dataclass(frozen=True)
class CleaningEffect:
    """Accuracy of a model fitted on training data as they are, and without their most suspicious interactions.

    Attributes
    ----------
    metric : str
        The main metric of the task.
    before, after : Interval
        Of the model fitted on all training interactions, and on the cleaned ones.
    difference : Difference
        Cleaned minus as it is, over the same users.
    removed : int
        Number of training interactions left out.
    """

    metric: str
    before: Interval
    after: Interval
    difference: Difference
    removed: int


def measure_cleaning(
    model: Recommender,
    split: Split,
    share: float,
    folds: int = 5,
    seed: int = 0,
    context: TrainingContext | None = None,
    on_fit: Callable[[int, int], None] = lambda done, total: None,
) -> CleaningEffect:
    """Audit the training data of a split, fit the model with and without the worst, and measure both.

    The held-out part is neither audited nor cleaned, so that what was removed cannot be what would have been counted
    as a miss.

    Parameters
    ----------
    model : Recommender
        Its settings are used.
    split : Split
        With a test part, or else a validation part.
    share : float
        Share of the training interactions that is removed, above 0 and below 1.
    folds : int
        As in `audit`.
    seed : int
        Of folds, fits and intervals.
    context : TrainingContext, optional
        Device, precision, progress.
    on_fit : callable (done, total)
        Called before the first of `folds` + 2 fits and after each.

    Returns
    -------
    CleaningEffect

    Raises
    ------
    UnsupportedError
        If nothing is held out.
    ConfigError, DataError
        As in `audit`.
    """
    held_out = split.test or split.validation
    if held_out is None:
        raise UnsupportedError("Expected a split with held-out data to measure on, found none.")
    task, metric, fits = TASKS[model.task], TASKS[model.task].metric, folds + 2
    found = audit(
        model,
        split.train,
        folds,
        seed=seed,
        accounts=False,
        context=context,
        on_fold=lambda done, _: on_fit(done, fits),
    )
    worst = found.worst(share)
    averages = {}
    for name, data in ((CLEANED, clean(split.train, worst)), (AS_IT_IS, split.train)):
        fitted = model.refit(data.matrix, context)
        averages[name] = task.evaluate(fitted, held_out, (metric,)).averages[metric]
        on_fit(folds + len(averages), fits)
    before, after = (averages[name].interval(seed) for name in (AS_IT_IS, CLEANED))
    return CleaningEffect(metric, before, after, differences(averages, metric, seed)[0], len(worst))
