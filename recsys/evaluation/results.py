"""What was measured of a fitted model, and of one model over several folds and seeds.

A model may be fitted several times: on each fold, and under several seeds. A user's value is the mean over seeds; over
folds, each has users of its own or, where cells are held out, cells of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.evaluation.averages import Average
from recsys.evaluation.calibration import CalibrationBin
from recsys.evaluation.evaluate import Evaluation
from recsys.models import Recommender
from recsys.training.context import Epoch
from recsys.types import Values


class Costs(TypedDict):
    """What one fit and its scoring cost, mean over fits (the peak is the largest); None for what was not measured."""

    fit_seconds: float | None
    users_per_second: float
    peak_megabytes: float | None  # memory the fit took beyond what was in use before it
    megabytes: float  # size of all that scoring needs, in 1e6 bytes
    takes_new_users: bool


class TuningFacts(TypedDict):
    """How the settings of a model were found: counts and seconds over all folds, the rest of the first fold."""

    trials: int
    pruned: int
    failed: int
    seconds: float
    defaults: float | None  # validation metric of the default settings
    best: float | None  # of the best trial
    best_trial: int
    values: list[float | None]  # of every trial, None where it did not end
    settings: dict[str, object]


@dataclass(frozen=True)
class FittedResult:
    """One fit of one model under one seed, measured on a test part.

    Attributes
    ----------
    model : Recommender
        The fitted model.
    evaluation : Evaluation
        Its metrics.
    users : pyarrow.Array
        Ids of the test users.
    history_lengths : ndarray of int64, shape (users,)
        Items of each user that the model sees.
    slice_metric : str
        The metric measured on each slice of held-out items.
    item_slices : mapping of str to Average
        That metric by slice.
    beyond_accuracy : mapping of str to float
        Coverage, novelty, diversity and the like.
    counts : mapping of str to int
        What was measured besides users: held-out cells, for ratings.
    calibration : sequence of CalibrationBin
        Predicted against observed ratings; empty for lists.
    epochs : sequence of Epoch
        Of the fit that was validated; empty for closed forms and saved models.
    fit_seconds, peak_megabytes : float, optional
        Cost of the fit; None for a saved model, which does not know.
    seed : int
        Of the fit.
    name : str
        What the model is called in a comparison; empty for its own name.
    validation : float, optional
        The main metric on the validation part, where sizes of the code are compared.
    """

    model: Recommender
    evaluation: Evaluation
    users: pa.Array
    history_lengths: NDArray[np.int64]
    slice_metric: str
    item_slices: Mapping[str, Average]
    beyond_accuracy: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)
    calibration: Sequence[CalibrationBin] = ()
    epochs: Sequence[Epoch] = ()
    fit_seconds: float | None = None
    peak_megabytes: float | None = None
    seed: int = 0
    name: str = ""
    validation: float | None = None

    @property
    def megabytes(self) -> float:
        """Size of all that scoring needs, in 1e6 bytes."""
        return sum(tensor.nbytes for tensor in self.model.get_state().values()) / 1e6

    @property
    def users_per_second(self) -> float:
        """Test users scored and ranked in a second."""
        return self.evaluation.n_users / self.evaluation.seconds


@dataclass(frozen=True)
class ModelResult:
    """All fits of one model.

    Attributes
    ----------
    folds : sequence of sequence of FittedResult
        One inner sequence per fold, with one fit per seed.
    tuning : TuningFacts, optional
        How the settings were found; None where they were given.
    """

    folds: Sequence[Sequence[FittedResult]]
    tuning: TuningFacts | None = None

    @property
    def first(self) -> FittedResult:
        """The first seed on the first fold."""
        return self.folds[0][0]

    @property
    def fits(self) -> list[FittedResult]:
        """All fits, fold after fold."""
        return [fit for fits in self.folds for fit in fits]

    @property
    def name(self) -> str:
        """Name of the model in the comparison."""
        return self.first.name or self.first.model.name

    @cached_property
    def _tested(self) -> pa.DictionaryArray:
        """The test users, folds one after the other; a user with cells in several folds occurs several times."""
        return pa.chunked_array([fits[0].users for fits in self.folds]).combine_chunks().dictionary_encode()

    @property
    def users(self) -> pa.Array:
        """Ids of the test users, each once."""
        return self._tested.dictionary

    @property
    def history_lengths(self) -> NDArray[np.int64]:
        """Length of each user's history, (users,); in the first of several folds."""
        _, first = np.unique(self._tested.indices, return_index=True)
        return np.concatenate([fits[0].history_lengths for fits in self.folds])[first]

    def average(self, label: str) -> Average:
        """Average a metric over the users: mean over seeds and sum over folds of each user."""
        return self._over_folds([[fit.evaluation.averages[label] for fit in fits] for fits in self.folds])

    def values(self, label: str) -> Values:
        """Return a metric of each user, float64 (users,)."""
        return self.average(label).each

    def item_average(self, name: str) -> Average:
        """Average the slice metric over one slice of items; folds without that slice have weight 0."""
        return self._over_folds([[_slice(fit, name) for fit in fits] for fits in self.folds])

    def _over_folds(self, folds: Sequence[Sequence[Average]]) -> Average:
        joined = Average.joined([Average.over_seeds(seeds) for seeds in folds])
        return joined.grouped(self._tested.indices.to_numpy(), len(self.users))

    def seed_spread(self, label: str) -> float | None:
        """Standard deviation over seeds of a metric's mean; None with a single seed."""
        seeds = len(self.folds[0])
        if seeds < 2:
            return None
        means = [
            Average.joined([fits[seed].evaluation.averages[label] for fits in self.folds]).mean for seed in range(seeds)
        ]
        return float(np.std(means, ddof=1))

    def beyond_accuracy(self) -> dict[str, float]:
        """Coverage, novelty, diversity and the like, mean over fits."""
        return {
            key: float(np.mean([fit.beyond_accuracy[key] for fit in self.fits])) for key in self.first.beyond_accuracy
        }

    def counts(self) -> dict[str, int]:
        """What was measured besides users, over all folds."""
        return {key: sum(fits[0].counts[key] for fits in self.folds) for key in self.first.counts}

    def costs(self) -> Costs:
        """What a fit and its scoring cost."""
        seconds = [fit.fit_seconds for fit in self.fits if fit.fit_seconds is not None]
        peaks = [fit.peak_megabytes for fit in self.fits if fit.peak_megabytes is not None]
        return {
            "fit_seconds": float(np.mean(seconds)) if seconds else None,
            "users_per_second": float(np.mean([fit.users_per_second for fit in self.fits])),
            "peak_megabytes": max(peaks, default=None),
            "megabytes": float(np.mean([fit.megabytes for fit in self.fits])),
            "takes_new_users": not self.first.model.needs_training_users,
        }


def _slice(fit: FittedResult, name: str) -> Average:
    zeros = np.zeros(len(fit.users))
    return fit.item_slices.get(name, Average(zeros, zeros, fit.evaluation.averages[fit.slice_metric].root))
