"""No silence: where no bar is watched, a line says what is being done every few seconds; a fit says what it kept."""

import time

import pytest

from pipelines.cli import progress
from pipelines.cli.progress import activity, fit_progress, trials_progress, watch
from recsys.training.context import Epoch
from recsys.tuning import Budget


@pytest.fixture
def impatient(monkeypatch):
    """A line after a hundredth of a second."""
    monkeypatch.setattr(progress, "QUIET", 0.01)


def epochs(*values):
    best = max(values)
    return [Epoch(number, 1.0, value, 0.1, 0.1, value == best) for number, value in enumerate(values, start=1)]


def test_long_work_is_told_and_short_work_is_not(impatient, capsys):
    with activity("reading ratings.csv"):
        time.sleep(0.1)
    assert "reading ratings.csv: 0 s" in capsys.readouterr().err
    progress.QUIET = 10
    with activity("reading ratings.csv"):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_the_innermost_activity_speaks(impatient, capsys):
    with activity("outer"), activity("inner"):
        time.sleep(0.1)
    err = capsys.readouterr().err
    assert "inner" in err and "outer" not in err


def test_an_activity_that_fails_ends(impatient, capsys):
    with pytest.raises(ValueError, match="no"), activity("failing"):
        raise ValueError("no")
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_phases_and_steps_of_a_fit_are_told(impatient, capsys):
    with fit_progress("ease", "ndcg@10") as fit:
        fit.phase("inverting the matrix", 0, 1)
        time.sleep(0.1)
        fit.step(3, 20)
        time.sleep(0.1)
    err = capsys.readouterr().err
    assert "ease: inverting the matrix, 0 s" in err
    assert "ease: epoch 1, step 3/20, 0 s" in err


def test_early_stopping_says_where_it_stopped_and_what_it_kept(capsys):
    with fit_progress("vae", "ndcg@10") as fit:
        for epoch in epochs(0.1, 0.3, 0.2, 0.2):
            fit.epoch(epoch, 100)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "vae: stopped after epoch 4 of 100: no better ndcg@10 for 2 epochs; kept epoch 2 (ndcg@10 0.3000)"


def test_a_fit_of_all_epochs_says_which_it_kept_and_one_without_validation_nothing(capsys):
    with fit_progress("dae", "rmse") as fit:
        for epoch in epochs(-2.0, -1.0):  # higher is better inside: an error counts negatively
            fit.epoch(epoch, 2)
    assert capsys.readouterr().err.splitlines()[-1] == "dae: all 2 epochs done; kept epoch 2 (rmse 1.0000)"
    with fit_progress("dae", "rmse") as fit:
        fit.epoch(Epoch(1, 0.5, None, 0.1, 0.0, False), 1)
    assert "kept" not in capsys.readouterr().err


def test_files_and_trials_are_counted(impatient, capsys):
    for _ in watch(range(3), 3, "scoring", "file"):
        time.sleep(0.05)
    err = capsys.readouterr().err
    assert "scoring: 1 of 3 files, 0 s" in err
    with trials_progress("vae", Budget(3)):
        time.sleep(0.05)
    assert "tune vae: 0 s" in capsys.readouterr().err
