"""Models of sequences through the commands: where the order comes from, and where it is refused."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from recsys.artifacts import load_model


def run(*words):
    return CliRunner().invoke(main, [*map(str, words)])


@pytest.fixture
def files(tmp_path):
    """Thirty users walk round a circle of eight items; with times, and without."""
    rows = [(f"u{user}", f"i{(user + step) % 8}", 1_600_000_000 + step) for user in range(30) for step in range(4)]
    frame = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    frame.iloc[::-1].to_csv(tmp_path / "timed.csv", index=False)  # the newest row first
    frame[["user", "item"]].to_csv(tmp_path / "plain.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(("name", "flags"), [("timed.csv", []), ("plain.csv", ["--order", "rows"])])
def test_a_chain_is_trained_measured_and_asked_by_time_or_by_rows(files, name, flags):
    trained = run("--json", "train", files / name, "-m", "last-item", *flags, "--no-track", "-o", files / "model")
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["metrics"]["ndcg@10"]["mean"] == pytest.approx(1)
    assert load_model(files / "model").about["reading"]["order"] == ("rows" if flags else "time")
    asked = run("--json", "recommend", files / "model", "--items", "i5,i0,i1", "-n", 1)
    assert json.loads(asked.stdout)["items"][0]["item_id"] == "i2"
    measured = run("--json", "evaluate", files / "model", files / name, "--no-track")
    assert json.loads(measured.stdout)["metrics"]["ndcg@10"]["mean"] == pytest.approx(1)
    scored = run("score", files / "model", files / name, "-n", 1, "-o", files / "lists")
    assert scored.exit_code == 0, scored.output
    lists = pd.read_parquet(files / "lists" / "recommendations").set_index("user_id")["item_id"]
    assert lists["u1"] == "i5"


def test_a_file_without_times_is_refused_with_the_flag_that_helps(files):
    found = run("train", files / "plain.csv", "-m", "last-item", "--no-track", "-o", files / "model")
    assert found.exit_code == 1
    assert "Expected times, which decide the order of a history" in found.output
    assert "--order rows" in found.output


def test_a_store_keeps_times_and_rows_and_is_not_told_which_decide(files):
    assert run("prepare", files / "timed.csv", "-o", files / "store").exit_code == 0
    trained = run("train", files / "store", "-m", "last-item", "--no-track", "-o", files / "model")
    assert trained.exit_code == 0, trained.output
    assert "in order of time" in trained.output
    refused = run("prepare", files / "timed.csv", "--order", "rows", "-o", files / "other")
    assert refused.exit_code != 0
    assert "a store keeps times and rows both" in " ".join(refused.output.split())


def test_models_of_sets_and_of_sequences_stand_in_one_table(files):
    words = ["-m", "popularity,last-item,ease", "--protocol", "leave-last-out", "--probes", 0, "--no-track"]
    found = run("--json", "compare", files / "timed.csv", *words, "--metric", "ndcg@10", "-o", files / "compared")
    assert found.exit_code == 0, found.output
    board = pd.read_csv(files / "compared" / "leaderboard.csv").set_index("model")
    assert board["ndcg@10"].idxmax() == "last-item"
    assert {"popularity", "ease"} <= set(board.index)


def test_lists_repeat_the_history_where_that_is_asked_for(files):
    words = ["-m", "popularity", "--protocol", "leave-last-out", "--probes", 0, "--no-baselines", "--no-track"]
    boards = []
    for more in ([], ["--repeats"]):
        run("compare", files / "timed.csv", *words, *more, "--metric", "recall@5", "-o", files / f"c{len(boards)}")
        boards.append(pd.read_csv(files / f"c{len(boards)}" / "leaderboard.csv")["recall@5"][0])
    assert boards[0] == 1  # five items are left
    assert boards[1] < 1
