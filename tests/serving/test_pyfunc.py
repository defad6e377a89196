import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import sparse_rows
from recsys.errors import DataError
from recsys.models import create_model
from recsys.models.trained import TrainedModel
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


def test_everybody_gets_the_most_popular_items_they_have_not_seen(popularity):
    found = recommend_frame(popularity, histories(("new", "a"), ("other", "b"), ("other", "c")), n=2)
    assert found.to_dict("list") == {
        "user_id": ["new", "new", "other", "other"],
        "item_id": ["b", "c", "a", "d"],
        "rank": [1, 2, 1, 2],
        "score": [3.0, 2.0, 4.0, 1.0],
    }


def test_seen_items_come_back_when_asked_for(popularity):
    found = recommend_frame(popularity, histories(("new", "a")), n=2, filter_seen=False)
    assert lists(found) == {"new": ["a", "b"]}


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
    assert "1 of 2 users get no list" in caplog.text


def test_nobody_is_an_empty_table_with_its_columns(popularity):
    found = recommend_frame(popularity, histories())
    assert found.empty
    assert list(found.columns) == ["user_id", "item_id", "rank", "score"]


def test_integer_ids_of_the_model_are_found_by_their_spelling(tmp_path):
    numbers = load_model(save(tmp_path / "model", items=[7, 8, 9, 10]))
    assert lists(recommend_frame(numbers, histories(("u", "7")), n=2)) == {"u": ["8", "9"]}


def test_a_model_that_knows_only_its_users_serves_them_and_counts_the_others(tmp_path, caplog):
    pytest.importorskip("implicit")
    saved = load_model(save(tmp_path / "model", "bpr", users=Vocabulary.of(["u0", "u1", "u2", "u3"])))
    found = recommend_frame(saved, histories(("u3", "a"), ("new", "a")), n=4)
    assert {user: sorted(items) for user, items in lists(found).items()} == {"u3": ["b", "c", "d"]}
    assert "1 of 2 users get no list" in caplog.text


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (histories(("u", "a"), columns=("user", "item")), "columns user_id and item_id"),
        (histories(("u", None)), "found rows without"),
        (histories(("u", "a", 1.0), ("u", "b", None), columns=("user_id", "item_id", "rating")), "in every row or"),
    ],
)
def test_incomplete_histories_are_refused(popularity, frame, complaint):
    with pytest.raises(DataError, match=complaint):
        recommend_frame(popularity, frame)


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


def test_a_rating_column_is_welcome_and_not_needed(served):
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


def test_no_file_of_a_logged_model_is_a_pickle(logged):
    suffixes = {file.suffix for file in logged.rglob("*") if file.is_file()}
    assert suffixes <= {"", ".py", ".txt", ".yaml", ".json", ".parquet", ".safetensors", ".typed", ".html"}


def test_requirements_are_pinned_without_local_builds(tmp_path):
    requirements = pyfunc_arguments(tmp_path)["pip_requirements"]
    names = [line.partition("==")[0] for line in requirements]
    assert {"torch", "numpy", "scipy", "pandas", "pyarrow", "safetensors", "mlflow"} <= set(names)
    assert not any("+" in line for line in requirements)
    assert all("==" in line for line in requirements)


def test_a_logged_model_brings_its_code_to_a_machine_without_recsys(logged):
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


def test_of_ratings_the_score_is_the_predicted_rating_of_a_history_with_a_zero_in_it(biases):
    rows = histories(("new", "b", 0.0), ("new", "c", -2.0), columns=("user_id", "item_id", "rating"))
    found = recommend_frame(biases, rows)
    assert found["item_id"].tolist() == ["a", "d"]
    assert found["score"].tolist() == pytest.approx([4, 2], abs=0.01)


def test_a_history_without_ratings_is_refused_by_a_model_of_ratings(biases):
    with pytest.raises(DataError, match="Expected interactions with ratings"):
        recommend_frame(biases, histories(("new", "b")))
