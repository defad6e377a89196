"""Inputs of jobs that are almost right: empty files of ids, users who are not new, columns of pairs, odd files."""

import json
import re

import pytest
from click.testing import CliRunner
from scoring_case import lists_of, save_popularity, score, write_ratings

from pipelines.cli.main import main
from recsys.data.reading import ReadingOptions
from recsys.errors import DataError

TAKEN = {"ann": "abcd", "bob": "abc", "cat": "ab", "dan": "a"}


@pytest.fixture
def shop(tmp_path):
    """A model and the ratings it was fitted on."""
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    return save_popularity(tmp_path, ratings), ratings


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize(
    ("option", "says"),
    [("users", r"users in .*none\.txt to replace the lists in .*, found none"), ("only_items", "items in .*empty")],
)
def test_an_empty_file_of_those_who_are_chosen_leaves_the_lists_alone(shop, tmp_path, option, says):
    score(*shop, tmp_path / "lists", n=1)
    before = lists_of(tmp_path / "lists")
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(DataError, match=f"Expected {says}"):
        score(*shop, tmp_path / "lists", n=1, overwrite=True, **{option: tmp_path / "none.txt"})
    assert lists_of(tmp_path / "lists") == before


def test_an_empty_file_of_users_makes_a_new_output_without_lists_and_says_so(shop, tmp_path):
    (tmp_path / "none.txt").write_text("")
    words = "score", *shop, "--users", tmp_path / "none.txt", "--no-track", "-o", tmp_path / "lists"
    assert "The file names no users" in invoke(*words).output
    assert json.loads((tmp_path / "lists" / "manifest.json").read_text())["users"] == 0


def test_an_empty_file_of_what_is_left_out_leaves_nothing_out(shop, tmp_path):
    (tmp_path / "none.txt").write_text("")
    score(*shop, tmp_path / "lists", n=1, exclude_items=tmp_path / "none.txt")
    assert lists_of(tmp_path / "lists") == {"bob": "d", "cat": "c", "dan": "b"}


@pytest.mark.parametrize("low", ["ratings", "new"])
def test_a_user_who_was_rated_low_in_one_file_is_not_new_in_the_other(shop, tmp_path, low):
    lines = {"low": "user_id,item_id,rating\nann,a,5\neve,b,1\n", "high": "user_id,item_id,rating\neve,c,5\nfay,a,5\n"}
    first, second = ("low", "high") if low == "ratings" else ("high", "low")
    for name, text in (("known.csv", lines[first]), ("new.csv", lines[second])):
        (tmp_path / name).write_text(text)
    reading = ReadingOptions(min_rating=4)
    with pytest.raises(DataError, match="found 1 of 2 among the others, the first 'eve'"):
        score(shop[0], tmp_path / "known.csv", tmp_path / "lists", new_users=tmp_path / "new.csv", reading=reading)


def test_predict_says_which_columns_of_the_pairs_are_read(tmp_path):
    rows = "".join(f"u{n % 9},i{n % 7},{1 + n % 5}\n" for n in range(60))
    (tmp_path / "ratings.csv").write_text("person,film,stars\n" + rows)
    (tmp_path / "pairs.csv").write_text("note,film,person\nx,i1,u1\n")
    named = "--user-column", "person", "--item-column", "film"
    ratings, model = tmp_path / "ratings.csv", tmp_path / "model"
    flags = (*named, "--rating-column", "stars", "--no-track")
    assert invoke("train", ratings, "-m", "biases", "--held-out", 0, *flags, "-o", model).exit_code == 0
    words = "predict", model, tmp_path / "pairs.csv", "--ratings", ratings, *flags, "-o", tmp_path / "out.csv"
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert "columns read: user = person, item = film, rating = stars" in done.output
    assert re.search(r"pairs\W.*columns read: user = person, item = film; not read: note", done.output)


def kept(path):
    """Rows that `check` counts as kept."""
    done = invoke("--json", "check", path)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["facts"]["ledger"]["kept"]


@pytest.mark.parametrize("size", [300_000, 900_000])
def test_a_row_of_many_bytes_right_after_the_header_is_a_row(tmp_path, size):
    review = "x" * size
    (tmp_path / "r.csv").write_text(f"user,item,rating,review\nu,a,5,{review}\nv,b,4,short\n")
    assert kept(tmp_path / "r.csv") == 2


def test_a_line_beyond_every_row_right_after_the_header_is_rejected_as_one(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating,review\nu,a,5," + "x" * 5_000_000 + "\n")
    done = invoke("check", tmp_path / "r.csv")
    assert done.exit_code == 1
    assert "unparsable line" in done.output
    assert "header" not in done.output


def test_a_first_line_of_adjacency_may_be_long(tmp_path):
    items = " ".join(map(str, range(60_000)))  # 350 kB
    (tmp_path / "train.txt").write_text(f"0 {items}\n1 5 7\n2 5 8 9\n")
    assert kept(tmp_path / "train.txt") == 60_005


@pytest.mark.parametrize("output", [False, True])
def test_a_file_that_the_system_cannot_read_is_no_file_that_cannot_be_written(tmp_path, output):
    words = ("train", "/proc/self/mem", "-o", tmp_path / "model") if output else ("check", "/proc/self/mem")
    done = invoke(*words)
    assert done.exit_code == 1
    assert "Expected to read /proc/self/mem, found: Input/output error" in done.output


def test_a_share_of_nothing_is_refused_as_one(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    words = "train", ratings, "-m", "popularity", "--held-out", "1e-300", "--no-track", "-o", tmp_path / "model"
    done = invoke(*words)
    assert done.exit_code == 1
    assert "Expected share above 0 and below 0.5 (at least 1e-15), found 1e-300" in " ".join(done.output.split())
