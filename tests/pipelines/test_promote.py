import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.cli.resuming import KeepingOptions
from pipelines.cli.settings import TrackingOptions
from pipelines.evaluate import EvaluateJob
from pipelines.evaluate import run as evaluate
from pipelines.promote import PromoteJob, common_bucket, run
from pipelines.train import TrainJob
from pipelines.train import run as train
from recsys import fit, save_model
from recsys.artifacts import load_model
from recsys.data.reading import read_interactions
from recsys.errors import ConfigError, GateError, RegistryError, UnsupportedError
from recsys.models.trained import TrainedModel
from recsys.serving.pyfunc import pyfunc_arguments
from recsys.splitting.bucket import divide_by_bucket
from recsys.tracking.mlflow_tracker import MLflowTracker
from recsys.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, STATUS, ModelAddress, ModelRegistry

mlflow = pytest.importorskip("mlflow")
SHARE = 0.3


def tastes():
    """200 users of two tastes; each takes most of one half of 20 items."""
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}") for u in range(200) for i in range(u % 2, 20, 2) if rng.random() < 0.7]
    return pd.DataFrame(rows, columns=["user_id", "item_id"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A database with the runs of two models, and their run ids; the ratings beside it."""
    folder = tmp_path_factory.mktemp("registry")
    tastes().to_csv(folder / "ratings.csv", index=False)
    training, _ = divide_by_bucket(read_interactions(folder / "ratings.csv"), SHARE)
    tracker, runs = MLflowTracker(f"sqlite:///{folder / 'mlflow.db'}"), {}
    for name in ("popularity", "ease", "again"):
        fitted = fit(training, name.replace("again", "ease"), held_out=0)
        about = {**fitted.about, "split": {"test_bucket": SHARE}}
        save_model(folder / name, TrainedModel(fitted.model, fitted.items, fitted.item_counts, about=about))
        with tracker.run(f"train {name}", "train") as tracked:
            tracked.log_model(partial(pyfunc_arguments, folder / name))
        runs[name] = tracked.id
    return folder, runs


@pytest.fixture
def place(kept, tmp_path, monkeypatch):
    """A copy of the database, which a test may change."""
    folder, runs = kept
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return folder / "ratings.csv", ModelRegistry(), runs


def alias(registry, which):
    return registry.version(ModelAddress("books", which))


def status(registry, version):
    found = mlflow.MlflowClient(registry.uri).get_model_version("books", version)
    return found.tags[STATUS], found.description


def test_the_first_challenger_is_champion_and_a_better_one_takes_over_and_can_be_taken_back(place):
    ratings, registry, runs = place
    assert registry.register("books", runs["popularity"]) == "1"
    assert alias(registry, CHALLENGER) == "1" and alias(registry, CHAMPION) is None
    assert run(PromoteJob("books", (ratings,))).reason.startswith("Version 1 of books is its first champion")
    assert alias(registry, CHAMPION) == "1"

    assert registry.register("books", runs["ease"]) == "2"
    promotion = run(PromoteJob("books", (ratings,)))
    assert (promotion.champion, promotion.before) == ("2", "1")
    assert promotion.found.difference.gain.low > 0
    assert alias(registry, CHAMPION) == "2" and alias(registry, PREVIOUS) == "1"
    assert status(registry, "2")[0] == "passed" and "takes over: ndcg@100" in status(registry, "2")[1]

    back = run(PromoteJob("books", (), rollback=True))
    assert (back.champion, back.before) == ("1", "2") and alias(registry, CHAMPION) == "1"
    with pytest.raises(RegistryError, match="before the present one"):
        run(PromoteJob("books", (), rollback=True))


def test_a_worse_challenger_is_refused_and_nothing_moves(place):
    ratings, registry, runs = place
    registry.register("books", runs["ease"])
    run(PromoteJob("books", (ratings,)))
    registry.register("books", runs["popularity"])
    with pytest.raises(GateError, match=r"Version 2 of books does not take over: ndcg@100 .* gain -") as refused:
        run(PromoteJob("books", (ratings,)))
    assert refused.value.facts["champion"] == "1" and refused.value.facts["found"]["difference"]["interval"]["high"] < 0
    assert alias(registry, CHAMPION) == "1" and status(registry, "2")[0] == "failed"


def test_an_equal_one_takes_over_only_where_that_is_asked_for(place):
    ratings, registry, runs = place
    registry.register("books", runs["ease"])
    run(PromoteJob("books", (ratings,)))
    assert run(PromoteJob("books", (ratings,))).reason == "Version 1 of books is the champion already."
    assert registry.register("books", runs["ease"]) == "1"  # once for each run
    registry.register("books", runs["again"])
    with pytest.raises(GateError, match=r"gain 0\.0000"):
        run(PromoteJob("books", (ratings,)))
    assert run(PromoteJob("books", (ratings,), non_inferior=0.001)).champion == "2"


def test_what_a_killed_registration_left_is_completed(place, monkeypatch):
    """Killed after the version was made, and before its alias: the alias is what promote reads."""
    _, registry, runs = place

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", killed)
        registry.register("books", runs["ease"])
    assert alias(registry, CHALLENGER) is None
    assert registry.register("books", runs["ease"]) == "1"
    assert alias(registry, CHALLENGER) == "1" and status(registry, "1")[0] == "pending"


def test_a_model_registered_again_is_the_challenger_again(place):
    _, registry, runs = place
    for name in ("ease", "popularity"):
        registry.register("books", runs[name])
    assert registry.register("books", runs["ease"]) == "1" and alias(registry, CHALLENGER) == "1"


def test_a_training_killed_while_its_model_was_kept_is_completed(place, tmp_path, monkeypatch):
    ratings, registry, _ = place
    job = TrainJob((ratings,), tmp_path / "model", "ease", test_bucket=SHARE, register="films")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow.MlflowClient, "log_model_artifacts", killed)
        train(job)
    assert (tmp_path / "model" / "model.json").exists()
    again = train(replace(job, keeping=KeepingOptions(resume=True)))
    version = registry.version(ModelAddress("films", CHALLENGER))
    fetched = registry.fetch(ModelAddress("films", version), tmp_path / "copy")
    assert load_model(fetched).digest == load_model(tmp_path / "model").digest
    client = mlflow.MlflowClient(registry.uri)
    run_ = client.get_run(again.run_id)
    ready = client.get_logged_model(client.get_model_version("films", version).source.removeprefix("models:/"))
    assert (run_.info.status, ready.status) == ("FINISHED", "READY")
    assert {metric.key: metric.value for metric in ready.metrics}["ndcg_at_100"] == again.metrics["ndcg@100"].mean


def test_an_evaluation_of_a_model_with_a_test_bucket_is_on_its_users(kept):
    folder, _ = kept
    _, judges = divide_by_bucket(read_interactions(folder / "ratings.csv"), SHARE)
    found = evaluate(EvaluateJob(folder / "ease", (folder / "ratings.csv",), tracking=TrackingOptions(track=False)))
    assert found.who == "users of the test bucket, kept out of its training" and not found.caution
    assert found.metrics["ndcg@100"].n_users + found.left_out == len(judges.users)


def test_without_a_challenger_the_way_to_register_one_is_said(place):
    ratings, _, _ = place
    with pytest.raises(RegistryError, match=r"found none: .*train RATINGS --register books"):
        run(PromoteJob("books", (ratings,)))


def test_what_is_fetched_is_the_model_folder(place, tmp_path, kept):
    _, registry, runs = place
    registry.register("books", runs["ease"])
    fetched = registry.fetch(ModelAddress.parse("models:/books@challenger"), tmp_path / "copy")
    assert load_model(fetched).digest == load_model(kept[0] / "ease").digest
    with pytest.raises(RegistryError, match="models:/books@champion"):
        registry.fetch(ModelAddress("books", "champion"), tmp_path / "other")


def test_a_run_without_a_model_cannot_be_registered(place):
    _, registry, _ = place
    with MLflowTracker(registry.uri).run("empty", "train") as tracked:
        pass
    with pytest.raises(RegistryError, match="Expected a model kept by the run"):
        registry.register("books", tracked.id)


def test_a_registry_that_fails_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("no database")
    with pytest.raises(RegistryError, match=r"MLflow at sqlite:.*file failed in looking for models:/books@champion"):
        ModelRegistry(f"sqlite:///{tmp_path / 'file'}").version(ModelAddress("books", "champion"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models:/books@champion", ModelAddress("books", "champion")),
        ("models:/books/3", ModelAddress("books", "3")),
        ("folder/model", None),
        ("s3://bucket/model", None),
    ],
)
def test_addresses(text, found):
    assert ModelAddress.parse(text) == found
    assert found is None or str(found) == text


@pytest.mark.parametrize("text", ["models:/", "models:/books", "models:/a/b", "models:/a@b@c", "models:/a@"])
def test_addresses_that_are_none(text):
    with pytest.raises(ConfigError, match="NAME@ALIAS"):
        ModelAddress.parse(text)


def test_nobody_can_judge_a_model_that_was_trained_on_everybody():
    ease = fit(tastes(), "ease", held_out=0)
    kept_apart = TrainedModel(ease.model, ease.items, ease.item_counts, about={"split": {"test_bucket": 0.1}})
    larger = TrainedModel(ease.model, ease.items, ease.item_counts, about={"split": {"test_bucket": 0.3}})
    assert common_bucket("books", ("1", kept_apart), ("2", larger)) == 0.1
    with pytest.raises(UnsupportedError, match="Version 2 of books may have been trained on any user"):
        common_bucket("books", ("1", kept_apart), ("2", ease))


def test_a_training_keeps_the_bucket_apart_and_registers_the_model(place, tmp_path, capsys):
    ratings, registry, _ = place
    job = TrainJob((ratings,), tmp_path / "model", "ease", test_bucket=SHARE, register="films", held_out=0)
    assert train(job) is not None
    interactions = read_interactions(ratings)
    training, bucket = divide_by_bucket(interactions, SHARE)
    about = load_model(tmp_path / "model").about
    assert about["split"]["test_bucket"] == SHARE and about["data"]["users"] == len(training.users)
    assert f"{len(bucket.users)} users of the test bucket are not trained on" in capsys.readouterr().err
    assert registry.version(ModelAddress("films", CHALLENGER)) == "1"
    assert run(PromoteJob("films", (ratings,))).champion == "1"
    found = CliRunner().invoke(main, ["recommend", "models:/films@champion", "--items", "i0,i2", "-n", "3"])
    assert found.exit_code == 0 and "models:/films@champion is version 1" in found.output
    with pytest.raises(ConfigError, match="--register"):
        TrainJob((ratings,), register="films", tracking=TrackingOptions(track=False))


def test_ratings_or_a_rollback():
    with pytest.raises(ConfigError, match="either RATINGS"):
        PromoteJob("books", ())
    with pytest.raises(ConfigError, match="either RATINGS"):
        PromoteJob("books", ("ratings.csv",), rollback=True)
    with pytest.raises(ConfigError, match="rmse"):
        PromoteJob("books", ("ratings.csv",), metric="rmse")
