"""Graph filters: histories are turned into scores by a polynomial of the item graph, plus an ideal low-pass filter.

With R = N^-1/2 X D^-1/2 (N and D diagonal: the row and column sums of X), P = R'R is the item graph, and V are its
leading eigenvectors. For few items the whole filter is one items x items matrix; for many, histories are multiplied by
the sparse R and R' in turn, and the square of the items is never formed.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from recsys.models.config import require
from recsys.models.embeddings import Embeddings
from recsys.models.factorization.svd import right_singular_vectors, singular_vectors
from recsys.models.linear.ease import gram_matrix
from recsys.models.recency import RecencyWeighted, check_half_life
from recsys.models.scaling import inverse_roots
from recsys.models.search_space import Range, tunable
from recsys.models.state import CsrSpec, StateSpec, TensorSpec, csr_from_state, csr_state
from recsys.training.batches import SparseRows, weighted_sum
from recsys.training.context import TrainingContext

# Up to so many items the whole filter is one items x items matrix, found once: 144 MB. While it is found, in double
# precision, there are five of twice that size: 1.4 GB.
_WHOLE_ITEMS = 6000
# Histories filtered at once on a CPU: few enough that the numbers of each item stay in its cache.
_WIDTH = 32


@dataclass(frozen=True)
class GraphFilterConfig:
    """Settings of every graph filter."""

    factors: int = tunable(256, Range(32, 1024, log=True))  # leading eigenvectors of the ideal low-pass filter
    low_pass: float = tunable(0.2, Range(0.0, 1.0))  # weight of the ideal low-pass filter; 0 switches it off
    half_life: float | None = None  # of an item of a history that is scored, in later items; None: all weigh alike

    def __post_init__(self) -> None:
        require(self.factors >= 1, f"Expected factors of at least 1, found {self.factors}.")
        require(self.low_pass >= 0, f"Expected low_pass of 0 or more, found {self.low_pass}.")
        check_half_life(self.half_life)


FilterT = TypeVar("FilterT", bound=GraphFilterConfig)


class GraphFilter(RecencyWeighted[FilterT]):
    """A filter of the item graph. A subclass gives the polynomial, on histories and whole.

    It keeps the training matrix. Memory: 16 bytes per interaction and 8 x factors per item. For up to 6,000 items the
    filter is an items x items matrix, which scores many times as fast.
    """

    family = "graph filter"
    is_random = False
    explained_by = "exact"
    filter: Tensor | None = None  # (items, items), for few items

    def _power(self) -> float:
        """The power p of the ideal low-pass filter D^-p/2 V V' D^p/2."""
        return 1.0

    @abstractmethod
    def _polynomial(self, columns: Tensor, low: Tensor) -> Tensor:
        """Scores (items, users) of histories (items, users); `low`: the weighted ideal low-pass filter of them."""

    @abstractmethod
    def _whole_polynomial(self, graph: Tensor, low: Tensor) -> Tensor:
        """The filter F with scores = history F, in double precision; `low`: the weighted ideal low-pass filter."""

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        items = inverse_roots(matrix, self._power(), 0)
        active = np.asarray(matrix.sum(axis=1)).ravel().clip(1)
        popular = np.asarray(matrix.sum(axis=0)).ravel().clip(1)
        graph = csr_matrix(diags(active**-0.5) @ matrix @ diags(popular**-0.5), dtype=np.float32)
        context.on_phase("singular vectors", 0, 1)
        vectors = right_singular_vectors(graph, self.config.factors)
        context.on_phase("singular vectors", 1, 1)
        tables = {"input": vectors * items[:, None], "output": vectors / items[:, None], **self._scales(items)}
        state = {name: torch.as_tensor(table.astype(np.float32)) for name, table in tables.items()}
        self._set_state(state | csr_state(graph), context.resolve_device())
        if matrix.shape[1] <= _WHOLE_ITEMS:
            context.on_phase("filter", 0, 1)
            self.filter = self._whole_filter()
            context.on_phase("filter", 1, 1)

    def _scales(self, items: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """More arrays of the state, from D^-p/2, relative to the mean popularity."""
        return {}

    def _whole_filter(self) -> Tensor:
        # Rounded at the end alone: scores that are equal stay equal in any order of the items.
        graph = gram_matrix(self._matrix, self.input.device).double()
        low = self.config.low_pass * (self.input.double() @ self.output.double().T)
        return self._whole_polynomial(graph, low).float()

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        if self.filter is not None:
            return weighted_sum(SparseRows(history, self.filter.device).everything(), self.filter)
        device = self.output.device
        width = _WIDTH if device.type == "cpu" else max(1, history.shape[0])
        scores = torch.empty(history.shape, device=device)
        for start in range(0, history.shape[0], width):
            some = history[start : start + width]
            low = self.output @ weighted_sum(SparseRows(some, device).everything(), self.input).T
            columns = torch.as_tensor(some.T.toarray(), device=device)
            scores[start : start + width] = self._polynomial(columns, low.mul_(self.config.low_pass)).T
        return scores

    def _propagate(self, columns: Tensor) -> Tensor:
        """P times columns, (items, users)."""
        propagated: Tensor = self._back @ (self._graph @ columns)
        return propagated

    def _embed_items(self) -> Tensor:
        """V S of the graph, as in SVD."""
        vectors = singular_vectors(self.input, self.output)
        values: Tensor = (self._graph @ vectors).square().sum(dim=0).sqrt()
        return vectors * values

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        return Embeddings(weighted_sum(SparseRows(history, self.input.device).everything(), self.input))

    def _get_state(self) -> dict[str, Tensor]:
        whole = {} if self.filter is None else {"filter": self.filter}
        return {"input": self.input, "output": self.output, **whole, **csr_state(self._matrix)}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.input, self.output = state["input"].to(device), state["output"].to(device)
        self.filter = state["filter"].to(device) if "filter" in state else None
        self._matrix = csr_from_state(state, columns=len(self.input))
        self._graph, self._back = _on_device(self._matrix, device), _on_device(self._matrix.T.tocsr(), device)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        tables = {name: TensorSpec((n_items, "factors")) for name in ("input", "output")}
        whole = {"filter": TensorSpec((n_items, n_items))} if "filter" in state else {}
        return StateSpec(tables | whole, {"": CsrSpec("users", n_items)})


def _on_device(matrix: csr_matrix, device: torch.device) -> Tensor:
    rows, columns, values = (torch.as_tensor(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that its sparse tensors are in beta state
        return torch.sparse_csr_tensor(rows, columns, values, size=matrix.shape, device=device)
