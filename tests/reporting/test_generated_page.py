import re
from dataclasses import replace

import pytest
from browser import look, needs_browser

pytest.importorskip("jinja2")

from recsys.evaluation.generated import Likeness, Membership, Usefulness
from recsys.reporting.generated_page import GeneratedFacts, findings, render_generated

ROWS = [(0.1, 1.0, 2.0), (0.5, 3.0, 3.0), (0.9, 8.0, 7.0)]


def facts(generated=0.0, high=0.004, low=0.0, useful=True, users=1000, values=(1, 1)):
    likeness = Likeness(
        ROWS, (3.5, 3.4), (1.0, 0.98), 0.97, [(1, 0.5, 0.4), (9, 0.1, 0.2)], values, 0.91, [(0.1, 0.1)] * 3
    )
    membership = Membership(0.42, 0.012, generated, low, high, round(generated * users), users, ROWS)
    usefulness = Usefulness("ease", "ndcg@100", 0.5, 0.45, 0.9, 0.88, 0.93, 600) if useful else None
    about = {"model": "vae", "seed": 3, "note": "<script>"}
    return GeneratedFacts(users, users, 675, likeness, membership, usefulness, about, "Nobody saw them.")


def test_the_findings_are_sentences_with_their_intervals():
    learned, like, copies = findings(facts())
    assert (
        learned == "ease trained on generated users reaches 90.0% of the ndcg@100 that real ones give (88.0% to 93.0%)."
    )
    assert "0.970 over the popularity" in like and "3.4, real 3.5" in like
    assert copies.startswith("Membership check passed: 0.00% of generated users (0.00% to 0.40%)")
    assert "0 users of 1,000 have exactly the items of a real one" in copies


def test_ratings_have_a_mean_and_an_error_that_should_be_low():
    rated = replace(facts(values=(3.5, 3.6)), usefulness=Usefulness("biased-mf", "rmse", 0.9, 0.99, 1.1, 1.08, 1.2, 60))
    learned, like, _ = findings(rated)
    assert learned == (
        "biased-mf trained on generated users has 110.0% of the rmse that real ones give (108.0% to 120.0%, lower is "
        "better)."
    )
    assert like.endswith("Mean rating: 3.60, real 3.50.")
    assert "Mean rating" not in findings(facts())[1]


def test_copies_fail_the_check_in_plain_sight():
    assert findings(facts(0.05, 0.07, 0.03))[-1].startswith("Membership check FAILED: 5.00%")
    assert "Failed: generated users are nearer" in render_generated(facts(0.05, 0.07, 0.03))
    assert "Passed: generated users are not nearer" in render_generated(facts())


def test_a_check_of_few_users_says_that_it_may_miss_copies():
    assert "cannot show" in findings(facts(users=50))[-1] and "cannot show" not in findings(facts())[-1]


def test_without_a_model_trained_on_them_nothing_is_said_of_it():
    assert len(findings(facts(useful=False))) == 2
    assert "What a model learns" not in render_generated(facts(useful=False))


def test_a_catalog_of_one_item_has_a_report_too():
    alone = replace(facts().likeness, pairs=[], tail=[(1, 1.0, 1.0)])
    assert "Pairs of items" in render_generated(replace(facts(), likeness=alone))


def test_texts_are_escaped_and_nothing_is_fetched():
    page = render_generated(facts())
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"""(?:src|href|url)\s*[=(]""", page)


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, 0), (1280, 1)])
def test_nothing_sticks_out_and_all_charts_are_drawn(tmp_path, width, scheme):
    found = look(render_generated(facts()), tmp_path, width, scheme)
    assert (found["wide"], found["charts"], found["flat"]) == (False, 4, 0)
    assert found["paper"] == ("rgb(255, 255, 255)" if scheme else "rgb(22, 23, 26)")
