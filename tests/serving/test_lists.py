import numpy as np
import pandas as pd
import pytest

from recsys import fit
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import ConfigError, UnsupportedError
from recsys.serving.lists import ListMaker, UnknownIdError, Wishes, check_most

ROWS = [*(("u1", i) for i in "abc"), *(("u2", i) for i in "abd"), *(("u3", i) for i in "ab"), ("u4", "a"), ("u5", "e")]
RATINGS = pd.DataFrame(ROWS, columns=["user_id", "item_id"])  # a 4 users, b 3, c, d and e 1
LIKED = pd.DataFrame(
    [("u1", "a", 5), ("u1", "b", 1), ("u2", "a", 4), ("u2", "c", 5), ("u3", "c", 4), ("u3", "b", 5), ("u4", "d", 5)],
    columns=["user_id", "item_id", "rating"],
)


SETTINGS = {"vae": {"hidden": 8, "latent": 4, "epochs": 3}}


def maker(model="popularity", rows=RATINGS, **more):
    interactions = read_interactions(rows, ReadingOptions(**more))
    trained = fit(interactions, model, SETTINGS.get(model), held_out=0)
    return ListMaker(trained, interactions, {"c": "Casablanca"})


def ids(entries):
    return [entry["item_id"] for entry in entries]


@pytest.fixture(scope="module")
def popular():
    return maker()


def test_a_known_user_gets_the_popular_items_that_are_not_seen(popular):
    [entries] = popular.answer([popular.for_user("u3", Wishes(2))])
    assert [(one["item_id"], one["rank"]) for one in entries] == [("c", 1), ("d", 2)]
    assert entries[0]["title"] == "Casablanca" and "title" not in entries[1]


def test_queries_of_all_kinds_are_answered_together_and_each_as_if_alone(popular):
    queries = [
        popular.for_user("u1", Wishes(1)),
        popular.for_user("u3", Wishes(9, filter_seen=False)),
        popular.for_history(["a", "zz"], None, Wishes(9)),
        popular.for_history(["zz"], None, Wishes()),
        popular.for_history(["a"], None, Wishes(2, candidate_items=["e", "a", "d", "b"], exclude_items=["b"])),
    ]
    together = popular.answer(queries)
    assert [ids(entries) for entries in together] == [["d"], list("abcde"), list("bcde"), [], ["d", "e"]]
    assert together == [popular.answer([query])[0] for query in queries]


def test_unknown_ids_of_a_request_are_named(popular):
    query = popular.for_history(["a", "x"], None, Wishes(exclude_items=["y"], candidate_items=["b", "z"]))
    assert query.unknown == ("x", "y", "z")


def test_candidates_that_are_all_excluded_leave_an_empty_list(popular):
    query = popular.for_history(["a"], None, Wishes(candidate_items=["a", "b"], exclude_items=["b"]))
    assert popular.answer([query]) == [[]]


def test_who_and_what_is_unknown_is_said(popular):
    with pytest.raises(UnknownIdError, match="known history, found 'nobody'"):
        popular.for_user("nobody", Wishes())
    with pytest.raises(UnknownIdError, match="item of the model, found 'x'"):
        popular.similar("x", 3)


def test_lengths_have_limits(popular):
    with pytest.raises(ConfigError, match="n of at least 1, found 0"):
        popular.for_user("u1", Wishes(0))
    with pytest.raises(ConfigError, match="n of at most 1000, found 1001"):
        check_most(1001, 1000)
    assert popular.for_user("u1", Wishes(10**9)).n == 5  # the catalog


def test_what_was_rated_low_is_no_history_but_is_not_listed():
    made = maker(rows=LIKED, min_rating=4)
    [entries] = made.answer([made.for_user("u1", Wishes())])
    assert "b" not in ids(entries) and "a" not in ids(entries)
    query = made.for_history(["a", "b"], [5, 1], Wishes())
    assert made.item_ids[query.history[0][0]] == "a" and len(query.history[0]) == 1
    assert ids(made.answer([query])[0]) == ids(entries)


def test_reasons_are_items_of_the_history_with_shares_strongest_first():
    made = maker("ease")
    entries = made.answer([made.for_history(["a", "b"], None, Wishes(2, reasons=2))])[0]
    frame = made.trained.explain(RATINGS, "u3", [entry["item_id"] for entry in entries], n=2)  # u3 has had a and b
    expected = [(row.item_id, row.reason_id, row.share) for row in frame.itertuples()]
    found = [(one["item_id"], why["item_id"], why["share"]) for one in entries for why in one["reasons"]]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])
    assert made.can_explain and made.explain("u3", "c").reasons[0].item_id == entries[0]["reasons"][0]["item_id"]


def test_reasons_that_cannot_be_given_are_refused():
    made = maker("popularity")
    assert not made.can_explain
    with pytest.raises(UnsupportedError):
        made.for_history(["a"], None, Wishes(reasons=1))
    long = maker("ease", pd.DataFrame({"user_id": "u", "item_id": [f"i{i}" for i in range(600)]}))
    with pytest.raises(ConfigError, match="at most 500 items together with reasons, found 600"):
        long.for_user("u", Wishes(reasons=1))


def test_a_model_of_ratings_needs_ratings():
    made = maker("biases", LIKED)
    with pytest.raises(UnsupportedError, match="needs a rating for every item"):
        made.for_history(["a"], None, Wishes())
    assert len(made.answer([made.for_history(["a"], [5.0], Wishes())])[0]) == 3


def test_similar_items_are_nearest_first_without_the_item_itself():
    entries = maker("ease").similar("a", 2)
    assert [entry["rank"] for entry in entries] == [1, 2] and entries[0]["score"] >= entries[1]["score"]
    assert "a" not in ids(entries)


@pytest.mark.parametrize("model", ["ease", "als", "vae", "bpr", "item-knn"])
def test_lists_are_those_of_the_library(model):
    rng = np.random.default_rng(0)
    cells = np.argwhere(rng.random((40, 30)) < 0.3)
    rows = pd.DataFrame({"user_id": [f"u{u:02}" for u, _ in cells], "item_id": cells[:, 1]})
    made = maker(model, rows)
    expected = made.trained.recommend(rows, 5)
    users = list(expected["user_id"].unique())
    answers = made.answer([made.for_user(user, Wishes(5)) for user in users])
    found = [(user, entry["item_id"], entry["rank"]) for user, a in zip(users, answers, strict=True) for entry in a]
    assert found == list(expected[["user_id", "item_id", "rank"]].itertuples(index=False, name=None))
    assert [e["score"] for a in answers for e in a] == pytest.approx(list(expected["score"]), abs=1e-5)


def test_a_history_that_is_sent_to_a_model_of_sequences_has_its_oldest_item_first():
    chain = maker("last-item", order="rows")  # b follows a; c and d follow b
    [[best], [other], [again]] = chain.answer(
        [
            chain.for_history(items, None, Wishes(1, filter_seen=False))
            for items in (["c", "a"], ["a", "b"], ["a", "c", "a"])
        ]
    )
    assert (best["item_id"], again["item_id"]) == ("b", "b")
    assert other["item_id"] in ("c", "d")
    assert chain.answer([chain.for_user("u4", Wishes(1))])[0][0]["item_id"] == "b"


def test_lists_keep_the_rules_of_the_service(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,genre\na,x\nb,x\nc,y\nd,y\ne,z\n")
    (tmp_path / "some.csv").write_text("user_id\nu3\n")
    (tmp_path / "rules.toml").write_text(
        'items = "items.csv"\n[[rule]]\nexclude = { genre = "y" }\nusers = "some.csv"\n'
        '[[rule]]\npromote = { genre = "z" }\nplaces = [1]\n'
    )
    plain = maker()
    trained, interactions = plain.trained, read_interactions(RATINGS, ReadingOptions())
    ruled = ListMaker(trained, interactions, rules=trained.read_rules(tmp_path / "rules.toml"))
    queries = [
        ruled.for_user("u3", Wishes(9)),  # in the segment
        ruled.for_user("u4", Wishes(2)),
        ruled.for_history(["a"], None, Wishes(2)),
        ruled.for_history(["a"], None, Wishes(2, candidate_items=["c", "d"])),
        ruled.for_history(["zz"], None, Wishes(2)),
    ]
    together = ruled.answer(queries)
    assert [ids(entries) for entries in together] == [["e"], ["e", "b"], ["e", "b"], ["c", "d"], []]
    assert together == [ruled.answer([query])[0] for query in queries]
