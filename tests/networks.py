"""Shared by the tests of networks: preferences of a few users, as a matrix and as a batch, and random biases."""

import numpy as np
import torch
from scipy.sparse import csr_matrix

from recsys.training.batches import SparseRows

USERS, ITEMS = 9, 12


def preferences(seed=0, users=USERS, items=ITEMS):
    """A dense matrix of 0 and 1, float32 (users, items)."""
    matrix = (np.random.default_rng(seed).random((users, items)) < 0.4).astype(np.float32)
    matrix[0] = 0  # a user without items
    return matrix


def batch_of(matrix):
    """All rows of a matrix as a batch."""
    return SparseRows(csr_matrix(matrix), torch.device("cpu")).everything()


def with_random_biases(network):
    """The network with random biases: biases of 0 would hide a mistake."""
    for weight in network.parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight)
    return network
