"""Adam is torch's, and a training does not import torch's compiler, which takes seconds."""

import subprocess
import sys

import pytest
import torch

from recsys.training.adam import Adam

FIT = """
import sys
import numpy as np
from scipy.sparse import csr_matrix
from recsys.models import create_model

ones = csr_matrix((np.random.default_rng(0).random((40, 30)) < 0.3).astype(np.float32))
create_model(sys.argv[1], {"epochs": 1}).fit(ones)
assert "torch.optim" in sys.modules
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.parametrize("name", ["vae", "autorec"])
def test_a_fit_does_not_import_the_compiler(name):
    found = subprocess.run([sys.executable, "-c", FIT, name], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_steps_are_those_of_torch():
    found = []
    for kind in (Adam, torch.optim.Adam):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = kind([weight], lr=0.1, weight_decay=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
        found.append(weight.detach())
    assert torch.equal(*found)
