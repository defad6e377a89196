from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recsys.data.interactions import RatingScale
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.reading.hints import good_rating, hints


def said(options: ReadingOptions | None = None, **columns) -> str:
    return " ".join(hints(read_interactions(pd.DataFrame(columns), options or ReadingOptions())))


@pytest.mark.parametrize(
    ("ratings", "good"), [([1, 2, 3, 4, 5], 4), ([0.5, 1, 5], 4), ([0, 10, 100], 80), ([-10, -9.9, 10], 5)]
)
def test_a_good_rating_stands_three_quarters_up_the_scale(ratings, good):
    assert good_rating(RatingScale.of(np.float32(ratings))) == good


def test_stars_come_with_the_share_of_good_ones():
    assert "--min-rating 4 keeps 50% of the rows" in said(user=[1, 1, 2, 2], item=[1, 2, 1, 2], rating=[5, 1, 4, 3])
    options = ReadingOptions(min_rating=4)
    assert "--min-rating" not in said(options, user=[1, 1, 2, 2], item=[1, 2, 1, 2], rating=[5, 1, 4, 3])


def test_text_over_several_lines_outside_of_quotes_is_warned_of(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("user,item,rating,review\nu,a,5,fine\nbut slow\nv,a,4,good\n")
    text = " ".join(hints(read_interactions(file)))
    assert "1 lines do not parse" in text and "pieces of it may pass for rows" in text
    file.write_text("user,item,rating,review\nu,a,5,fine\nv,a,4,good\n")
    assert "do not parse" not in " ".join(hints(read_interactions(file)))


def test_counts_come_with_their_middle_and_their_logarithm():
    text = said(user=[1] * 5, item=[1, 2, 3, 4, 5], rating=[1, 2, 2, 3, 999])
    assert "1 to 999, median 2" in text
    assert "--min-rating 2 keeps 80%" in text
    assert "from 0.7 to 6.9" in text  # log 2, log 1000


def test_one_rating_says_no_more_than_the_row():
    assert "Every rating is 1" in said(user=[1, 2], item=[1, 2], rating=[1, 1])


def test_small_users_missing_times_and_blanks_in_ids_are_named():
    text = said(user=["a", "b "], item=["x", "y"])
    assert "2 of 2 users have fewer than 5 items" in text
    assert "temporal" in text
    assert "1 user ids begin or end with a blank" in text
