import hashlib
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import pipelines.nightly as nightly
from pipelines.cli.main import main
from pipelines.cli.nights import STEPS, alone, choose_night, fingerprint, read_plan, read_state
from pipelines.nightly import NightlyJob, run
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.tracking.mlflow_tracker import MLflowTracker
from recsys.tracking.registry import CHAMPION, ModelAddress, ModelRegistry

mlflow = pytest.importorskip("mlflow")

PLAN = """
ratings = "ratings.csv"
name = "books"

[train]
model = "{model}"
held-out = 0
test-bucket = 0.3

[promote]
min-gain = 0.002

[score]
n = 3
gates = "gates.toml"
"""


def tastes(users=120, seed=0):
    """Users of two tastes; each takes most of one half of 20 items."""
    rng = np.random.default_rng(seed)
    rows = [(f"u{u}", f"i{i}") for u in range(users) for i in range(u % 2, 20, 2) if rng.random() < 0.7]
    return pd.DataFrame(rows, columns=["user_id", "item_id"])


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with MLflowTracker(f"sqlite:///{file}", experiment="template").run("first", "train") as tracked:
        assert tracked.id
    return file


@pytest.fixture
def place(empty_database, tmp_path, monkeypatch):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tastes().to_csv("ratings.csv", index=False)
    (tmp_path / "gates.toml").write_text("coverage = { min = 0.1 }\n")
    plan(tmp_path, "popularity")
    return tmp_path


def plan(folder, model):
    (folder / "nightly.toml").write_text(PLAN.format(model=model))


def night(folder, **more):
    return run(NightlyJob(folder / "nightly.toml", **more))


def champion():
    return ModelRegistry().version(ModelAddress("books", CHAMPION))


def runs(wanted):
    client = mlflow.MlflowClient(ModelRegistry().uri)
    return client.search_runs([client.get_experiment_by_name("recsys").experiment_id], wanted)


def lists(folder):
    files = sorted((folder / "lists" / "recommendations").iterdir())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_nights_of_a_better_a_worse_and_a_bad_one(place, capsys):
    first = night(place, date="2026-11-24")
    assert first.folder.name.startswith("2026-11-24-") and champion() == "1"
    assert (place / "nights" / "CURRENT").read_text().strip() == first.folder.name
    assert "its first champion" in " ".join(first.said)
    again = night(place, date="2026-11-25")  # nothing is new
    assert again.folder == first.folder and "Nothing has changed" in again.said[0]

    plan(place, "ease")
    second = night(place, date="2026-11-25")
    assert champion() == "2" and "takes over: ndcg@100" in " ".join(second.said)
    assert lists(second.folder) != lists(first.folder)
    assert len(runs("tags.`recsys.kind` = 'nightly'")) == 2

    plan(place, "popularity")
    third = night(place, date="2026-11-26")
    assert champion() == "2" and "Version 1 of books does not take over" in " ".join(third.said)
    assert f"Trained popularity (as in {first.folder.name}: the inputs are the same)." in third.said
    assert lists(third.folder) == lists(second.folder)  # by the champion, of the same ratings

    (place / "gates.toml").write_text("coverage = { min = 1.1 }\n")
    plan(place, "ease")
    found = CliRunner().invoke(main, ["nightly", "nightly.toml", "--date", "2026-11-27", "--force"])
    assert found.exit_code == 1 and "Not published: coverage is" in found.output
    assert (place / "nights" / "CURRENT").read_text().strip() == third.folder.name


def test_killed_after_any_step_it_goes_on_and_ends_with_the_same(place, monkeypatch):
    plan(place, "ease")
    real, killed = nightly.call, []

    def call_then_die(arguments):
        """The step is done, and the process dies before that is written down."""
        found = real(arguments)
        if arguments[0] not in killed:
            killed.append(arguments[0])
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(nightly, "call", call_then_die)
    for _ in STEPS:
        with pytest.raises(KeyboardInterrupt):
            night(place, date="2026-11-24")
        assert not (place / "nights" / "CURRENT").exists()
    ended = night(place, date="2026-11-25")  # after midnight
    assert killed == list(STEPS) and ended.folder.name.startswith("2026-11-24-")
    assert champion() == "1"
    versions = mlflow.MlflowClient(ModelRegistry().uri).search_model_versions("name = 'books'")
    assert len(versions) == 1
    undisturbed = night(place, date="2026-11-26", force=True)
    assert lists(undisturbed.folder) == lists(ended.folder)


def test_the_file_is_read_strictly(place):
    file = place / "nightly.toml"
    for text, reason in [
        ("ratings = 3", "Expected ratings"),
        ('ratings = "r.csv"', "Expected name"),
        ('ratings = "r.csv"\nname = "b"\nraings = 2', "Unknown setting 'raings'"),
        ('ratings = "r.csv"\nname = "b"', "test_bucket"),
        ('ratings = "r.csv"\nname = "b"\ntrain = 3', r"table \[train\]"),
        ("ratings = ", "Expected TOML"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            read_plan(file)
    file.write_text(PLAN.format(model="ease").replace("held-out", "holdout"))
    with pytest.raises(ConfigError, match=r"Unknown setting 'holdout' of \[train\]"):
        night(place)


def test_the_fingerprint_is_of_the_file_and_of_the_ratings(place):
    file = place / "nightly.toml"
    before = fingerprint(file, read_plan(file))
    assert before == fingerprint(file, read_plan(file))
    tastes(seed=1).to_csv(place / "ratings.csv", index=False)
    after = fingerprint(file, read_plan(file))
    plan(place, "ease")
    assert len({before, after, fingerprint(file, read_plan(file))}) == 3
    (place / "ratings.csv").unlink()
    with pytest.raises(DataError, match=r"ratings\.csv"):
        fingerprint(file, read_plan(file))


def test_an_unfinished_night_goes_on_and_a_finished_one_is_not_begun_again(tmp_path):
    job = "2026-11-26"
    output, inputs = tmp_path / "nights", "0123456789abcdef"
    assert choose_night(output, inputs, job) == (output / "2026-11-26-01234567", True)
    (output / "2026-11-25-01234567").mkdir(parents=True)
    assert choose_night(output, inputs, job) == (output / "2026-11-25-01234567", True)
    (output / "CURRENT").write_text("2026-11-25-01234567\n")
    assert choose_night(output, inputs, job) == (output / "2026-11-25-01234567", False)
    (output / "CURRENT").write_text("2026-11-25-ffffffff\n")  # another one was published after it
    (output / "2026-11-25-01234567" / "published").touch()
    assert choose_night(output, inputs, job) == (output / "2026-11-26-01234567", True)
    (output / "2026-11-26-01234567").mkdir()
    (output / "2026-11-26-01234567" / "published").touch()
    with pytest.raises(ConfigError, match="another date"):
        choose_night(output, inputs, job)
    with pytest.raises(ConfigError, match="a date such as"):
        choose_night(output, "ff", "yesterday")


def test_two_jobs_in_one_folder_are_refused(place):
    with alone(place / "nights"), pytest.raises(ConfigError, match="found one at work"):
        night(place)


def test_steps_of_other_inputs_are_refused(tmp_path):
    (tmp_path / "night.json").write_text(json.dumps({"inputs": "other", "steps": {}}))
    with pytest.raises(ArtifactError, match="other inputs"):
        read_state(tmp_path, "these")


# Steps that an earlier night has done


def said(found):
    return " ".join(found.said)


def digest(folder):
    return (folder / "model" / "model.json").read_bytes()


def test_a_night_with_another_gate_alone_trains_nothing(place, monkeypatch):
    first = night(place, date="2026-11-24")
    ran, real = [], nightly.call
    monkeypatch.setattr(nightly, "call", lambda arguments: (ran.append(arguments[0]), real(arguments))[1])
    text = (place / "nightly.toml").read_text()
    (place / "nightly.toml").write_text(text.replace("n = 3", "n = 4"))
    second = night(place, date="2026-11-25")
    assert ran == ["train", "promote", "score"]  # train finds its model complete, and registers it
    assert digest(second.folder) == digest(first.folder)
    assert second.steps["check"]["taken_from"] == second.steps["evaluate"]["taken_from"] == first.folder.name
    assert second.steps["score"]["taken_from"] is None
    versions = mlflow.MlflowClient(ModelRegistry().uri).search_model_versions("name = 'books'")
    assert len(versions) == 1


def test_other_ratings_are_trained_on(place):
    first = night(place, date="2026-11-24")
    tastes(seed=1).to_csv(place / "ratings.csv", index=False)
    second = night(place, date="2026-11-25")
    assert {record["taken_from"] for record in second.steps.values()} == {None}
    assert digest(second.folder) != digest(first.folder)


def test_a_refused_night_goes_on_once_the_gate_is_another(place):
    (place / "gates.toml").write_text("coverage = { min = 1.1 }\n")
    refused = CliRunner().invoke(main, ["nightly", "nightly.toml", "--date", "2026-11-24"])
    assert refused.exit_code == 1
    (place / "gates.toml").write_text("coverage = { min = 0.1 }\n")
    first = night(place, date="2026-11-25")  # goes on with the night before: its lists are complete
    assert first.folder.name.startswith("2026-11-24") and "were refused" not in page(place)


def page(folder):
    html = (folder / "nights" / "trend.html").read_text()
    return html.partition("<main>")[2].partition("Measures")[0].partition("legend")[0]


# A warm start


def test_a_champion_of_another_kind_is_no_beginning_and_that_is_said(place):
    night(place, date="2026-11-24")
    plan(place, "ease")
    file = place / "nightly.toml"
    file.write_text(file.read_text().replace('name = "books"', 'name = "books"\nwarm_start = true'))
    second = night(place, date="2026-11-25")
    assert "Trained from the beginning: Expected popularity, the model to start from, found ease" in said(second)
    assert champion() == "2"
    tastes(users=140).to_csv(place / "ratings.csv", index=False)
    third = night(place, date="2026-11-26")
    about = json.loads((third.folder / "model" / "model.json").read_text())
    assert "from the beginning" not in said(third) and about["started_from"]


# Gates


def test_gates_that_compare_with_the_lists_in_use_wait_for_the_second_night(place):
    (place / "gates.toml").write_text("coverage = { min = 0.1 }\noverlap = { min = 0.9 }\n")
    assert night(place, date="2026-11-24").published
    shuffled = tastes().assign(item_id=np.random.default_rng(0).permutation(tastes()["item_id"]))
    shuffled.to_csv(place / "ratings.csv", index=False)
    found = CliRunner().invoke(main, ["nightly", "nightly.toml", "--date", "2026-11-25"])
    assert found.exit_code == 1 and "Not published: overlap is" in " ".join(found.output.split())
    assert (place / "nights" / "CURRENT").read_text().startswith("2026-11-24-")
    assert "The lists of 2026-11-25 were refused" in page(place)


def test_the_measures_of_the_night_are_in_its_run_and_there_is_one_parent(place):
    found = night(place, date="2026-11-24")
    client = mlflow.MlflowClient(ModelRegistry().uri)
    [parent] = runs("tags.`recsys.kind` = 'nightly'")
    assert parent.data.metrics["coverage"] == found.steps["score"]["result"]["manifest"]["measures"]["coverage"]
    children = runs(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.data.tags["recsys.kind"] for run in children} == {"train", "evaluate", "score"}
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["trend.html"]


def test_a_damaged_night_takes_no_part_and_keeps_no_other_from_being_published(place):
    first = night(place, date="2026-11-23")
    record = json.loads((first.folder / "night.json").read_text())
    record["steps"] |= {"promote": {"inputs": "", "result": {"promoted": True, "found": {"difference": 3}}}}
    (first.folder / "night.json").write_text(json.dumps(record))
    second = night(place, date="2026-11-24", force=True)
    html = (place / "nights" / "trend.html").read_text()
    assert second.published and "2026-11-24" in html and "2026-11-23" not in html
    (second.folder / "night.json").write_text("{")
    assert night(place, date="2026-11-25", force=True).published


# Killed for real


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_with_one_parent_run_and_moves_the_alias_once(place):
    """Kill the process three times, a little later each time; then let it finish."""
    plan(place, "ease")
    command = [sys.executable, "-m", "pipelines.cli", "nightly", "nightly.toml", "--date", "2026-11-24"]
    seen = set()
    for marks in ("champion", "model", "lists"):  # folders of the night, in their order
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while job.poll() is None and not list((place / "nights").glob(f"*/{marks}")):
            time.sleep(0.01)
        job.kill()
        seen.add(job.wait())
    assert -9 in seen
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    [folder] = (place / "nights").glob("2026-11-24-*")
    assert (place / "nights" / "CURRENT").read_text().strip() == folder.name
    assert len(runs("tags.`recsys.kind` = 'nightly'")) == 1 and not runs("attributes.status = 'RUNNING'")
    versions = mlflow.MlflowClient(ModelRegistry().uri).search_model_versions("name = 'books'")
    assert len(versions) == 1 and champion() == "1"
    calm = night(place, date="2026-11-25", force=True)
    assert lists(calm.folder) == lists(folder)
