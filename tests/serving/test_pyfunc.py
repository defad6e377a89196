import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scoring_case import lists_of, score

from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix, sparse_rows
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import DataError
from recsys.models import create_model
from recsys.models.trained import TrainedModel
from recsys.serving import pyfunc
from recsys.serving.pyfunc import pyfunc_arguments, recommend_frame
from recsys.tracking.mlflow_tracker import MLflowTracker

ITEMS = ["a", "b", "c", "d"]
TAKEN = [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 3)]  # a 4, b 3, c 2, d 1 users


def save(folder, name="popularity", items=ITEMS, users=None):
    user, item = np.array(TAKEN).T
    matrix = sparse_rows(user, item, np.ones(len(TAKEN)), (4, 4))
    model = create_model(name, {}).fit(matrix)
    return save_model(folder, TrainedModel(model, Vocabulary.of(items), np.array([4, 3, 2, 1]), users))


@pytest.fixture
def popularity(tmp_path):
    return load_model(save(tmp_path / "model"))


def histories(*rows, columns=("user_id", "item_id")):
    return pd.DataFrame(rows, columns=list(columns))


def lists(frame):
    return {user: rows["item_id"].tolist() for user, rows in frame.groupby("user_id", sort=False)}


def test_each_user_gets_the_most_popular_unseen_items(popularity):
    found = recommend_frame(popularity, histories(("new", "a"), ("other", "b"), ("other", "c")), n=2)
    assert found.to_dict("list") == {
        "user_id": ["new", "new", "other", "other"],
        "item_id": ["b", "c", "a", "d"],
        "rank": [1, 2, 1, 2],
        "score": [3.0, 2.0, 4.0, 1.0],
    }


def test_seen_items_are_recommended_when_filter_seen_is_off(popularity):
    found = recommend_frame(popularity, histories(("new", "a")), n=2, filter_seen=False)
    assert lists(found) == {"new": ["a", "b"]}


def test_items_are_excluded_or_are_the_only_ones_and_unknown_ids_are_counted(popularity, caplog):
    rows = histories(("u", "a"))
    assert lists(recommend_frame(popularity, rows, exclude_items=["b", "zz"])) == {"u": ["c", "d"]}
    assert "1 of 2 ids of exclude_items are unknown" in caplog.text
    assert lists(recommend_frame(popularity, rows, candidate_items=["d", "b", "a"])) == {"u": ["b", "d"]}
    both = recommend_frame(popularity, rows, candidate_items=["d", "b"], exclude_items=["b"])
    assert lists(both) == {"u": ["d"]}
    assert lists(recommend_frame(popularity, rows, candidate_items=["zz"])) == {}  # none of these is known


def test_users_stay_in_the_order_of_their_first_row(popularity):
    found = recommend_frame(popularity, histories(("z", "a"), ("m", "b"), ("z", "c"), ("b", "d")), n=1)
    assert list(lists(found)) == ["z", "m", "b"]


def test_a_repeated_row_changes_nothing(popularity):
    once = recommend_frame(popularity, histories(("u", "a"), ("u", "b")))
    twice = recommend_frame(popularity, histories(("u", "a"), ("u", "a"), ("u", "b"), ("u", "a")))
    pd.testing.assert_frame_equal(once, twice)


def test_a_user_without_a_known_item_gets_no_list_and_is_counted(popularity, caplog):
    found = recommend_frame(popularity, histories(("u", "a"), ("stranger", "nowhere")))
    assert list(lists(found)) == ["u"]
    assert "1 of 2 users gets no list" in caplog.text


def test_an_empty_request_gets_an_empty_table_with_its_columns(popularity):
    found = recommend_frame(popularity, histories())
    assert found.empty
    assert list(found.columns) == ["user_id", "item_id", "rank", "score"]


def test_integer_ids_of_the_model_are_found_by_their_text(tmp_path):
    numbers = load_model(save(tmp_path / "model", items=[7, 8, 9, 10]))
    assert lists(recommend_frame(numbers, histories(("u", "7")), n=2)) == {"u": ["8", "9"]}


def test_a_model_of_its_training_users_serves_them_and_counts_the_others(tmp_path, caplog):
    pytest.importorskip("implicit")
    saved = load_model(save(tmp_path / "model", "bpr", users=Vocabulary.of(["u0", "u1", "u2", "u3"])))
    found = recommend_frame(saved, histories(("u3", "a"), ("new", "a")), n=4)
    assert {user: sorted(items) for user, items in lists(found).items()} == {"u3": ["b", "c", "d"]}
    assert "1 of 2 users gets no list" in caplog.text


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (histories(("u", "a"), columns=("user", "item")), "columns user_id and item_id"),
        (histories(("u", None)), "found rows without"),
        (histories(("u", "a", "soon"), columns=("user_id", "item_id", "timestamp")), "ISO 8601"),
        (histories(("u", "a", 1.0), ("u", "b", None), columns=("user_id", "item_id", "rating")), "in every row or"),
    ],
)
def test_incomplete_histories_are_refused(popularity, frame, complaint):
    with pytest.raises(DataError, match=complaint):
        recommend_frame(popularity, frame)


def test_a_list_is_never_longer_than_the_catalog_whatever_n_is(popularity):
    tracemalloc.start()
    found = recommend_frame(popularity, histories(("u", "a")), n=300_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lists(found) == {"u": ["b", "c", "d"]}
    assert peak < 10_000_000


def test_a_request_or_an_answer_that_is_too_large_is_refused_before_the_work(popularity, monkeypatch):
    monkeypatch.setattr(pyfunc, "MAX_REQUEST_ROWS", 2)
    monkeypatch.setattr(pyfunc, "MAX_ANSWER_ROWS", 5)
    with pytest.raises(DataError, match="at most 2 rows in a request, found 3"):
        recommend_frame(popularity, histories(("u", "a"), ("u", "b"), ("u", "c")))
    with pytest.raises(DataError, match="found 2 users with 3 items"):
        recommend_frame(popularity, histories(("u", "a"), ("v", "b")), n=3)
    assert len(recommend_frame(popularity, histories(("u", "a"), ("v", "b")), n=2)) == 4


# As on the command line


def remembering(folder, **reading):
    """EASE on a few ratings, which says how they were read."""
    rows = ["u1,a,5", "u1,b,5", "u1,c,1", "u2,a,5", "u2,c,5", "u3,b,5", "u3,c,5", "u4,d,5", "u4,a,4"]
    (folder / "ratings.csv").write_text("\n".join(["user_id,item_id,rating", *rows]) + "\n")
    data = UserItemMatrix.from_interactions(read_interactions(folder / "ratings.csv", ReadingOptions(**reading)))
    model = create_model("ease", {"l2": 1.0}).fit(data.matrix)
    trained = TrainedModel(model, data.items, data.item_counts, about={"reading": reading})
    return load_model(save_model(folder / "model", trained))


def test_an_item_that_was_rated_low_is_seen_and_not_recommended(tmp_path):
    trained = remembering(tmp_path, min_rating=4.0)
    rows = pd.read_csv(tmp_path / "ratings.csv")
    assert lists(recommend_frame(trained, rows[rows["user_id"] == "u1"], n=2)) == {"u1": ["d"]}


@pytest.mark.parametrize("reading", [{}, {"min_rating": 4.0}, {"min_rating": 2.0, "duplicates": "mean"}], ids=str)
@pytest.mark.parametrize("policy", ["last", "first", "max"])
def test_the_lists_are_those_of_the_command_line(tmp_path, reading, policy):
    trained = remembering(tmp_path, **({"duplicates": policy} | reading))
    rows = ["p,a,5,3", "p,b,2,1", "p,a,1,9", "q,c,5,2", "q,c,3,1", "q,b,1,1", "r,d,4,1", "s,a,1,1"]
    (tmp_path / "new.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]) + "\n")
    score(tmp_path / "model", tmp_path / "new.csv", tmp_path / "lists", n=3)
    expected = {user: list(items) for user, items in lists_of(tmp_path / "lists").items()}
    found = lists(recommend_frame(trained, pd.read_csv(tmp_path / "new.csv"), n=3))
    assert found == expected and found


def test_histories_of_low_ratings_alone_get_an_empty_answer(tmp_path, caplog):
    trained = remembering(tmp_path, min_rating=4.0)
    rows = histories(("u", "a", 1.0), ("v", "b", 2.0), columns=("user_id", "item_id", "rating"))
    assert recommend_frame(trained, rows).empty
    assert "2 of 2 users get no list" in caplog.text


# In MLflow


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Folder of MLflow's copy of a model, the model directory itself being gone."""
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("serving")
    tracker, directory = MLflowTracker(f"sqlite:///{folder / 'mlflow.db'}"), save(folder / "model")
    with tracker.run("popularity", "train") as run:
        run.log_model(lambda: pyfunc_arguments(directory))
    directory.rename(folder / "elsewhere")
    client = mlflow.MlflowClient(tracker.uri)
    (output,) = client.get_run(run.id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.status, model.name, model.source_run_id) == ("READY", "model", run.id)
    return folder / "mlruns" / "recsys" / "models" / model.model_id / "artifacts"


@pytest.fixture
def served(logged, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    return mlflow.pyfunc.load_model(str(logged))


def test_a_logged_model_loads_without_pickle_and_recommends(served):
    found = served.predict(histories(("u", "a")), params={"n": 2})
    assert found.to_dict("list") == {"user_id": ["u", "u"], "item_id": ["b", "c"], "rank": [1, 2], "score": [3.0, 2.0]}
    assert lists(served.predict(histories(("u", "a")), params={"filter_seen": False})) == {"u": ITEMS}
    wishes = {"exclude_items": ["b"], "candidate_items": ["b", "d"]}
    assert lists(served.predict(histories(("u", "a")), params=wishes)) == {"u": ["d"]}


def test_a_rating_column_is_optional(served):
    rated = histories(("u", "a", 5.0), columns=("user_id", "item_id", "rating"))
    pd.testing.assert_frame_equal(served.predict(rated), served.predict(histories(("u", "a"))))


def test_a_request_that_cannot_be_met_is_refused_with_the_reason(served):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="missing inputs"):
        served.predict(pd.DataFrame({"user_id": ["u"]}))
    with pytest.raises(MlflowException, match="Failed to validate type"):
        served.predict(histories(("u", "a")), params={"n": "many"})
    with pytest.raises(MlflowException, match="n of at least 1, found 0"):
        served.predict(histories(("u", "a")), params={"n": 0})


def test_a_served_list_is_cut_at_the_catalog(served):
    assert lists(served.predict(histories(("u", "a")), params={"n": 300_000_000})) == {"u": ["b", "c", "d"]}


@pytest.mark.parametrize("times", [[1, 2], [1.5, 2.5], ["2020-01-01", "2020-01-02"], [None, None]], ids=str)
def test_timestamps_of_any_type_are_optional(served, times):
    rows = histories(("u", "a"), ("u", "b")).assign(timestamp=times)
    assert lists(served.predict(rows, params={"n": 1})) == {"u": ["c"]}


def test_no_file_of_a_logged_model_is_a_pickle(logged):
    suffixes = {file.suffix for file in logged.rglob("*") if file.is_file()}
    assert suffixes <= {"", ".py", ".txt", ".yaml", ".json", ".parquet", ".safetensors", ".typed", ".html"}


def test_requirements_are_pinned_without_local_builds(tmp_path):
    requirements = pyfunc_arguments(tmp_path)["pip_requirements"]
    names = [line.partition("==")[0] for line in requirements]
    assert {"torch", "numpy", "scipy", "pandas", "pyarrow", "safetensors", "mlflow"} <= set(names)
    assert not any("+" in line for line in requirements)
    assert all("==" in line for line in requirements)


def test_the_code_travels_only_where_pip_cannot_install_it(tmp_path, monkeypatch):
    assert [Path(place).name for place in pyfunc_arguments(tmp_path)["code_paths"]] == ["recsys"]
    monkeypatch.setattr(pyfunc, "own_requirement", lambda: "recsys-autoencoders==0.2.0")
    found = pyfunc_arguments(tmp_path)
    assert "code_paths" not in found and found["pip_requirements"][-1] == "recsys-autoencoders==0.2.0"


def test_a_logged_model_brings_its_code_to_an_environment_without_recsys(logged):
    code = """
import json, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path = [place for place in sys.path if not (__import__("pathlib").Path(place) / "recsys").is_dir()]
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pandas.DataFrame({"user_id": ["u"], "item_id": ["a"]}), params={"n": 2})
import recsys
print(json.dumps([recsys.__file__, found["item_id"].tolist()]))
"""
    command = [sys.executable, "-c", code, str(logged)]
    done = subprocess.run(command, cwd=logged, capture_output=True, text=True, timeout=120, check=True)
    file, items = json.loads(done.stdout)
    assert file.startswith(str(logged))
    assert items == ["b", "c"]


# Models of ratings


@pytest.fixture
def biases(tmp_path):
    """Item a is rated 4, b 0, c -2 and d 2 by people whose mean is all the same."""
    levels = np.array([4.0, 0.0, -2.0, 2.0])
    user, item = np.divmod(np.arange(40), 4)
    matrix = sparse_rows(user, item, levels[item], (10, 4))
    model = create_model("biases", {"item_shrinkage": 0.0, "user_shrinkage": 0.0}).fit(matrix)
    return load_model(save_model(tmp_path / "stars", TrainedModel(model, Vocabulary.of(ITEMS), np.full(4, 10))))


def test_the_score_of_a_rating_model_is_the_predicted_rating_and_a_zero_is_a_rating(biases):
    rows = histories(("new", "b", 0.0), ("new", "c", -2.0), columns=("user_id", "item_id", "rating"))
    found = recommend_frame(biases, rows)
    assert found["item_id"].tolist() == ["a", "d"]
    assert found["score"].tolist() == pytest.approx([4, 2], abs=0.01)


def test_a_rating_model_refuses_a_history_without_ratings(biases):
    with pytest.raises(DataError, match="Expected a column of ratings"):
        recommend_frame(biases, histories(("new", "b")))


def test_histories_of_a_model_of_sequences_are_in_order_of_time_or_of_the_rows(tmp_path):
    chain = sparse_rows(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), np.float32([1, 2, 1, 2]), (2, 4))
    model = create_model("last-item").fit(chain)  # 1 follows 0, and 2 follows 1
    trained = load_model(
        save_model(tmp_path / "next", TrainedModel(model, Vocabulary.of(ITEMS), np.ones(4, dtype=np.int64)))
    )
    first, second, third, _ = ITEMS
    rows = histories(("u", first), ("u", second))
    assert recommend_frame(trained, rows, n=1)["item_id"].tolist() == [third]
    backward = histories(("u", second, 2), ("u", first, 1), columns=("user_id", "item_id", "timestamp"))
    assert recommend_frame(trained, backward, n=1)["item_id"].tolist() == [third]
    assert trained.recommend_for_items([first, second], n=1)["item_id"].tolist() == [third]
    with pytest.raises(DataError, match="Expected times, which decide the order"):
        trained.recommend(rows)
