"""The page of a nightly job as a person would see it."""

import math
import re

import pytest
from browser import look, needs_browser

pytest.importorskip("jinja2")

from recsys.reporting.trend_page import NightFacts, find_flags, render_trend


def night(day, state="published", **measures):
    known = {"coverage": 0.30 + day % 3 / 1000, "score_shift": 0.01, **measures}
    return NightFacts(f"2026-11-{day:02d}-0123abcd", state, in_use=False, model="edlae", measures=known)


QUIET = [night(day) for day in range(1, 11)]


@pytest.fixture(scope="module")
def page():
    won = NightFacts(
        "2026-11-11-0123abcd",
        "published",
        in_use=True,
        model="<b>vae</b>",
        promoted=True,
        decision="Version 2 of books takes over: ndcg@100 0.4000 against 0.3000",
        gain=(0.1, 0.05, 0.15),
        measures={"coverage": 0.31, "score_shift": 0.3, "ndcg@100": 0.4},
    )
    refused = night(12, "refused", coverage=0.01)
    return render_trend("books", [*QUIET, won, refused], {"coverage": (0.2, math.inf)}, "0.2")


def test_texts_are_escaped_and_nothing_is_fetched(page):
    assert "<b>vae" not in page and "&lt;b&gt;vae" in page
    assert "<script" not in page and "src=" not in page and "url(" not in page and "http:" not in page


def test_it_shows_what_is_in_use_who_took_over_and_what_was_refused(page):
    text = re.sub(r"<[^>]+>", "", page)
    assert "2026-11-11 · in use" in text
    assert "The lists of 2026-11-12 were refused; those before them stay in use." in text
    assert "12 nights: 1 new champion, 1 refused batch." in text
    assert "gate: at least 0.2" in text and "+0.1000 [+0.0500, +0.1500]" in text
    assert page.count('class="dot refused"') == 2  # in both charts that have a value of that night
    assert page.count('class="limit"') == 2  # of the gate, and of a shift


def test_a_shift_is_flagged_by_its_thresholds():
    flags = find_flags([night(1, score_shift=0.099), night(2, score_shift=0.1), night(3, score_shift=0.25)])
    assert flags == [{}, {"score_shift": "slight"}, {"score_shift": "large"}]


def test_another_measure_is_flagged_where_it_is_unlike_the_nights_before():
    assert find_flags(QUIET) == [{}] * 10
    assert find_flags([*QUIET, night(11, coverage=0.32)])[-1] == {"coverage": "unusual"}
    assert find_flags([*QUIET[:6], night(7, coverage=0.32)])[-1] == {}  # six nights are too few
    assert find_flags([*QUIET, night(11, coverage=math.nan)])[-1] == {}


def test_refused_nights_are_not_what_others_are_compared_with():
    bad = [night(day, "refused", coverage=0.01) for day in range(11, 31)]
    assert find_flags([*QUIET, *bad])[-1] == {"coverage": "unusual"}
    assert find_flags([*QUIET, *bad, night(30)])[-1] == {}


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_a_desk_in_both_schemes(page, width, tmp_path):
    light, dark = (look(page, tmp_path, width, scheme) for scheme in (1, 0))
    for found in (light, dark):
        assert not found["wide"] and found["width"] == width
        assert found["charts"] == 3 and found["flat"] == 0
    assert light["paper"] != dark["paper"] and light["ink"] != dark["ink"]


@needs_browser
def test_a_single_night_is_a_page_too(tmp_path):
    found = look(render_trend("books", QUIET[:1], {}), tmp_path)
    assert found["charts"] == 2 and found["flat"] == 0
