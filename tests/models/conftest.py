"""Fixtures of the contract: models fitted once for all tests."""

import pytest
from model_contract import NEED_IMPLICIT, create, two_tastes


@pytest.fixture(autouse=True)
def _implicit(request):
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    if name in NEED_IMPLICIT:
        pytest.importorskip("implicit")


@pytest.fixture(scope="session")
def fitted():
    """Models by name, each fitted once on the two tastes; no test may change them."""
    models = {}
    return lambda name: models.get(name) or models.setdefault(name, create(name).fit(two_tastes(name)))
