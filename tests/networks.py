"""What tests of networks begin with: preferences of a few people, as a matrix and as a batch, and weights not at 0."""

import numpy as np
import torch
from scipy.sparse import csr_matrix

from recsys.training.batches import SparseRows

USERS, ITEMS = 9, 12


def preferences(seed=0, users=USERS, items=ITEMS):
    """A dense matrix of 0 and 1, float32 (users, items)."""
    matrix = (np.random.default_rng(seed).random((users, items)) < 0.4).astype(np.float32)
    matrix[0] = 0  # somebody took nothing
    return matrix


def batch_of(matrix):
    """All its rows."""
    return SparseRows(csr_matrix(matrix), torch.device("cpu")).everything()


def with_random_biases(network):
    """The network, its biases drawn: at 0 they would hide a mistake."""
    for weight in network.parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight)
    return network
