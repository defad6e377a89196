import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from matplotlib.figure import Figure

from recsys.system.packages import install_hint
from recsys.tracking.mlflow_tracker import MLflowTracker, open_tracker
from recsys.tracking.tracker import NullTracker

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take seconds to make, and none of our experiments."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with MLflowTracker(f"sqlite:///{file}", experiment="template").run("first", "train") as run:
        assert run.id
    return file


@pytest.fixture
def tracker(empty_database, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return MLflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}")


def stored(tracker, run):
    """The run as MLflow gives it back."""
    return mlflow.MlflowClient(tracker.uri).get_run(run.id)


def stored_files(tracker, run, folder=None):
    return [file.path for file in mlflow.MlflowClient(tracker.uri).list_artifacts(run.id, folder)]


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# What is kept


def test_parameters_are_flattened_with_dots(tracker):
    with tracker.run("vae", "train") as run:
        run.log_params({"model": {"hidden": (600, 200), "vae": {"beta": 0.2}}, "seed": 7, "limit": None})
    assert stored(tracker, run).data.params == {
        "model.hidden": "(600, 200)",
        "model.vae.beta": "0.2",
        "seed": "7",
        "limit": "None",
    }


def test_a_parameter_too_long_for_mlflow_is_cut_and_says_so(tracker, caplog):
    with tracker.run("vae", "train") as run:
        run.log_params({"files": "x" * 7000, "fits": "y" * 6000})
    params = stored(tracker, run).data.params
    assert len(params["files"]) == 6000
    assert params["files"].endswith("(7000 characters, cut)")
    assert params["fits"] == "y" * 6000
    assert messages(caplog) == []


def test_more_parameters_than_fit_a_batch_are_all_kept(tracker):
    with tracker.run("vae", "train") as run:
        run.log_params({f"p{i}": i for i in range(101)})
    assert len(stored(tracker, run).data.params) == 101


def test_metrics_keep_their_steps_and_at_signs_are_spelled_out(tracker):
    with tracker.run("vae", "train") as run:
        run.log_metrics({"ndcg@100": 0.2, "loss": 3.0}, step=1)
        run.log_metrics({"ndcg@100": 0.3, "loss": 2.0}, step=2)
    history = mlflow.MlflowClient(tracker.uri).get_metric_history(run.id, "ndcg_at_100")
    assert [(point.step, point.value) for point in history] == [(1, 0.2), (2, 0.3)]
    assert stored(tracker, run).data.metrics["loss"] == 2.0


def test_nan_is_kept_and_infinity_is_left_out_with_a_warning(tracker, caplog):
    with tracker.run("vae", "train") as run:
        run.log_metrics({"loss": float("nan"), "rate": float("inf"), "gap": -float("inf")})
    metrics = stored(tracker, run).data.metrics
    assert list(metrics) == ["loss"]
    assert metrics["loss"] != metrics["loss"]
    assert messages(caplog) == ["Expected finite metrics, found infinite gap, rate: not tracked."]


def test_a_run_records_the_code_that_made_it(tracker):
    with tracker.run("vae", "train") as run:
        run.set_tags({"recsys.data_hash": "abc"})
    tags = stored(tracker, run).data.tags
    assert tags["recsys.kind"] == "train"
    assert tags["recsys.data_hash"] == "abc"
    assert tags["recsys.python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"recsys.version", "recsys.schema_version", "recsys.torch", "recsys.command"} <= set(tags)


def test_a_password_in_the_command_is_not_kept(tracker, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/recsys", "train", "--tracking-uri", "http://ann:secret@host:5000/x"])
    with tracker.run("vae", "train") as run:
        pass
    assert stored(tracker, run).data.tags["recsys.command"] == "recsys train --tracking-uri http://***@host:5000/x"


def test_secrets_in_parameters_tags_and_data_are_not_kept(tracker):
    address = "https://account.blob/x?sv=1&sig=5ecret%3D"
    with tracker.run("vae", "train") as run:
        run.log_params({"model": address, "nested": {"ratings": "s3://key:5ecret/5ecret@bucket/x"}})
        run.set_tags({"recsys.source": f"{address}&token=5ecret"})
        run.log_dataset(address, "ab" * 32, {"source": address})
    found = stored(tracker, run)
    assert "sig=***" in found.data.params["model"]
    assert "5ecret" not in json.dumps([found.data.params, found.data.tags])
    assert "5ecret" not in str(found.inputs.dataset_inputs)


def test_a_dataset_is_known_by_its_fingerprint(tracker):
    with tracker.run("vae", "train") as run:
        run.log_dataset("ratings.csv", "ab" * 32, {"users": 3}, context="validation")
    (entry,) = stored(tracker, run).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("ratings.csv", "ab" * 18)  # MLflow keeps 36 characters
    assert json.loads(entry.dataset.profile) == {"fingerprint": "ab" * 32, "users": 3}
    assert entry.tags[0].value == "validation"


def test_metrics_are_those_of_the_model_that_a_run_makes_or_uses_on_its_data(tracker, tmp_path):
    def model():
        (tmp_path / "code.py").write_text(
            "import mlflow\n\nclass Model(mlflow.pyfunc.PythonModel):\n    def predict(self, model_input: list[str]):\n"
            "        return model_input\n\nmlflow.models.set_model(Model())\n"
        )
        return {"python_model": str(tmp_path / "code.py"), "pip_requirements": []}

    with tracker.run("vae", "train") as training:
        training.log_dataset("ratings", "ab" * 16, {})
        training.log_metrics({"loss": 3.0})  # before there is a model
        training.log_model(model)
        training.log_metrics({"ndcg": 0.4})
    with tracker.run("vae", "evaluate") as evaluation:
        evaluation.log_dataset("others", "cd" * 16, {})
        evaluation.use_model(training.id)
        evaluation.log_metrics({"recall": 0.5})
        evaluation.use_model("0" * 32)  # kept elsewhere
        evaluation.log_metrics({"seconds": 1.0})
    [made] = stored(tracker, training).outputs.model_outputs
    [used] = stored(tracker, evaluation).inputs.model_inputs
    assert used.model_id == made.model_id
    found = mlflow.MlflowClient(tracker.uri).get_logged_model(made.model_id).metrics
    assert {(one.key, one.value, one.dataset_name, one.dataset_digest) for one in found} == {
        ("ndcg", 0.4, "ratings", "ab" * 16),
        ("recall", 0.5, "others", "cd" * 16),
    }
    assert stored(tracker, evaluation).data.metrics == {"recall": 0.5, "seconds": 1.0}


def test_files_folders_and_figures_are_copied_into_the_run(tracker, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.html").write_text("<p>")
    (tmp_path / "board.csv").write_text("model,ndcg")
    with tracker.run("all", "compare") as run:
        run.log_artifact(tmp_path / "board.csv")
        run.log_artifact(tmp_path / "report", "out")
        run.log_figure(Figure(), "curve")
    assert stored_files(tracker, run) == ["board.csv", "curve.png", "out"]
    assert stored_files(tracker, run, "out/report") == ["out/report/page.html"]
    assert (tmp_path / "mlruns").is_dir()  # beside the database


def test_a_run_inside_a_run_is_its_child_and_the_next_one_is_not(tracker):
    with tracker.run("all", "compare") as parent:
        with tracker.run("vae", "train") as child:
            pass
        with tracker.run("als", "train") as sibling:
            pass
    with tracker.run("later", "train") as later:
        pass
    assert stored(tracker, child).data.tags["mlflow.parentRunId"] == parent.id
    assert stored(tracker, sibling).data.tags["mlflow.parentRunId"] == parent.id
    assert "mlflow.parentRunId" not in stored(tracker, later).data.tags


def test_a_figure_is_drawn_only_where_figures_are_kept_and_its_errors_are_warnings(tracker, caplog):
    def figure_that_fails():
        raise ImportError("no matplotlib")

    with NullTracker().run("vae", "train") as run:
        run.log_figure(figure_that_fails, "curve")
    assert messages(caplog) == []
    with tracker.run("vae", "train") as run:
        run.log_figure(figure_that_fails, "curve")
        run.log_figure(Figure, "empty")
    assert stored_files(tracker, run) == ["empty.png"]
    assert len(messages(caplog)) == 1


# How a run ends


def test_a_run_ends_finished_failed_or_killed_and_the_error_passes_unchanged(tracker):
    def run_that_raises(error):
        with tracker.run("vae", "train") as run:
            runs.append(run)
            if error:
                raise error

    runs, failure = [], ValueError("no rows")
    run_that_raises(None)
    with pytest.raises(ValueError, match="no rows") as caught:
        run_that_raises(failure)
    with pytest.raises(KeyboardInterrupt):
        run_that_raises(KeyboardInterrupt())
    assert caught.value is failure
    assert [stored(tracker, run).info.status for run in runs] == ["FINISHED", "FAILED", "KILLED"]
    assert stored(tracker, runs[1]).data.tags["recsys.error"] == "ValueError: no rows"


# Failures of tracking


def test_the_run_of_an_interrupted_job_goes_on_and_nothing_is_recorded_twice(tracker):
    class KilledError(Exception):
        """Leaves the run as a kill would."""

    def record(run, losses):
        run.log_params({"latent": 4})
        run.log_dataset("interactions", "abc", {"rows": 2})
        for epoch, loss in enumerate(losses, start=1):
            run.log_metrics({"loss": loss}, step=epoch)

    with pytest.raises(KilledError), tracker.run("train vae", "train") as first:
        record(first, [3.0, 2.0])
        raise KilledError
    with tracker.run("train vae", "train", first.id) as again:
        record(again, [3.0, 2.0, 1.0])
    found, client = stored(tracker, again), mlflow.MlflowClient(tracker.uri)
    assert again.id == first.id
    assert found.info.status == "FINISHED"
    assert [(one.step, one.value) for one in client.get_metric_history(again.id, "loss")] == [(1, 3), (2, 2), (3, 1)]
    assert len(found.inputs.dataset_inputs) == 1


def test_what_ran_inside_a_killed_run_does_not_look_alive_when_it_goes_on(tracker):
    client = mlflow.MlflowClient(tracker.uri)
    with tracker.run("nightly", "nightly") as first, tracker.run("train", "train") as child:
        pass
    for run in (first, child):
        client.update_run(run.id, status="RUNNING")  # as a kill leaves them
    with tracker.run("nightly", "nightly", first.id):
        assert stored(tracker, child).info.status == "KILLED"
    assert stored(tracker, first).info.status == "FINISHED"


def test_where_the_earlier_run_is_gone_a_new_one_names_it(tracker):
    with tracker.run("train vae", "train", "0" * 32) as run:
        run.log_metrics({"loss": 1.0}, step=1)
    assert stored(tracker, run).data.tags["recsys.resumed_from"] == "0" * 32
    mlflow.MlflowClient(tracker.uri).delete_run(run.id)
    with tracker.run("train vae", "train", run.id) as next_one:
        pass
    assert next_one.id != run.id


def test_a_failing_call_is_one_warning_and_the_rest_of_the_run_is_kept(tracker, caplog, tmp_path):
    with tracker.run("vae", "train") as run:
        run.log_params({"seed": 1})
        run.log_params({"seed": 2})  # MLflow refuses to change a parameter
        run.log_artifact(tmp_path / "absent.csv")
        run.log_metrics({"loss": 1.0})
    (warning,) = messages(caplog)
    assert "failed in logging parameters" in warning
    assert stored(tracker, run).data.metrics == {"loss": 1.0}
    assert stored(tracker, run).info.status == "FINISHED"


@pytest.mark.timeout(60)  # MLflow's own patience is minutes, at every call
def test_a_server_that_does_not_answer_costs_one_warning_and_nothing_else(closed_port, caplog):
    tracker, done = MLflowTracker(f"http://ann:secret@127.0.0.1:{closed_port}"), []
    with tracker.run("all", "compare") as parent:
        for name in ("vae", "als"):
            with tracker.run(name, "train") as run:
                run.log_metrics({"loss": float("inf")}, step=1)
                done.append(name)
    assert done == ["vae", "als"]
    assert parent.id is None and run.id is None
    (warning,) = messages(caplog)
    assert "failed in opening the run" in warning and "secret" not in warning


def test_the_error_of_the_job_is_not_hidden_by_a_server_that_does_not_answer(closed_port):
    with pytest.raises(ZeroDivisionError), MLflowTracker(f"http://127.0.0.1:{closed_port}").run("vae", "train"):
        raise ZeroDivisionError


def test_a_tracker_that_has_lost_too_much_time_tries_nothing_more(tracker, caplog):
    with tracker.run("vae", "train") as run:
        tracker.add_lost_seconds(60)
        run.log_metrics({"loss": 1.0})
        with tracker.run("als", "train") as child:
            pass
    assert child.id is None
    assert stored(tracker, run).data.metrics == {}
    assert stored(tracker, run).info.status == "FINISHED"  # it would look alive for ever


def test_the_environment_and_the_logging_of_the_caller_are_left_alone(tracker, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before, level = dict(os.environ), logging.getLogger("mlflow").level
    with tracker.run("vae", "train") as run:
        assert dict(os.environ) == before
        run.log_metrics({"loss": 1.0})
    assert dict(os.environ) == before
    assert logging.getLogger("mlflow").level == level
    assert mlflow.active_run() is None


def in_a_new_process(code, folder, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST"))}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FIRST_RUN = """
    from recsys.tracking.mlflow_tracker import open_tracker
    with open_tracker(True).run("vae", "train") as run:
        run.log_metrics({"loss": 1.0})
        print(run.id)
"""


@pytest.mark.slow
def test_processes_that_create_the_same_database_at_once_all_track_without_output(tmp_path):
    results = [job.communicate(timeout=120) for job in [in_a_new_process(FIRST_RUN, tmp_path) for _ in range(3)]]
    assert [errors for _, errors in results] == ["", "", ""]
    ids = [out.strip() for out, _ in results]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'recsys'")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == set(ids)


@pytest.mark.slow
def test_a_run_is_tracked_over_http_with_its_files(tmp_path, empty_database, closed_port):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"http://127.0.0.1:{closed_port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(closed_port)]
    store = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "files", "--workers", "1"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([*command, *store], cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(closed_port, server, seconds=90)
        job = in_a_new_process(
            FIRST_RUN + "        run.log_artifact(__import__('pathlib').Path('log'))", tmp_path, MLFLOW_TRACKING_URI=uri
        )
        out, errors = job.communicate(timeout=60)
        assert errors == ""
        found = mlflow.MlflowClient(uri).get_run(out.strip())
        assert (found.info.status, found.data.metrics) == ("FINISHED", {"loss": 1.0})
        assert [file.path for file in mlflow.MlflowClient(uri).list_artifacts(out.strip())] == ["log"]
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(port, server, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail("the MLflow server did not start")


# Where runs are kept


def test_the_address_is_the_argument_then_the_environment_then_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert MLflowTracker().uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert MLflowTracker().uri == "http://host:5000"
    assert MLflowTracker("sqlite:///other/a.db").uri == f"sqlite:///{tmp_path / 'other' / 'a.db'}"


def test_opening_a_tracker_does_not_import_mlflow(tmp_path):
    code = "from recsys.tracking.mlflow_tracker import open_tracker; open_tracker(True)"
    code += "; import sys; print('mlflow' in sys.modules)"
    out, errors = in_a_new_process(code, tmp_path).communicate(timeout=60)
    assert (out.strip(), errors) == ("False", "")


def test_without_tracking_or_without_mlflow_nothing_is_kept(monkeypatch, caplog):
    assert isinstance(open_tracker(enabled=False), NullTracker)
    assert messages(caplog) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tracker = open_tracker(enabled=True)
    assert isinstance(tracker, NullTracker)
    assert install_hint("mlflow") in messages(caplog)[0]


def test_the_null_tracker_takes_every_call(tmp_path):
    tracker = NullTracker()
    with tracker.run("vae", "train") as run:
        run.log_params({"seed": 1})
        run.log_metrics({"loss": 1.0}, step=1)
        run.set_tags({"a": "b"})
        run.log_dataset("ratings.csv", "ab", {})
        run.log_artifact(tmp_path)
        run.log_figure(Figure(), "curve")
        run.log_model(dict)
    assert (run.id, tracker.uri) == (None, None)
