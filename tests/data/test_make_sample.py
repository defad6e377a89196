"""data/make_sample.py, and what the sample it wrote promises to newcomers."""

import csv
import runpy
from collections import Counter, defaultdict

import numpy as np
import pytest
from paths import ROOT

DATA = ROOT / "data"
SAMPLE = DATA / "sample"


def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ratings() -> list[dict[str, str]]:
    return rows("ratings.csv")


@pytest.fixture(scope="module")
def items() -> list[dict[str, str]]:
    return rows("items.csv")


def test_the_generator_writes_the_committed_files_byte_for_byte(tmp_path):
    runpy.run_path(str(DATA / "make_sample.py"))["write_sample"](tmp_path)
    for name in ("ratings.csv", "items.csv"):
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes()


def test_the_sample_has_the_size_the_readme_states(ratings, items):
    assert (len(ratings), len({row["user_id"] for row in ratings}), len(items)) == (19_552, 750, 340)
    assert {row["item_id"] for row in ratings} == {row["item_id"] for row in items}
    assert sum((SAMPLE / name).stat().st_size for name in ("ratings.csv", "items.csv")) < 500_000


def test_no_reader_rates_a_title_twice_and_all_ratings_are_on_the_scale(ratings):
    assert len({(row["user_id"], row["item_id"]) for row in ratings}) == len(ratings)
    assert {row["rating"] for row in ratings} == {"1", "2", "3", "4", "5"}


def test_the_timestamps_of_a_user_rise(ratings):
    times = defaultdict(list)
    for row in ratings:
        times[row["user_id"]].append(int(row["timestamp"]))
    assert all(series == sorted(set(series)) for series in times.values())


def test_titles_are_distinct(items):
    assert len({row["title"] for row in items}) == len(items)


def test_a_few_titles_are_famous_and_most_are_not(ratings):
    counts = sorted(Counter(row["item_id"] for row in ratings).values())
    assert sum(counts[-34:]) > 0.25 * len(ratings)  # a tenth of the titles, more than a quarter of the ratings


def test_readers_rate_their_own_genre_higher(ratings, items):
    genre = {row["item_id"]: row["genre"] for row in items}
    by_genre: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in ratings:
        by_genre[row["user_id"]][genre[row["item_id"]]].append(int(row["rating"]))
    favorite, others = [], []
    for shelves in by_genre.values():
        best = max(shelves, key=lambda name: len(shelves[name]))
        favorite += shelves[best]
        others += [rating for name, shelf in shelves.items() if name != best for rating in shelf]
    assert np.mean(favorite) > np.mean(others) + 0.5


def test_knowing_the_person_finds_twice_what_popularity_finds(ratings):
    """Hits in the first ten, every fifth rating hidden; the linear autoencoder of Steck (WWW 2019) in three lines."""
    users, user = np.unique([row["user_id"] for row in ratings], return_inverse=True)
    titles, item = np.unique([row["item_id"] for row in ratings], return_inverse=True)
    hidden = np.arange(len(ratings)) % 5 == 0
    history, held_out = np.zeros((2, len(users), len(titles)))
    history[user[~hidden], item[~hidden]] = 1
    held_out[user[hidden], item[hidden]] = 1

    inverse = np.linalg.inv(history.T @ history + 50 * np.eye(len(titles)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)

    def hits(scores: np.ndarray) -> float:
        best = np.argsort(np.where(history > 0, -np.inf, scores), axis=1)[:, -10:]
        return float(np.take_along_axis(held_out, best, axis=1).sum())

    assert hits(history @ weights) > 2 * hits(np.tile(history.sum(0), (len(users), 1)))
