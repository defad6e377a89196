"""Item features through the commands: what is read and said, cold items, items that come after training."""

import json
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from scipy.sparse import csr_matrix

import recsys
from pipelines.cli.main import main
from recsys.artifacts import load_model
from recsys.data.item_features import read_item_table
from recsys.errors import ArtifactError, ConfigError, DataError, UnsupportedError
from recsys.evaluation.fitting import fit
from recsys.models import MODELS, Recommender
from recsys.models.state import StateSpec, TensorSpec
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class AlikeConfig:
    """No settings."""


class Alike(Recommender[AlikeConfig]):
    """An item scores the features that it shares with the history: the smallest model of features that there is."""

    name, family, Config, is_random = "alike", "baseline", AlikeConfig, False

    @property
    def uses_features(self):
        return True

    def _fit(self, matrix, context):
        self.table = torch.as_tensor(context.item_features.toarray())

    def _score(self, history, users):
        return torch.as_tensor(history.toarray()) @ self.table @ self.table.T

    def with_new_items(self, features):
        model = Alike().set_state(self.get_state(), self.n_items, "cpu")
        model.table = torch.cat([self.table, torch.as_tensor(features.toarray())])
        model.n_items = len(model.table)
        return model

    def _get_state(self):
        return {"table": self.table}

    def _set_state(self, state, device):
        self.table = state["table"].to(device)

    def _state_spec(self, n_items, state):
        return StateSpec({"table": TensorSpec((n_items, "features"))})


def run(*words):
    return CliRunner().invoke(main, [*map(str, words)])


def ok(*words):
    found = run(*words)
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Forty users love red or blue things: each takes 10 of the 12 of one color. r12 and b12 are only in the table."""
    monkeypatch.setitem(MODELS, "alike", Alike)
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"{'rb'[user % 2]}{thing}", 1_600_000_000 + thing)
        for user in range(40)
        for thing in rng.permutation(12)[:10]
    ]
    pd.DataFrame(rows, columns=["user", "item", "timestamp"]).to_csv(tmp_path / "ratings.csv", index=False)
    things = [(f"{color}{thing}", color, thing, "x") for color in "rb" for thing in range(13)]
    table = pd.DataFrame(things, columns=["item", "color", "size", "note"])
    table.to_csv(tmp_path / "items.csv", index=False)
    new = pd.DataFrame({"item": ["r99", "b98", "r3"], "color": ["r", "b", "r"]})
    new.to_csv(tmp_path / "new.csv", index=False)
    return tmp_path


@pytest.fixture
def model(files):
    words = [
        "-m",
        "alike",
        "--item-features",
        files / "items.csv",
        "--feature-columns",
        "color:categories",
        "--no-track",
    ]
    ok("train", files / "ratings.csv", *words, "-o", files / "model")
    return files / "model"


def test_a_model_is_trained_with_features_and_knows_items_that_only_the_table_has(files, model):
    saved = load_model(model)
    assert saved.items.to_list()[-2:] == ["b12", "r12"]
    assert saved.item_counts[-2:].tolist() == [0, 0]
    assert saved.features.names == ["color=b", "color=r"]
    facts = saved.about["data"]["features"]
    assert facts["columns"] == {"color": {"kind": "categories", "features": 2, "missing": 0, "unreadable": 0}}
    assert (facts["items_without_features"], facts["features_without_items"]) == (0, 2)
    assert {"features.json", "features.safetensors"} <= saved.about["files"].keys()


def test_a_new_item_is_recommended_at_once(files, model):
    ok("score", model, files / "ratings.csv", "-n", 3, "-o", files / "lists", "--no-track")
    lists = pd.read_parquet(files / "lists" / "recommendations")
    assert set(lists[lists.user_id == "u0"].item_id) >= {"r12"}
    assert set(lists[lists.user_id == "u1"].item_id) >= {"b12"}


def test_the_account_of_features_is_said(files):
    words = ["--item-features", files / "items.csv", "--ignore-columns", "note", "--no-track"]
    found = " ".join(ok("train", files / "ratings.csv", "-m", "alike", *words, "-o", files / "other").output.split())
    assert "color = categories (2), size = number (11); not read: note" in found
    assert "rows read 26 = kept 26" in found
    assert "0 items without features; 2 items that only the features know." in found


def test_check_shows_columns_and_items_without_features(files):
    with (files / "ratings.csv").open("a") as file:
        file.write("u1,unheard,1600000000\n")
    words = ["check", files / "ratings.csv", "--item-features", files / "items.csv", "--ignore-columns", "size"]
    shown = ok(*words).output
    assert re.search(r"color +categories +2 +0 +0\n", shown)
    assert "1 item without features; 2 items that only the features know." in shown
    facts = json.loads(ok("--json", *words).stdout)["facts"]["features"]
    assert facts["columns"]["note"]["features"] == 1
    assert facts["unread"] == ["size"]


def test_a_model_of_features_without_a_table_is_refused_before_the_data_are_read(files):
    for words in (
        ["train", "nowhere.csv", "-m", "alike"],
        ["tune", "nowhere.csv", "-m", "alike"],
        ["compare", "nowhere.csv", "-m", "alike"],
    ):
        found = run(*words, "--no-track", "-o", files / "out")
        assert found.exit_code == 1
        assert "--item-features FILE" in found.output


def test_other_models_pass_the_table_over_and_say_so(files):
    words = ["-m", "popularity", "--item-features", files / "items.csv", "--no-track"]
    found = ok("train", files / "ratings.csv", *words, "-o", files / "plain")
    assert "popularity does not use item features" in " ".join(found.output.split())
    assert len(load_model(files / "plain").items) == 24


def test_columns_without_a_table_are_refused(files):
    assert "--item-features FILE" in run("train", files / "ratings.csv", "--ignore-columns", "note").output


def test_an_unknown_column_is_refused_with_the_known_ones(files):
    words = ["-m", "alike", "--item-features", files / "items.csv", "--feature-columns", "colour", "--no-track"]
    found = run("train", files / "ratings.csv", *words, "-o", files / "other")
    assert found.exit_code == 1
    assert "among color, size, note" in " ".join(found.output.split())


# Items that come after training


def test_items_that_come_later_get_a_column_without_training(files, model):
    words = ["score", model, files / "ratings.csv", "-n", 4, "--new-items", files / "new.csv", "--no-track"]
    said = " ".join(ok(*words, "-o", files / "lists").output.split())
    assert "2 items new to the model, 1 known to it already." in said
    lists = pd.read_parquet(files / "lists" / "recommendations")
    assert "r99" in set(lists[lists.user_id == "u0"].item_id)
    assert "b98" in set(lists[lists.user_id == "u1"].item_id)
    ok("score", model, files / "ratings.csv", "-n", 4, "--no-track", "-o", files / "without")
    plans = [json.loads((files / name / "plan.json").read_text()) for name in ("lists", "without")]
    assert plans[0]["model"] != plans[1]["model"]  # an interrupted job is not resumed with other items


def test_linear_autoencoders_take_new_items_by_their_features(files):
    features = ["--item-features", files / "items.csv", "--feature-columns", "color", "--no-track"]
    ok("train", files / "ratings.csv", "-m", "ease", "-s", "feature_weight=5", *features, "-o", files / "ease")
    ok("score", files / "ease", files / "ratings.csv", "-n", 4, "-o", files / "lists", "--new-items", files / "new.csv")
    lists = pd.read_parquet(files / "lists" / "recommendations")
    assert "r99" in set(lists[lists.user_id == "u0"].item_id)
    assert "b98" in set(lists[lists.user_id == "u1"].item_id)


def test_new_items_need_a_model_of_features(files):
    ok("train", files / "ratings.csv", "-m", "ease", "--no-track", "-o", files / "plain")
    found = run(
        "score", files / "plain", files / "ratings.csv", "--new-items", files / "new.csv", "-o", files / "lists"
    )
    assert found.exit_code == 1
    assert "trained with item features" in found.output


def test_the_same_items_in_python(files, model):
    saved = load_model(model)
    grown = saved.with_new_items(read_item_table(files / "new.csv", saved.features.options))
    assert grown.items.to_list()[-2:] == ["b98", "r99"]
    assert len(saved.items) == 26
    assert saved.with_new_items(read_item_table(files / "items.csv", saved.features.options)) is saved
    recsys.save_model(files / "grown", grown)
    assert load_model(files / "grown").items.to_list() == grown.items.to_list()


def test_workers_of_a_ray_cluster_know_new_items_too(files):
    pytest.importorskip("ray")
    model = files / "knn"
    features = ["--item-features", files / "items.csv", "--feature-columns", "color", "--no-track"]
    ok("train", files / "ratings.csv", "-m", "content-knn", *features, "-o", model)
    words = ["score", model, files / "ratings.csv", "-n", 4, "--new-items", files / "new.csv", "--no-track"]
    for folder, more in (("here", []), ("there", ["--engine", "ray", "--workers", 1])):
        assert run(*words, "-o", files / folder, *more).exit_code == 0
    here, there = (pq.read_table(files / folder / "recommendations") for folder in ("here", "there"))
    assert here.equals(there)
    manifest = json.loads((files / "there" / "manifest.json").read_text())
    assert manifest["new_items"] > 0


# Evaluation


def test_a_comparison_measures_cold_and_warm_items_apart(files):
    words = ["--protocol", "cold-items", "--held-out", 0.2, "--probes", 0, "--no-baselines", "--no-track"]
    words += ["-m", "alike,popularity", "--item-features", files / "items.csv", "--feature-columns", "color:categories"]
    found = json.loads(ok("--json", "compare", files / "ratings.csv", *words, "-o", files / "out").stdout)
    board = {row["model"]: row for row in found["leaderboard"]}
    for label in ("ndcg@100", "cold_ndcg@100", "warm_ndcg@100", "cold_recall@100"):
        assert label in board["alike"]
    assert board["alike"]["cold_ndcg@100"] > 0.9  # the color tells
    assert board["popularity"]["cold_ndcg@100"] < board["alike"]["cold_ndcg@100"]
    assert found["split"]["cold_items"] == 4
    page = (files / "out" / "report.html").read_text()
    assert "cold items alone" in page
    assert "color: categories, 2;" in page
    assert "items that only the features know 2" in page
    gain = board["alike"]["cold_ndcg@100"] - board["popularity"]["cold_ndcg@100"]
    said = rf"popularity against alike: cold_ndcg@100 {-gain:.4f} \[.*\], warm_ndcg@100 [+-]"
    assert re.search(said, found["conclusions"][-1])


def test_the_newest_items_can_be_the_cold_ones(files):
    words = ["--protocol", "cold-items", "--newest", "--held-out", 0.1, "--probes", 0, "--no-baselines", "--no-track"]
    words += ["-m", "popularity", "--metrics", "cold_ndcg@10", "--save-models"]
    ok("compare", files / "ratings.csv", *words, "-o", files / "out")
    saved = load_model(files / "out" / "models" / "popularity")
    cold = set(np.array(saved.items.to_list())[saved.item_counts == 0])
    assert {"r11", "b11"} < cold < {"r11", "b11", "r10", "b10"}  # one more is cold in validation


def test_the_users_held_out_from_training_are_found_again(files, model):
    again = json.loads(ok("--json", "evaluate", model, files / "ratings.csv", "--no-track").stdout)
    assert "held out from its training" in again["who"]
    assert again["metrics"]["ndcg@100"]["mean"] == pytest.approx(load_model(model).about["metrics"]["ndcg@100"]["mean"])


def test_a_saved_model_is_measured_on_items_that_came_later(files, model):
    later = pd.DataFrame({"user": [f"u{user}" for user in range(40)], "item": ["r99", "b98"] * 20})
    later.to_csv(files / "later.csv", index=False)
    words = ["evaluate", model, files / "ratings.csv", "--test", files / "later.csv", "--no-track"]
    found = json.loads(ok("--json", *words, "--item-features", files / "new.csv").stdout)["metrics"]
    assert found["cold_recall@100"]["mean"] == 1
    assert found["cold_ndcg@100"]["mean"] > 0.6  # among r12, r99, b12, b98 the right color comes first
    assert json.loads(ok("--json", *words).stdout)["metrics"]["ndcg@100"]["mean"] == 0  # none of them is known


def test_settings_are_searched_with_features(files, monkeypatch):
    pytest.importorskip("optuna")
    words = ["-m", "alike", "--item-features", files / "items.csv", "--trials", 1, "--no-track"]
    said = ok("tune", files / "ratings.csv", *words, "-o", files / "tuning").output
    assert f"--item-features {files / 'items.csv'} --config" in said


# The library


def test_fit_takes_a_table_or_features(files):
    trained = fit(files / "ratings.csv", Alike(), item_features=files / "items.csv")
    assert trained.features is not None
    assert len(trained.items) == 26
    assert fit(files / "ratings.csv", "popularity", item_features=files / "items.csv").features is None


def test_a_model_of_features_is_not_fitted_without_them():
    matrix = csr_matrix(np.eye(3, dtype=np.float32))
    with pytest.raises(ConfigError, match="item_features"):
        Alike().fit(matrix)
    for wrong in (csr_matrix((2, 4), dtype=np.float32), csr_matrix((3, 0), dtype=np.float32)):
        with pytest.raises(DataError, match="features of 3 items"):
            Alike().fit(matrix, TrainingContext(item_features=wrong))
    with pytest.raises(DataError, match="finite"):
        Alike().fit(matrix, TrainingContext(item_features=csr_matrix(np.full((3, 1), np.nan))))


def test_a_model_without_features_takes_no_new_items():
    model = recsys.create_model("ease").fit(csr_matrix(np.eye(3, dtype=np.float32)))
    with pytest.raises(UnsupportedError, match="ease cannot take new items"):
        model.with_new_items(csr_matrix((1, 2), dtype=np.float32))


def test_a_folder_without_its_features_or_with_crafted_ones_is_refused(files, model):
    about = json.loads((model / "model.json").read_text())
    text = (model / "features.json").read_text()
    (model / "features.json").write_text(text.replace("color", "colon"))
    with pytest.raises(ArtifactError, match="damaged"):
        load_model(model)
    (model / "features.json").write_text(text)
    del about["files"]["features.safetensors"]
    (model / "model.json").write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match=r"features\.safetensors"):
        load_model(model)
