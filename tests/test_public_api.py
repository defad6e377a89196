"""The public names of recsys: which there are, that they cost nothing before they are used, and what they do first."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import recsys

NAMES = [
    "MODELS",
    "Interactions",
    "ReadingOptions",
    "Recommender",
    "RecsysError",
    "TrainedModel",
    "TrainingContext",
    "UserItemMatrix",
    "__version__",
    "compare",
    "create_model",
    "evaluate",
    "fit",
    "load_model",
    "read_interactions",
    "save_model",
    "split",
]


@pytest.fixture(scope="module")
def ratings():
    """Two tastes, x1..x8 and y1..y8; each user has five of one."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"{'xy'[user % 2]}{item}", 5.0)
        for user in range(60)
        for item in rng.choice(np.arange(1, 9), 5, replace=False)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


def test_these_names_are_public_and_no_others():
    assert recsys.__all__ == NAMES
    assert all(getattr(recsys, name) is not None for name in NAMES)
    assert set(NAMES) <= set(dir(recsys))
    with pytest.raises(AttributeError, match="no attribute 'recommender'"):
        _ = recsys.recommender


def test_every_public_name_is_documented():
    assert all((getattr(recsys, name).__doc__ or "").strip() for name in NAMES if name not in ("MODELS", "__version__"))


def test_importing_recsys_imports_nothing_heavy():
    code = "import sys, recsys; print({'torch', 'pandas', 'numpy', 'scipy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_from_a_frame_to_lists_with_ids_and_back(ratings, tmp_path):
    trained = recsys.fit(ratings, "ease")
    lists = trained.recommend(ratings, n=2, users=["u1", "u0"])
    assert lists.columns.tolist() == ["user_id", "item_id", "rank", "score"]
    assert lists["user_id"].tolist() == ["u1", "u1", "u0", "u0"]
    assert lists["rank"].tolist() == [1, 2, 1, 2]
    assert lists["item_id"].str[0].tolist() == ["y", "y", "x", "x"]
    recsys.save_model(tmp_path / "model", trained)
    pd.testing.assert_frame_equal(
        recsys.load_model(tmp_path / "model").recommend(ratings, 2, users=["u1", "u0"]), lists
    )


def test_a_model_folder_may_be_named_by_a_string(ratings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recsys.save_model("model", recsys.fit(ratings, "popularity"))
    assert recsys.load_model("model").model.name == "popularity"


def test_a_new_user_is_described_by_items(ratings):
    found = recsys.fit(ratings, "ease").recommend_for_items(["x1", "x2"], n=3)
    assert found.columns.tolist() == ["item_id", "rank", "score"]
    assert found["item_id"].str[0].tolist() == ["x", "x", "x"]


def test_similar_items_by_id_leave_the_item_itself_out(ratings):
    found = recsys.fit(ratings, "svd", {"factors": 2}).similar_items("x1", n=7)
    assert sorted(found["item_id"]) == [f"x{number}" for number in range(2, 9)]


def test_items_can_be_allowed_and_excluded_by_id(ratings):
    trained = recsys.fit(ratings, "popularity")
    only = trained.recommend(ratings, n=16, users=["u0"], only_items=["y1", "y2"])
    assert sorted(only["item_id"]) == ["y1", "y2"]
    without = trained.recommend(ratings, n=16, users=["u0"], filter_seen=False, exclude_items=["x1"])
    assert len(without) == 15
    with pytest.raises(recsys.RecsysError, match="found 1 unknown, first 'z'"):
        trained.recommend(ratings, exclude_items=["z"])
    with pytest.raises(recsys.RecsysError, match="found 1 unknown, first 'nobody'"):
        trained.recommend(ratings, users=["nobody"])


def test_lists_follow_the_rules_of_a_file(ratings, tmp_path):
    trained = recsys.fit(ratings, "popularity")
    (tmp_path / "items.csv").write_text(
        "item_id,letter\n" + "".join(f"{c}{n},{c}\n" for c in "xy" for n in range(1, 9))
    )
    (tmp_path / "rules.toml").write_text(
        'items = "items.csv"\n[[rule]]\nonly = { letter = "y" }\n[[rule]]\nexclude = { letter = "x" }\n'
    )
    plain = trained.recommend(ratings, n=4, filter_seen=False)
    for rules in (str(tmp_path / "rules.toml"), trained.read_rules(tmp_path / "rules.toml")):
        lists = trained.recommend(ratings, n=4, filter_seen=False, rules=rules)
        assert lists["item_id"].str.startswith("y").all() and not plain["item_id"].str.startswith("y").all()
        assert len(lists) == len(plain)
    varied = recsys.fit(ratings, "ease").read_rules(diversity=0.5)
    assert varied.variety.vectors.shape == (16, 16)


def test_what_was_rated_low_is_never_recommended_again(ratings):
    low = pd.DataFrame({"user_id": "u0", "item_id": [f"x{n}" for n in range(1, 9)], "rating": 1.0})
    new = pd.concat([ratings[ratings["user_id"] != "u0"], low.assign(rating=[5.0, 5.0, 1, 1, 1, 1, 1, 5.0])])
    trained = recsys.fit(ratings, "ease", reading=recsys.ReadingOptions(min_rating=4))
    assert not trained.recommend(new, n=16, users=["u0"])["item_id"].str.startswith("x").any()


def test_ratings_are_predicted_for_pairs_of_ids(ratings):
    trained = recsys.fit(ratings, "global-mean")
    pairs = pd.DataFrame({"user_id": ["u0", "nobody", "u1"], "item_id": ["x1", "x1", "unknown"]}, index=[7, 8, 9])
    found = trained.predict(pairs, ratings)
    assert found.index.tolist() == [7, 8, 9]
    assert found.tolist()[0] == 5
    assert found.isna().tolist() == [False, True, True]
    with pytest.raises(recsys.RecsysError, match="does not predict ratings"):
        recsys.fit(ratings, "ease").predict(pairs, ratings)


def test_a_model_can_be_evaluated_on_a_split(ratings):
    split = recsys.split(recsys.read_interactions(ratings), "strong", seed=1)
    model = recsys.create_model("ease").fit(split.train.matrix)
    assert recsys.evaluate(model, split.test, ["recall@10"]).means()["recall@10"] == 1


def test_models_are_compared(ratings):
    found = recsys.compare(ratings, ["popularity", "ease"])
    assert found.leaderboard["model"].tolist()[-1] == "popularity"
    assert set(found.leaderboard["model"]) == {"ease", "als", "popularity"}  # matrix factorization is always there


def test_validation_metrics_come_with_the_model(ratings):
    trained = recsys.fit(ratings, "ease")
    assert 0 < trained.about["metrics"]["ndcg@100"]["mean"] <= 1
    assert recsys.fit(ratings, "ease", held_out=0).about["metrics"] == {}


def test_the_default_model_is_chosen_by_the_size_of_the_data(ratings):
    assert recsys.fit(ratings, held_out=0).model.name == "edlae"


def test_items_are_given_as_lists_of_any_kind_and_not_as_a_text():
    frame = pd.DataFrame({"user_id": list("uuvv"), "item_id": list("abbc")})
    trained = recsys.fit(frame, "popularity", held_out=0)
    for only in (pd.Series(["a", "c"]), np.array(["a", "c"]), ("a", "c")):
        assert set(trained.recommend(frame, only_items=only)["item_id"]) == {"a", "c"}
    assert not len(trained.recommend(frame, only_items=[]))
    for call in (
        lambda: trained.recommend(frame, only_items="ac"),
        lambda: trained.recommend(frame, users="uv"),
        lambda: trained.recommend_for_items("ab"),
    ):
        with pytest.raises(recsys.RecsysError, match="Expected a list of ids"):
            call()
