import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import pipelines.nightly as nightly
from pipelines.cli.main import main
from pipelines.cli.nights import STEPS, alone, choose_night, fingerprint, read_plan, read_state
from pipelines.nightly import NightlyJob, run
from recsys.errors import ArtifactError, ConfigError, DataError
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


@pytest.fixture
def place(tmp_path, monkeypatch):
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
    children = mlflow.MlflowClient(ModelRegistry().uri).search_runs(["1"], "tags.`recsys.kind` = 'nightly'")
    assert len(children) == 2

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
