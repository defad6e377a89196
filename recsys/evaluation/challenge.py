"""Champion against challenger: two trained models, perhaps of different catalogs, on the same held-out items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.interactions import Interactions, Vocabulary
from recsys.errors import UnsupportedError
from recsys.evaluation.averages import Interval
from recsys.evaluation.evaluate import evaluate_lists
from recsys.evaluation.significance import Difference, differences
from recsys.models.trained import TrainedModel
from recsys.splitting import hide

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Challenge:
    """What a challenge found.

    Attributes
    ----------
    champion, challenger : Interval
        The metric of each, with its 95 % interval.
    difference : Difference
        Challenger minus champion, paired over the same users.
    """

    champion: Interval
    challenger: Interval
    difference: Difference

    def is_won(self, min_gain: float = 0.0, non_inferior: float | None = None) -> bool:
        """Decide whether the challenger takes over.

        Parameters
        ----------
        min_gain : float
            The mean difference must be at least this, and the lower end of its 95 % interval above 0.
        non_inferior : float, optional
            Instead: the lower end must be above minus this, which a model that is no worse, yet newer, passes.

        Returns
        -------
        bool
        """
        gain = self.difference.gain
        if non_inferior is not None:
            return gain.low > -non_inferior
        return gain.low > 0 and gain.mean >= min_gain


def challenge(
    champion: TrainedModel,
    challenger: TrainedModel,
    judges: Interactions,
    metric: str = "ndcg@100",
    *,
    hidden: float = 0.2,
    seed: int = 0,
) -> Challenge:
    """Measure two models on the same users, histories and held-out items.

    The items are those of either model. What a model does not know it cannot list, and a held-out item among these
    counts as missed.

    Parameters
    ----------
    champion, challenger : TrainedModel
        Models of lists.
    judges : Interactions
        Users that neither was trained on; see `recsys.splitting.bucket`.
    metric : str
        A metric of lists.
    hidden : float
        Share of the items of each user that is held out.
    seed : int
        Of what is held out, and of the interval.

    Returns
    -------
    Challenge

    Raises
    ------
    UnsupportedError
        If a model predicts ratings, or knows only its training users.
    DataError
        If no user has two items that one of the models knows.
    """
    for trained in (champion, challenger):
        if trained.model.task == "rating" or trained.model.needs_training_users:
            raise UnsupportedError(f"Expected models that make lists for new users, found {trained.model.name}.")
    catalog = champion.items
    new = challenger.items.take(np.flatnonzero(catalog.positions(challenger.items.ids) < 0))
    if len(new):
        catalog = catalog.extended(new)
    holdout = hide(judges, catalog, hidden, seed)
    measured = {
        name: evaluate_lists(_OverCatalog(trained, catalog), holdout, [metric])
        for name, trained in ((CHALLENGER, challenger), (CHAMPION, champion))
    }
    [difference] = differences({name: found.averages[metric] for name, found in measured.items()}, metric, seed)
    intervals = {name: found.averages[metric].interval(seed) for name, found in measured.items()}
    return Challenge(intervals[CHAMPION], intervals[CHALLENGER], difference)


class _OverCatalog:
    """The scores of a model over a larger catalog; items that it does not know are never listed."""

    def __init__(self, trained: TrainedModel, catalog: Vocabulary):
        self._model, self._n_items = trained.model, len(catalog)
        self._places = catalog.positions(trained.items.ids).astype(np.int64)  # of the model's items in the catalog

    def __call__(self, history: csr_matrix, /, *, users: ArrayLike | None = None) -> Tensor:
        scores = self._model.score(csr_matrix(history[:, self._places]))
        wide = torch.full((len(scores), self._n_items), -torch.inf, device=scores.device)
        wide[:, torch.as_tensor(self._places, device=scores.device)] = scores
        return wide
