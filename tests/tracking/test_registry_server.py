"""From a model to production against a real `mlflow server` with SQLite: README's commands, and every MODEL."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow_server import mlflow_server, served
from paths import ROOT

from pipelines.cli.main import COMMANDS, main
from recsys.tracking.registry import STATUS

mlflow = pytest.importorskip("mlflow")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

README = (ROOT / "README.md").read_text(encoding="utf-8")
RATINGS = "data/sample/ratings.csv"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A folder with the sample, in which README's commands have run, and the address of the server."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
    with mlflow_server(folder) as address:
        yield folder, address


@contextmanager
def inside(server):
    """Run commands of this process in the folder, with the server's registry."""
    folder, address = server
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", address)
        yield


def recsys(server, line, code=0):
    """Run a command; its output."""
    with inside(server):
        found = CliRunner().invoke(main, shlex.split(line.removeprefix("recsys "), comments=True))
    assert found.exit_code == code, f"{line}\n{found.output}\n{found.exception!r}"
    return found.output


@pytest.fixture(scope="module")
def champion(server):
    """README's commands for production, run in their order; those that serve are returned."""
    [block] = [text for text in re.findall(r"^```bash\n(.*?)^```", README, re.M | re.S) if "--register" in text]
    lines = [line.split("  #")[0].strip() for line in block.splitlines()]
    waiting = [line for line in lines if " serve " in line]
    for line in lines:
        if line not in waiting:
            recsys(server, line)
    return server, waiting


def client(server):
    return mlflow.MlflowClient(server[1])


def alias(server, name, which):
    return client(server).get_model_version_by_alias(name, which).version


def model_of(server, version):
    """The LoggedModel of a version, whose page in MLflow shows its metrics and data."""
    return client(server).get_logged_model(version.source.removeprefix("models:/"))


def ask(address, body=None, timeout=30):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def test_the_commands_of_the_readme_make_a_champion_and_its_lists(champion):
    server, waiting = champion
    assert len(waiting) == 2
    found = client(server).get_model_version_by_alias("books", "champion")
    assert (found.version, alias(server, "books", "challenger")) == ("1", "1")
    assert found.tags[STATUS] == "passed" and "first champion" in found.description
    assert list((server[0] / "tonight" / "recommendations").iterdir())


def test_the_page_of_the_model_shows_its_metrics_and_data_and_the_runs_that_used_it(champion):
    server, _ = champion
    recsys(server, f"recsys evaluate models:/books@champion {RATINGS}")
    model = model_of(server, client(server).get_model_version_by_alias("books", "champion"))
    model_id = model.model_id
    training = client(server).get_run(model.source_run_id)
    [data] = training.inputs.dataset_inputs
    kinds = {}
    for metric in model.metrics:
        kind = client(server).get_run(metric.run_id).data.tags["recsys.kind"]
        kinds.setdefault(kind, {})[metric.key] = metric
        assert metric.dataset_name == "interactions" and metric.dataset_digest
    assert {"train", "evaluate", "score"} <= set(kinds)
    assert kinds["train"]["ndcg_at_100"].value == training.data.metrics["ndcg_at_100"]
    assert kinds["train"]["ndcg_at_100"].dataset_digest == data.dataset.digest
    assert kinds["score"]["coverage"].value > 0
    for kind in ("score", "evaluate"):
        runs = client(server).search_runs([training.info.experiment_id], f"tags.`recsys.kind` = '{kind}'")
        found = [client(server).get_run(run.info.run_id) for run in runs]
        assert {used.model_id for run in found for used in run.inputs.model_inputs} == {model_id}


def test_a_better_one_takes_over_a_worse_one_does_not_and_a_rollback_brings_the_first_back(server):
    for number, name in enumerate(("popularity", "ease"), start=1):
        train = f"recsys train {RATINGS} -m {name} --held-out 0 --test-bucket 0.3 --register duel -o duel-{name}"
        recsys(server, train)
        assert alias(server, "duel", "challenger") == str(number)
        recsys(server, f"recsys promote duel {RATINGS}")
        assert alias(server, "duel", "champion") == str(number)
    assert alias(server, "duel", "previous") == "1"
    winner = client(server).get_model_version("duel", "2")
    [metric] = [one for one in model_of(server, winner).metrics if one.key == "gain"]
    assert metric.value > 0 and winner.tags[STATUS] == "passed"

    recsys(server, f"recsys train {RATINGS} -m popularity --held-out 0 --test-bucket 0.3 --register duel -o worse")
    assert "does not take over" in " ".join(recsys(server, f"recsys promote duel {RATINGS}", code=1).split())
    assert alias(server, "duel", "champion") == "2" and alias(server, "duel", "challenger") == "3"
    assert client(server).get_model_version("duel", "3").tags[STATUS] == "failed"

    recsys(server, "recsys promote duel --rollback")
    assert alias(server, "duel", "champion") == "1"
    listed = json.loads(recsys(server, "--json recommend models:/duel@champion --items i037 -n 3"))
    direct = json.loads(recsys(server, "--json recommend duel-popularity --items i037 -n 3"))
    assert {**listed, "notes": None} == {**direct, "notes": None}


# A command for every model: what it says with the address is what it says with the folder.
TITLES = "--titles data/sample/items.csv"
COMMANDS_OF_A_MODEL = {
    "recommend": "{} --items i037,i039 -n 3",
    "score": "{} " + RATINGS + " -n 3 --overwrite",
    "evaluate": "{} " + RATINGS,
    "explain": "{} --user u251 --ratings " + RATINGS,
    "similar": "{} --item i037",
    "encode": "{} " + RATINGS + " -o vectors.parquet --overwrite",
    "map": "{} " + TITLES + " -o map.html",
    "audit": "{} " + RATINGS + " -o audit.csv",
    "explore": "{} " + TITLES + " -o explorer.html",
    "generate": "{} " + RATINGS + " --users 20 -o made.csv --overwrite",
    "predict": "{} " + RATINGS + " --ratings " + RATINGS + " -o predicted.parquet --overwrite",
}
MODELS = {
    "books": "edlae --test-bucket 0.1",
    "people": "vae -s hidden=20 -s latent=8 -s epochs=2",
    "stars": "biases",
}
MODEL_OF = {"generate": "people", "predict": "stars"}


@pytest.fixture(scope="module")
def registered(champion):
    server, _ = champion
    for name in ("people", "stars"):
        recsys(server, f"recsys train {RATINGS} -m {MODELS[name]} --held-out 0 --register {name} -o {name}")
        recsys(server, f"recsys promote {name} {RATINGS}")
    return server


@pytest.mark.parametrize("command", COMMANDS_OF_A_MODEL)
def test_every_command_takes_a_registered_model(registered, command):
    name = MODEL_OF.get(command, "books")
    said = recsys(registered, f"recsys {command} {COMMANDS_OF_A_MODEL[command].format(f'models:/{name}@champion')}")
    assert f"models:/{name}@champion is version 1" in said


def test_the_table_of_commands_is_complete():
    taking = {name for name in COMMANDS if any(one.name == "model" for one in arguments(name))}
    assert taking == {*COMMANDS_OF_A_MODEL, "serve"}


def arguments(name):
    return [one for one in main.get_command(None, name).params if type(one).__name__ == "Argument"]


# Requests


def test_the_service_of_recsys_answers_from_the_registry(champion):
    (folder, address), [line, _] = champion
    words = shlex.split(line)
    environment = {"MLFLOW_TRACKING_URI": address}
    with served(words[1:], folder, ("pipelines.cli",), environment, name="service") as place:
        found = ask(f"{place}/recommend/u251?n=3")
    told = json.loads(
        recsys((folder, address), f"--json recommend models:/books@champion --user u251 --ratings {RATINGS} -n 3")
    )
    assert [one["item_id"] for one in found["items"]] == [one["item_id"] for one in told["items"]]


def test_mlflow_serves_the_champion_and_refuses_a_bad_request_with_the_reason(champion):
    (folder, address), [_, line] = champion
    words = list(shlex.split(line)[1:])
    at = words.index("--port")
    del words[at : at + 2]
    environment = {"MLFLOW_TRACKING_URI": address}
    with served(words, folder, environment=environment, name="scoring") as place:
        rows = [{"user_id": "new", "item_id": "i037"}, {"user_id": "new", "item_id": "i039"}]
        answer = ask(f"{place}/invocations", {"dataframe_records": rows, "params": {"n": 3, "exclude_items": ["i001"]}})
        assert [row["rank"] for row in answer["predictions"]] == [1, 2, 3]
        told = json.loads(recsys((folder, address), "--json recommend models:/books@champion --items i037,i039 -n 3"))
        assert [row["item_id"] for row in answer["predictions"]] == [one["item_id"] for one in told["items"]]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{place}/invocations", {"dataframe_records": rows, "params": {"n": 0}})
        assert refused.value.code == 400 and "n of at least 1" in refused.value.read().decode()


def test_mlflow_predicts_from_a_file(champion):
    (folder, address), _ = champion
    pd.DataFrame({"user_id": ["007", "007"], "item_id": ["i037", "i039"]}).to_json(folder / "rows.json", orient="split")
    table = json.loads((folder / "rows.json").read_text())
    (folder / "rows.json").write_text(json.dumps({"dataframe_split": table, "params": {"n": 2}}))
    command = ["models", "predict", "--model-uri", "models:/books@champion", "--env-manager", "local"]
    files = ["--input-path", "rows.json", "--output-path", "answer.json"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": address}
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *command, *files],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((folder / "answer.json").read_text())["predictions"]
    assert [(row["user_id"], row["rank"]) for row in rows] == [("007", 1), ("007", 2)]
