"""Item features in a linear autoencoder: rows of the matrix that it learns from, and scores of new items.

```
             items with interactions     items without
users        X                           0               B learns from X and sqrt(alpha) F' as if both were users
features     sqrt(alpha) F'              -
scores       s = history B               s A             A: shares of the known items in a new one, each column of sum 1
```
F are the features, weighed by rarity and of length 1 an item. The Gram matrix X'X + alpha F F' is that of CEASE. There
items without interactions are part of it as well, and their scores come from F F' alone; here they are part of no
history that is learned from, so that weights from them have no use. A new item with features f is scored as a mixture
of known items with features like its own: ridge regression of the scores on the features, around the mean score,

    A = a + (1 - sum a) / n,    a = (F F' + l2 I)^-1 F f = F (F'F + l2 I)^-1 f    (n known items)

in the form that is smaller. It depends on no other new item, and weights of known items depend on no new one: an item
that comes later gets the column that a fit with it would have found.

Jeunen, Van Balen, Goethals: Closed-Form Models for Collaborative Filtering with Side-Information, RecSys 2020 (CEASE).
Gantner et al.: Learning Attribute-to-Feature Mappings for Cold-Start Recommendations, ICDM 2010 (the mixture, whose
"vectors" are the columns of B here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, vstack
from torch import Tensor

from recsys.models.config import require
from recsys.models.content.ridge import Ridge
from recsys.models.content.weighing import rarity, weighed
from recsys.models.search_space import Range
from recsys.models.state import CsrSpec, StateSpec, TensorSpec, csr_from_state, csr_state
from recsys.types import FloatArray

FEATURE_L2 = Range(0.3, 30.0, log=True)  # where its best value is looked for; an item's features have length 1
_PREFIX = "features."


def check_feature_settings(weight: float, l2: float) -> None:
    """Raise ConfigError for a weight of the features below 0, or a ridge that is not above 0."""
    require(weight >= 0, f"Expected feature_weight of 0 or more, found {weight}.")
    require(l2 > 0, f"Expected feature_l2 above 0, found {l2}.")


@dataclass(frozen=True)
class FeatureRows:
    """Features of the items that a model learns from.

    Attributes
    ----------
    rows : csr_matrix, float32 (items, features)
        F; empty for an item without interactions.
    weights : ndarray of float32, shape (features,)
        What features are multiplied by before an item is scaled to length 1.
    known : ndarray of bool, shape (items,)
        The items with interactions.
    """

    rows: csr_matrix
    weights: FloatArray
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, matrix: csr_matrix, features: csr_matrix) -> FeatureRows:
        """Weigh the features (items, features) of the items of a matrix (users, items)."""
        known = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
        weights = rarity(features, known)
        own = csr_matrix(diags(known.astype(np.float32)) @ weighed(features, weights), dtype=np.float32)
        own.eliminate_zeros()
        own.sort_indices()
        return cls(own, weights, known)

    def under(self, matrix: csr_matrix, weight: float) -> csr_matrix:
        """Return a matrix (users, items) with the features as further rows, whose squares count `weight` times."""
        return csr_matrix(vstack([matrix, np.float32(weight**0.5) * self.rows.T], format="csr"), dtype=np.float32)

    def shares(self, new: csr_matrix, l2: float, name: str) -> Tensor:
        """Return A, the shares of the items in new ones, float32 (items, new items).

        Parameters
        ----------
        new : csr_matrix, float32 (new items, features)
            Weighed as the others.
        l2 : float
            Ridge of the regression on features, above 0.
        name : str
            Of the model, for an error about memory.
        """
        known = self.rows[self.known]
        ridge = Ridge.of(known, l2, torch.device("cpu"), name, results=known.shape[0] * new.shape[0])
        found = ridge.shares(new)
        shares = torch.zeros(len(self.known), new.shape[0])
        shares[torch.as_tensor(self.known)] = found + (1 - found.sum(dim=0)) / len(found)
        return shares

    def with_new_items(self, count: int) -> FeatureRows:
        """Return the same for a model of `count` more items, which are not learned from."""
        pointers = np.append(self.rows.indptr, np.full(count, self.rows.indptr[-1], dtype=self.rows.indptr.dtype))
        rows = csr_matrix((self.rows.data, self.rows.indices, pointers), (len(pointers) - 1, self.rows.shape[1]))
        return FeatureRows(rows, self.weights, np.append(self.known, np.zeros(count, dtype=bool)))

    def get_state(self) -> dict[str, Tensor]:
        """Return the parts by name."""
        own = {"feature_weights": torch.as_tensor(self.weights), "known": torch.as_tensor(self.known)}
        return own | csr_state(self.rows, _PREFIX)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> FeatureRows:
        """Return the features of a checked state."""
        weights, known = (state[name].numpy(force=True) for name in ("feature_weights", "known"))
        return cls(csr_from_state(state, len(weights), _PREFIX), weights, known)

    @staticmethod
    def spec(items: int, state: Mapping[str, Tensor]) -> StateSpec:
        """Return what a state must be; `state`: its number of features is unchecked."""
        features = state["feature_weights"].numel() if "feature_weights" in state else 1
        own = {"feature_weights": TensorSpec(("features",)), "known": TensorSpec((items,), torch.bool)}
        return StateSpec(own, {_PREFIX: CsrSpec(items, features)})
