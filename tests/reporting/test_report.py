import json
import re
from html.parser import HTMLParser

import pytest
from browser import look, needs_browser

pytest.importorskip("jinja2")

from recsys.evaluation.comparison import Example
from recsys.reporting.report import render, rough, summary

CUTOFFS = (1, 5, 10, 20, 50, 100)


def interval(mean):
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n_users": 600}


def model(name, mean, seconds=1.0, family="deep autoencoder", curve=()):
    labels = [f"{metric}@{k}" for metric in ("ndcg", "recall") for k in CUTOFFS]
    return {
        "name": name,
        "family": family,
        "settings": {"latent": 200, "batch_size": None},
        "tuning": None,
        "metrics": {label: interval(mean) for label in labels},
        "spread": {"ndcg@100": 0.001},
        "beyond": {"coverage@10": mean, "gini@10": 0.5},
        "costs": {
            "fit_seconds": seconds,
            "users_per_second": 1000.0,
            "peak_megabytes": None,
            "megabytes": 5.0,
            "takes_new_users": True,
        },
        "user_slices": {"up to 5 items": interval(mean)},
        "item_slices": {"popular items": interval(mean)},
        "curve": [{"epoch": i, "loss": 1.0, "value": value, "best": False} for i, value in enumerate(curve, start=1)],
    }


def pair(first, second, mean, adjusted):
    text = f"{first} and {second}"
    return {"first": first, "second": second, "interval": interval(mean), "adjusted": adjusted, "text": text}


def comparison(*models, pairs=(), rival=None):
    return {
        "data": {
            "users": 6000,
            "items": 3000,
            "rows": 10**6,
            "density": 0.05,
            "ledger": "rows read 3 = kept 3",
            "time": None,
        }
        | {"fingerprint": "abc"},
        "protocol": "strong",
        "split": {"train_users": 4832},
        "refused": {"bpr": "knows only users it was trained on"},
        "metric": "ndcg@100",
        "metrics": ["ndcg@100", "recall@20"],
        "users": 600,
        "seeds": 1,
        "folds": 1,
        "sliced": "recall@50",
        "rival": rival or models[0]["name"],
        "models": list(models),
        "differences": list(pairs),
        "verdicts": [],
        "versions": {"recsys": "0.1.0", "torch": "2"},
    }


@pytest.fixture
def facts():
    vae, als = model("vae", 0.43, 60.0, curve=(0.1, 0.3, 0.43)), model("als", 0.42, 2.0, "matrix factorization")
    return comparison(vae, als, pairs=[pair("vae", "als", 0.01, 0.01)], rival="als")


@pytest.fixture
def people():
    return [Example(["<b>Known</b>"], 9, 2, {"vae": [("Found & taken", True)], "als": [("Missed", False)]})]


class Page(HTMLParser):
    """Collects tags, addresses and texts; notices a tag that is closed out of turn."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "line", "circle", "polyline"})

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_fetches_nothing_and_runs_nothing(facts, people):
    html = render(facts, people)
    page = Page(html)
    assert not page.open
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not page.addresses
    assert not re.search(r"url\(|@import|https?://", html)


def test_the_summary_says_who_wins_by_how_much_and_at_what_cost(facts):
    text = " ".join(summary(facts))
    assert "vae is on top with ndcg@100 0.4300" in text
    assert "It beats every other model here" in text
    assert "Against als, the best matrix factorization, the difference is +0.0100" in text
    assert "als reaches 98% of that after 2.0 s of fitting; vae takes 60 s." in text


def test_a_summary_where_nobody_found_anything_has_no_cheap_winner_to_tell(facts):
    for model in facts["models"]:
        model["metrics"]["ndcg@100"]["mean"] = 0.0
    facts["models"][1]["costs"]["fit_seconds"] = 59.0
    assert "of fitting" not in " ".join(summary(facts))


def test_a_difference_that_may_be_chance_is_not_sold_as_one(facts):
    facts["differences"][0]["adjusted"] = 0.2
    text = " ".join(summary(facts))
    assert "No difference can be claimed between it and als" in text
    assert "beats" not in text


def test_losers_are_shown_too_and_those_left_out_with_the_reason(facts):
    text = Page(render(facts)).text
    assert "als" in text
    assert "bpr is not here: it knows only users it was trained on." in text


def test_titles_are_escaped_and_hits_marked(facts, people):
    html = render(facts, people)
    assert "&lt;b&gt;Known&lt;/b&gt;" in html
    assert '<li class="hit">Found &amp; taken</li>' in html
    assert "<li>Missed</li>" in html


def test_without_examples_there_is_no_word_of_users_side_by_side(facts):
    assert "side by side" not in render(facts)


def test_a_report_can_be_made_again_from_its_json(facts):
    assert render(json.loads(json.dumps(facts))) == render(facts)


def test_a_search_is_drawn_by_its_best_so_far_through_trials_that_ended_early(facts):
    tuning = {
        "trials": 3,
        "pruned": 1,
        "failed": 0,
        "seconds": 5.0,
        "defaults": 0.1,
        "best": 0.4,
        "values": [0.1, None, 0.4],
    }
    facts["models"][0]["tuning"] = tuning
    html = render(facts)
    assert "Best validation ndcg@100 by trial" in html
    assert "3 trials in 5 s, 1 ended early" in html


def test_a_single_model_makes_a_page_too():
    text = Page(render(comparison(model("alone", 0.3)))).text
    assert "alone reaches ndcg@100 0.3000" in text
    assert not [word for word in ("Leaderboard", "on top with", "differences", "against cost") if word in text]


def test_where_no_held_out_item_is_known_there_are_no_slices_of_items():
    alone = model("alone", 0.0) | {"item_slices": {}}
    assert "by popularity" not in render(comparison(alone))


def test_nine_models_share_eight_colors():
    models = [model(f"m{i}", 0.5 - i / 100) for i in range(9)]
    pairs = [pair(one["name"], two["name"], 0.01, 0.5) for i, one in enumerate(models) for two in models[i + 1 :]]
    assert "m8" in Page(render(comparison(*models, pairs=pairs))).text


# Predicted ratings


def rated(name, mean, seconds=1.0, curve=()):
    """A model of ratings: the facts that lists have and ratings have not are not there."""
    facts = model(name, mean, seconds, curve=curve)
    bins = [{"predicted": level, "observed": 3 + 0.8 * (level - 3), "cells": 50} for level in (2.0, 3.0, 4.0)]
    return facts | {
        "metrics": {label: interval(mean) for label in ("rmse", "mae")},
        "spread": {"rmse": None},
        "beyond": {"predicted_share": 0.99, "mean_error": 0.01},
        "counts": {"cells": 1234, "cells_without_prediction": 56},
        "calibration": bins,
    }


@pytest.fixture
def ratings():
    models = [rated("autorec", 0.85, 60.0, curve=(0.9, 0.86)), rated("biases", 0.855)]
    pairs = [pair("autorec", "biases", -0.05, 0.01)]
    return comparison(*models, pairs=pairs) | {
        "task": "rating",
        "protocol": "cells",
        "metric": "rmse",
        "metrics": ["rmse", "mae"],
        "sliced": "rmse",
    }


def test_a_page_of_predicted_ratings_has_calibration_and_nothing_of_lists(ratings):
    html = render(ratings)
    page = Page(html)
    assert not page.open
    assert "Observed against predicted ratings" in page.text
    assert "1,234 held-out ratings, 56 more without a prediction" in page.text
    assert "Down and to the left is better." in page.text
    assert not [word for word in ("never recommends", "cut-off", "catalog", "Relevance") if word in page.text]


def test_of_errors_a_negative_difference_is_the_good_one(ratings):
    html = render(ratings)
    assert re.search(r'class="claimed plus"[^>]*>-0.0500<', html)
    assert re.search(r'class="claimed minus"[^>]*>\+0.0500<', html)


def test_a_cheap_model_with_an_error_nearly_as_low_is_told(ratings):
    text = " ".join(summary(ratings))
    assert "autorec is on top with rmse 0.8500" in text
    assert "biases is 0.6% above that after 1.0 s of fitting; autorec takes 60 s." in text


def test_the_search_for_a_low_error_is_drawn_by_its_lowest_so_far(ratings):
    tuning = {"trials": 3, "pruned": 0, "failed": 0, "seconds": 5.0, "defaults": 0.9, "best": 0.8}
    series = [[0.9, 0.8, 0.95], [0.9, 0.8, 0.8]]
    drawn = []
    for values in series:
        ratings["models"][0]["tuning"] = tuning | {"values": values}
        drawn.append(render(ratings))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(("cost", "text"), [(None, "–"), (0.01, "< 0.1"), (7.84, "7.8"), (1234.5, "1,234")])
def test_costs_are_rounded_for_people(cost, text):
    assert rough(cost) == text


@needs_browser
@pytest.mark.parametrize(
    ("scheme", "paper"), [(0, "rgb(22, 23, 26)"), (1, "rgb(255, 255, 255)")], ids=["dark", "light"]
)
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_a_browser_shows_it_whole_at_any_width_in_light_and_dark(facts, people, tmp_path, width, scheme, paper):
    found = look(render(facts, people), tmp_path, width, scheme)
    assert (found["width"], found["wide"]) == (width, False)
    assert (found["charts"], found["flat"]) == (7, 0)
    assert found["paper"] == paper
    assert found["ink"] != paper
