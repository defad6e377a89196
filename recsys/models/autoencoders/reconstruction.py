"""What comes back out of an autoencoder, on the scale of what went in: expected values of cells, not scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import DataError, UnsupportedError
from recsys.models.autoencoders.likelihood import Likelihood, expected_cells
from recsys.models.embeddings import EmbeddingModel
from recsys.training.batches import SparseBatch

if TYPE_CHECKING:
    from recsys.models.autoencoders.network import Network


class Reconstruction(EmbeddingModel, ABC):
    """A model whose scores are those of a likelihood: what goes in comes back as expected values."""

    network: Network
    config: Any
    size_setting: ClassVar[str]

    @abstractmethod
    def _batch(self, history: csr_matrix) -> SparseBatch: ...

    def _likelihood(self) -> Likelihood:
        """The likelihood of the network; UnsupportedError where there is none."""
        if self.network.likelihood is None:
            raise UnsupportedError(
                f"Expected a model with a likelihood to reconstruct with, found {self.name}, whose scores only have an "
                "order: use score."
            )
        return self.network.likelihood

    def reconstruct(self, history: csr_matrix) -> Tensor:
        """Encode and decode histories.

        Parameters
        ----------
        history : csr_matrix, shape (users, items)
            Rows of what the model was fitted on, or like it.

        Returns
        -------
        Tensor
            Float32 (users, items): the expected value of every cell, on the scale of the input. Under a multinomial
            likelihood the sum of a row is that of the input, which its scores do not tell.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the columns are not the model's items.
        UnsupportedError
            If the scores of the model have an order, but no unit.
        """
        matrix, _ = self._checked(history, None)
        likelihood = self._likelihood()
        with torch.no_grad():
            scores = self.network(self._batch(matrix)).float()
            return expected_cells(likelihood, scores, torch.as_tensor(np.asarray(matrix.sum(axis=1)).ravel()))

    def decode(self, codes: ArrayLike | Tensor) -> Tensor:
        """Return the expected cells of any codes, such as draws from the prior of a VAE.

        Parameters
        ----------
        codes : array, shape (rows, size)
            In the space of `embed_users(history).mean`.

        Returns
        -------
        Tensor
            Float32 (rows, items). Under a multinomial likelihood the shares of the items: rows of sum 1.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the codes do not have the size of the model's.
        UnsupportedError
            If the scores of the model have an order, but no unit.
        """
        self._require_fitted()
        likelihood = self._likelihood()
        weight, bias = self.network.output()
        given = torch.as_tensor(codes, dtype=weight.dtype, device=weight.device)
        size = getattr(self.config, self.size_setting)
        if given.ndim != 2 or given.shape[1] != size:
            raise DataError(f"Expected codes of shape (rows, {size}), found {tuple(given.shape)}.")
        with torch.no_grad():
            scores = torch.nn.functional.linear(self.network.from_code(given), weight, bias).float()
        return expected_cells(likelihood, scores)
