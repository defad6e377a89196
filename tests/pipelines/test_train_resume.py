"""`recsys train` that is interrupted or killed: what it leaves and says, and that --resume ends with the same bytes."""

import json
import random
import time
from pathlib import Path

import faults
import pytest
from click.testing import CliRunner
from tastes import two_tastes, write_csv

from pipelines.cli.main import main
from recsys.training import checkpoint
from recsys.training.checkpoint_files import list_checkpoints, write_checkpoint

TRAINED = ("-m", "vae", "-s", "epochs=4", "-s", "hidden=8", "-s", "latent=4", "-s", "batch_size=8", "--device", "cpu")
LEFT = Path("model.checkpoint")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "ratings.csv", two_tastes())
    return tmp_path


@pytest.fixture
def interrupt(monkeypatch):
    """Send Ctrl-C to the training after it has written so many checkpoints."""

    def after(count):
        written = []

        def write(*arguments):
            if len(written) == count:
                raise KeyboardInterrupt
            written.append(write_checkpoint(*arguments))

        monkeypatch.setattr(checkpoint, "write_checkpoint", write)

    yield after
    monkeypatch.undo()


def train(*more, output="model", trained=TRAINED, track="--no-track"):
    words = ["train", "ratings.csv", *trained, "-o", output, track, "--checkpoint-every", "0", *more]
    done = CliRunner().invoke(main, words, prog_name="recsys")
    return done.exit_code, " ".join(done.output.split())


def contents(model="model"):
    """The bytes of a model directory; of model.json all but what differs between two runs of one command."""
    about = json.loads((Path(model) / "model.json").read_text())
    files = {file.name: file.read_bytes() for file in Path(model).iterdir() if file.name != "model.json"}
    return files, {key: value for key, value in about.items() if key not in ("created", "run_id")}


@pytest.fixture
def interrupted(interrupt, monkeypatch):
    """A training that was interrupted in its second epoch."""
    interrupt(7)
    code, said = train()
    monkeypatch.setattr(checkpoint, "write_checkpoint", write_checkpoint)
    assert code == 1
    assert not Path("model").exists()
    return said


def test_an_interrupted_training_says_how_to_go_on_and_ends_with_the_same_bytes(interrupted):
    assert "Interrupted. What was trained is in model.checkpoint: run the same command with --resume" in interrupted
    assert sorted(file.suffix for file in LEFT.iterdir()) == [".json", ".safetensors", ".safetensors"]
    code, said = train("--resume")
    assert code == 0, said
    assert "vae: goes on after epoch 1 of 4" in said
    assert not LEFT.exists()
    assert train(output="whole")[0] == 0
    assert contents() == contents("whole")


def test_a_refit_is_resumed_too_and_so_is_a_blend(interrupt, monkeypatch):
    blend = ("-m", "blend", "-s", "members=ease,dae", "-s", "dae.epochs=2", "-s", "dae.latent=4", "--refit")
    interrupt(9)
    assert train(trained=blend)[0] == 1
    assert sorted(path.parent.name for path in LEFT.rglob("*.safetensors")) == ["0-ease", "1-dae", "1-dae", "refit"]
    monkeypatch.setattr(checkpoint, "write_checkpoint", write_checkpoint)
    assert train("--resume", trained=blend)[0] == 0
    assert not LEFT.exists()
    assert train(trained=blend, output="whole")[0] == 0
    assert contents() == contents("whole")


def test_nothing_is_replaced_without_a_flag_and_overwrite_starts_again(interrupted):
    code, said = train()
    assert code == 1
    assert "model.checkpoint holds a training that was interrupted: add --resume to go on with it" in said
    code, said = train("--overwrite")
    assert code == 0
    assert "goes on" not in said
    assert not LEFT.exists()


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        (("-s", "latent=5"), "settings.latent was 4 and is 5"),
        (("--seed", "3"), "seed was 0 and is 3"),
        (("--patience", "2"), "patience was 10 and is 2"),
        (("--metric", "ndcg@10"), "metric was ndcg@100 and is ndcg@10"),
        (("--held-out", "0.2"), "held_out was 0.1 and is 0.2"),
        (("--refit",), "refit was False and is True"),
        (("--min-user-items", "6"), "data was "),
    ],
)
def test_another_training_is_refused_with_what_differs(interrupted, more, differs):
    code, said = train("--resume", *more)
    assert code == 1
    assert f"Expected the same training as the one that was interrupted; {differs}" in said
    assert len(list_checkpoints(LEFT)) == 2


def test_another_number_of_threads_is_said_and_not_refused(interrupted):
    about = json.loads((LEFT / "training.json").read_text())
    about["machine"]["threads"] = 64
    (LEFT / "training.json").write_text(json.dumps(about))
    code, said = train("--resume")
    assert code == 0
    assert "The weights may differ in their last digits" in said
    assert "threads was 64 and is" in said


def test_resume_without_a_checkpoint_starts_from_the_beginning(folder):
    code, said = train("--resume")
    assert code == 0
    assert "There is no checkpoint in model.checkpoint: the training starts from its beginning." in said


def test_resume_of_a_complete_training_changes_nothing_and_of_another_is_refused(folder):
    assert train()[0] == 0
    before = (Path("model") / "model.json").read_bytes()
    code, said = train("--resume")
    assert code == 0
    assert "model is complete already: nothing to resume." in said
    assert (Path("model") / "model.json").read_bytes() == before
    code, said = train("--resume", "--seed", "5")
    assert code == 1
    assert "model already holds something" in said


def test_a_kill_after_the_model_is_saved_is_resumed_to_its_end(interrupt, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoints, "remove", lambda self: exec("raise KeyboardInterrupt"))
        assert train()[0] == 1
    expected = contents()
    assert list_checkpoints(LEFT)
    code, said = train("--resume")
    assert code == 0, said
    assert contents() == expected
    assert not LEFT.exists()


def test_inf_keeps_nothing_and_a_negative_number_is_refused(interrupt):
    interrupt(0)
    assert train("--checkpoint-every", "inf")[0] == 0
    code, said = train("--checkpoint-every", "-1", output="other")
    assert code == 1
    assert (
        "Expected checkpoint_every of 0 seconds or more, found -1.0. (On the command line: --checkpoint-every.)" in said
    )


@pytest.mark.slow
def test_a_tracked_run_goes_on_as_the_same_run(interrupt, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').absolute()}")
    interrupt(7)
    assert train(track="--track")[0] == 1
    run_id = json.loads((LEFT / "training.json").read_text())["run_id"]
    monkeypatch.setattr(checkpoint, "write_checkpoint", write_checkpoint)
    assert train("--resume", track="--track")[0] == 0
    assert json.loads(Path("model/model.json").read_text())["run_id"] == run_id
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_run(run_id).info.experiment_id])
    assert run.info.status == "FINISHED"
    assert [one.step for one in client.get_metric_history(run_id, "loss")] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "ials"])
def test_kills_at_random_moments_end_with_the_same_bytes(model, folder):
    faults.import_everything()
    settings = TRAINED[2:] if model == "vae" else ("-s", "iterations=30", "-s", "factors=8", "--device", "cpu")
    words = ["train", str(folder / "ratings.csv"), "-m", model, *settings, "--no-track", "--checkpoint-every", "0"]
    started = time.perf_counter()
    assert faults.run_in_fork([*words, "-o", str(folder / "whole")])[0] == 0
    seconds, chance = time.perf_counter() - started, random.Random(model)
    for number in range(3):
        out, again = folder / str(number), []
        for share in (chance.random(), chance.random(), None):
            moment = None if share is None else share * seconds
            code, said = faults.run_in_fork([*words, "-o", str(out), *again], kill_after=moment)
            assert code in (0, -9), said
            again = ["--resume"]
        assert contents(out) == contents(folder / "whole")
        assert not (folder / f"{number}.checkpoint").exists()
