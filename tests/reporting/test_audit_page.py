"""The page of an audit as a person would see it."""

import numpy as np
import pytest
from browser import look, needs_browser
from scipy.sparse import csr_matrix
from tastes import two_tastes

pytest.importorskip("jinja2")

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.explain.audit import audit
from recsys.models import create_model
from recsys.reporting.audit_page import AuditTexts, render_audit


@pytest.fixture(scope="module")
def page():
    rows = two_tastes(users=120, items=40).to_matrix().matrix.toarray()
    rows[0] = np.maximum(rows[0], rows[1])  # an account of two
    names = (Vocabulary.of([f"{kind}{i}" for i in range(n)]) for kind, n in zip("ui", rows.shape, strict=True))
    found = audit(create_model("ease", {"l2": 5}), UserItemMatrix(csr_matrix(rows), *names))
    titles = {"i0": "<script>alert(1)</script>", "i20": "A title " * 30}
    return render_audit(found, AuditTexts("ease", 5, "rows read 3 = kept 3", titles, "0.2"))


def test_texts_are_escaped_and_nothing_is_fetched(page):
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http:" not in page and "https:" not in page and "src=" not in page and "url(" not in page


def test_it_names_the_account_of_two(page):
    assert "Histories in two blocks" in page
    assert "u0</bdi>" in page.partition("Histories in two blocks")[2]


def test_it_says_what_is_assumed(page):
    assert "at most" in page and "half by popularity" in page and "rows read 3 = kept 3" in page


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_a_desk_in_both_schemes(page, width, tmp_path):
    light, dark = (look(page, tmp_path, width, scheme) for scheme in (1, 0))
    assert not light["wide"] and not dark["wide"]
    assert light["charts"] == 2 and light["flat"] == 0
    assert light["paper"] != dark["paper"] and light["ink"] != dark["ink"]
