import json
import re
from html.parser import HTMLParser

import pytest
from browser import look, needs_browser

pytest.importorskip("jinja2")

from recsys.evaluation.examples import Example
from recsys.reporting.report import render
from recsys.reporting.texts import PROTOCOLS, rounded, signed, summary

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
        "beyond_accuracy": {"coverage@10": mean, "gini@10": 0.5},
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


def comparison(*models, pairs=(), reference=None):
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
        "slice_metric": "recall@50",
        "reference": reference or models[0]["name"],
        "models": list(models),
        "differences": list(pairs),
        "conclusions": [],
        "versions": {"recsys": "0.1.0", "torch": "2"},
    }


@pytest.fixture
def facts():
    vae, als = model("vae", 0.43, 60.0, curve=(0.1, 0.3, 0.43)), model("als", 0.42, 2.0, "matrix factorization")
    return comparison(vae, als, pairs=[pair("vae", "als", 0.01, 0.01)], reference="als")


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


def test_the_summary_names_the_best_model_its_lead_and_its_cost(facts):
    text = " ".join(summary(facts))
    assert "vae has the highest ndcg@100: 0.4300 (95 % confidence interval 0.4200 to 0.4400, 600 users)." in text
    assert "It is significantly better than als (permutation test, 5 % level)." in text
    assert "The difference to als, the best matrix factorization, is +0.0100" in text
    assert "The ndcg@100 of als is 98% of that value, with a fit of 2.0 s instead of 60 s." in text


def test_a_summary_of_models_that_find_nothing_names_no_cheaper_one(facts):
    for model in facts["models"]:
        model["metrics"]["ndcg@100"]["mean"] = 0.0
    facts["models"][1]["costs"]["fit_seconds"] = 59.0
    assert "with a fit of" not in " ".join(summary(facts))


def test_a_difference_that_may_be_chance_is_called_not_significant(facts):
    facts["differences"][0]["adjusted"] = 0.2
    text = " ".join(summary(facts))
    assert "It is not significantly different from als (permutation test, 5 % level)." in text
    assert "significantly better" not in text


def test_the_correction_over_several_pairs_is_named(facts):
    third = model("ease", 0.41)
    facts["models"].append(third)
    facts["differences"] += [pair("vae", "ease", 0.02, 0.01), pair("als", "ease", 0.01, 0.9)]
    facts["differences"][0]["adjusted"] = 0.2
    assert (
        "It is not significantly different from als, and significantly better than the other model (permutation test, "
        "Holm's correction over 3 pairs, 5 % level)." in summary(facts)
    )
    text = " ".join(Page(render(facts)).text.split())
    assert "after Holm’s correction over all 3 pairs" in text and "each pair alone, without correction" in text


def test_all_models_are_shown_and_those_left_out_are_named_with_the_reason(facts):
    text = Page(render(facts)).text
    assert "als" in text
    assert "bpr is not in the table: it knows only users it was trained on." in text


def test_titles_are_escaped_and_hits_marked(facts, people):
    html = render(facts, people)
    assert "&lt;b&gt;Known&lt;/b&gt;" in html
    assert '<li class="hit"><bdi>Found &amp; taken</bdi></li>' in html
    assert "<li><bdi>Missed</bdi></li>" in html


def test_without_examples_there_is_no_section_of_lists(facts):
    assert "test users with short" not in render(facts).lower()


def test_a_report_can_be_made_again_from_its_json(facts):
    assert render(json.loads(json.dumps(facts))) == render(facts)


def test_a_search_is_drawn_by_its_best_value_so_far_including_trials_that_were_stopped(facts):
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
    assert "3 trials in 5 s, 1 stopped early" in html


def test_a_single_model_makes_a_page_too():
    text = Page(render(comparison(model("alone", 0.3)))).text
    assert "alone reaches ndcg@100 0.3000" in text
    assert not [word for word in ("Leaderboard", "highest", "significantly", "against cost") if word in text]


def test_without_known_held_out_items_there_are_no_slices_of_items():
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
        "beyond_accuracy": {"predicted_share": 0.99, "mean_error": 0.01},
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
        "slice_metric": "rmse",
    }


def test_a_page_of_predicted_ratings_has_a_calibration_chart_and_no_text_about_lists(ratings):
    html = render(ratings)
    page = Page(html)
    assert not page.open
    assert "Observed against predicted ratings" in page.text
    assert "1,234 held-out ratings (56 more without a prediction)" in page.text
    assert "Better models are further down, cheaper models further left." in page.text
    assert not [word for word in ("recommend no item", "cut-off", "catalog", "Relevance") if word in page.text]


def test_a_negative_difference_of_errors_is_marked_as_the_better_one(ratings):
    html = render(ratings)
    assert re.search(r'class="significant plus"[^>]*>-0.0500<', html)
    assert re.search(r'class="significant minus"[^>]*>\+0.0500<', html)


def test_a_cheap_model_with_nearly_the_same_error_is_named(ratings):
    text = " ".join(summary(ratings))
    assert "autorec has the lowest rmse: 0.8500" in text
    assert "The rmse of biases is 0.6% higher, with a fit of 1.0 s instead of 60 s." in text


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
    assert rounded(cost) == text


def test_a_difference_of_zero_has_no_sign():
    assert [signed(value) for value in (0.012, -0.012, -0.00001, 0.0)] == ["+0.0120", "-0.0120", "0.0000", "0.0000"]


def test_a_note_on_the_settings_stands_in_the_summary_and_with_the_settings(facts):
    facts["note"] = "All settings are defaults."
    text = Page(render(facts)).text
    assert text.index("All settings are defaults.") < text.index("Leaderboard")
    assert text.count("All settings are defaults.") == 2


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "of tomorrow"])
def test_every_protocol_is_described_in_words(facts, protocol):
    facts["protocol"] = protocol
    assert PROTOCOLS.get(protocol, protocol) in Page(render(facts)).text


HOSTILE = [
    "</script><script>alert(1)</script>",
    "</style><b>",
    '" onload="alert(1)',
    "{{ 7 * 7 }}",
    "gnp.\u202egninnaw",
    "\x1b[31mred",
    "a\x00b",
    "\ud800",
]


@pytest.mark.parametrize("title", HOSTILE, ids=ascii)
def test_a_hostile_title_name_or_text_is_shown_and_does_nothing(facts, title):
    facts["models"][0]["settings"]["codes"] = title
    facts["data"] |= {"ledger": title, "fingerprint": title}
    facts["refused"] = {title: title}
    facts["note"] = title
    facts["versions"] = {"recsys": title}
    lists = {"vae": [(title, True)], "als": [(title, False)]}
    html = render(facts, [Example([title], 9, 2, lists)])
    html.encode("utf-8")
    page = Page(html)
    assert not page.open
    assert not {"script", "b"} & set(page.tags)
    assert "49" not in {part.strip() for part in page.text.split("\n")}
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800]", html)


def test_a_hostile_model_name_is_escaped_in_every_chart(facts):
    name = "<svg onload=alert(1)>"
    text = json.dumps(facts).replace('"vae"', json.dumps(name))
    page = Page(render(json.loads(text)))
    assert not page.open
    assert page.text.count(name) > 5


@needs_browser
@pytest.mark.parametrize(
    ("scheme", "paper"), [(0, "rgb(22, 23, 26)"), (1, "rgb(255, 255, 255)")], ids=["dark", "light"]
)
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_a_browser_shows_the_page_at_any_width_in_light_and_dark_mode(facts, people, tmp_path, width, scheme, paper):
    found = look(render(facts, people), tmp_path, width, scheme)
    assert (found["width"], found["wide"]) == (width, False)
    assert (found["charts"], found["flat"]) == (7, 0)
    assert found["paper"] == paper
    assert found["ink"] != paper
