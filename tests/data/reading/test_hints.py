from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recsys.data.interactions import RatingScale
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.reading.hints import good_rating, hints


def remarks(options: ReadingOptions | None = None, **columns) -> str:
    return " ".join(hints(read_interactions(pd.DataFrame(columns), options or ReadingOptions())))


@pytest.mark.parametrize(
    ("ratings", "good"), [([1, 2, 3, 4, 5], 4), ([0.5, 1, 5], 4), ([0, 10, 100], 80), ([-10, -9.9, 10], 5)]
)
def test_a_good_rating_stands_three_quarters_up_the_scale(ratings, good):
    assert good_rating(RatingScale.of(np.float32(ratings))) == good


def test_stars_come_with_the_share_of_good_ones():
    assert "min_rating=4 keeps 50% of the rows" in remarks(user=[1, 1, 2, 2], item=[1, 2, 1, 2], rating=[5, 1, 4, 3])
    options = ReadingOptions(min_rating=4)
    assert "min_rating" not in remarks(options, user=[1, 1, 2, 2], item=[1, 2, 1, 2], rating=[5, 1, 4, 3])


def test_text_over_several_lines_outside_of_quotes_is_warned_of(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("user,item,rating,review\nu,a,5,fine\nbut slow\nv,a,4,good\n")
    text = " ".join(hints(read_interactions(file)))
    assert "1 line does not parse" in text and "its pieces may be taken for rows" in text
    file.write_text("user,item,rating,review\nu,a,5,fine\nv,a,4,good\n")
    assert "not parse" not in " ".join(hints(read_interactions(file)))


def test_counts_come_with_their_middle_and_their_logarithm():
    text = remarks(user=[1] * 5, item=[1, 2, 3, 4, 5], rating=[1, 2, 2, 3, 999])
    assert "1 to 999, median 2" in text
    assert "min_rating=2 keeps 80%" in text
    assert "between 0.7 and 6.9" in text  # log 2, log 1000


def test_one_rating_says_no_more_than_the_row():
    assert "Every rating is 1" in remarks(user=[1, 2], item=[1, 2], rating=[1, 1])


def test_small_users_missing_times_and_blanks_in_ids_are_named():
    text = remarks(user=["a", "b "], item=["x", "y"])
    assert "2 of 2 users have fewer than 5 items" in text
    assert "temporal" in text
    assert "1 user id begins or ends with a blank; ids stay as they are." in text
    assert "ids stay as they are: ' 7' is not '7'." in remarks(user=["7", " 7"], item=["x", "y"])


@pytest.mark.parametrize("marker", ["NULL", "\\N", "nan", "NA", "None", "<NA>", " null"])
def test_ids_that_look_like_missing_markers_stay_and_are_named(tmp_path, marker):
    (tmp_path / "r.csv").write_text(f"user,item\nu,{marker}\nv,{marker}\nv,b\n")
    found = read_interactions(tmp_path / "r.csv")
    assert set(found.items.to_list()) == {marker, "b"}
    assert f"2 rows have the item id {marker!r}" in " ".join(hints(found))
    assert "missing user" not in " ".join(hints(found))


def test_one_row_and_one_user_are_written_in_the_singular():
    text = remarks(user=["a", "NULL"], item=["x", "y"], rating=[1, 2])
    assert "1 row has the user id 'NULL'" in text
    many = remarks(user=["a"] + ["b"] * 5, item=list("xvwxyz"))
    assert "1 of 2 users has fewer than 5 items" in many


@pytest.mark.parametrize("ratings", [[1e-7, 2e-7], [1e-7, 1e-7], [1e30, 2e30], [1e30, -1e30], [1e-40, 1], [0, 3e38]])
def test_ratings_of_any_size_have_a_scale_and_remarks(ratings):
    assert remarks(user=[1, 2], item=[1, 2], rating=ratings)


def test_a_few_ratings_out_of_the_scale_are_named_and_do_not_move_the_good_rating():
    stars = [1, 2, 3, 4, 5] * 60
    text = remarks(user=["u"] * 302, item=list(range(302)), rating=[*stars, 99, -20])
    assert "2 ratings are far outside of 1 to 5, where all others are: -20, 99." in text
    assert "min_rating=4 keeps 40% of the rows" in text
    assert "outside" not in remarks(user=["u"] * 301, item=list(range(301)), rating=[*stars, 0])
