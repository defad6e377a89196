"""`train --init-from`, `--grow`, `--keep-gram` and `--encoder-from` as a person meets them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main

TINY = ("-s", "hidden=8", "-s", "latent=4", "-s", "epochs=10")


def call(*words):
    done = CliRunner().invoke(main, [str(word) for word in words], prog_name="recsys")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def works(*words):
    code, output = call(*words)
    assert code == 0, output
    return output


def refused(text, *words):
    code, output = call(*words)
    assert code == 1
    assert text in " ".join(output.split())


@pytest.fixture(autouse=True)
def old_and_new(tmp_path, monkeypatch):
    """old.csv and new.csv: 60 people of two tastes; the new one has more rows, more people and another item."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [
        (f"u{u}", f"i{i:02d}", 1 + (u * i) % 5) for u in range(70) for i in range(u % 2, 24, 2) if rng.random() < 0.8
    ]
    table = pd.DataFrame(rows, columns=["userId", "movieId", "rating"])
    old = (table.userId.str[1:].astype(int) < 60) & (table.movieId != "i03") & (rng.random(len(table)) < 0.9)
    pd.concat([table[old], table[~old]]).to_csv("new.csv", index=False)
    table[old].to_csv("old.csv", index=False)


def train(file, output, *words):
    """What it said, on one line."""
    return " ".join(works("train", file, "-o", output, "--no-track", *words).split())


def about(folder):
    return json.loads(Path(folder, "model.json").read_text(encoding="utf-8"))


def test_a_network_goes_on_from_its_folder_with_its_settings_and_the_reading_of_its_ratings():
    train("old.csv", "old", "-m", "vae", *TINY, "--min-rating", "2")
    said = train("new.csv", "new", "--init-from", "old")
    assert "Read as in training: --min-rating 2" in said
    assert "18 of 19 items are known to the model to start from" in said
    assert about("new")["config"] == about("old")["config"]
    assert about("new")["started_from"]["new_items"] == 1
    train("new.csv", "newer", "--init-from", "new", "--refit", "-s", "epochs=5")
    assert len(about("newer")["started_from"]["chain"]) == 2


def test_a_catalog_that_grows_keeps_its_positions():
    train("old.csv", "old", "-m", "ials", "-s", "factors=4")
    train("new.csv", "new", "--init-from", "old", "--grow", "--refit")
    before, after = (pd.read_parquet(f"{folder}/items.parquet").item_id.tolist() for folder in ("old", "new"))
    assert after == [*before, "i03"]
    works("score", "new", "new.csv", "-o", "lists", "-n", "5", "--no-track")


def test_ease_adds_the_new_rows_to_the_gram_matrix_it_kept():
    train("old.csv", "old", "-m", "ease", "-s", "l2=5", "--keep-gram", "--refit")
    assert "exact" in train("new.csv", "new", "--init-from", "old", "--refit")
    train("new.csv", "full", "-m", "ease", "-s", "l2=5", "--refit")
    assert about("new")["files"]["weights.safetensors"] == about("full")["files"]["weights.safetensors"]
    train("old.csv", "plain", "-m", "ease")
    assert "fitted in full, because" in train("new.csv", "again", "--init-from", "plain")


def test_ratings_begin_with_the_encoder_of_a_log():
    train("new.csv", "log", "-m", "vae", *TINY)
    said = train("old.csv", "stars", "--task", "rating", "--encoder-from", "log", "-s", "epochs=3")
    assert "layers that begin with its weights: encoder, hidden, posterior" in said
    assert (about("stars")["model"], about("stars")["config"]["side"]) == ("rating-vae", "user")
    assert about("stars")["encoder_from"]["name"] == "vae"


def test_what_does_not_go_together_is_refused_before_anything_is_read():
    train("old.csv", "old", "-m", "vae", *TINY)
    refused("found grow alone", "train", "new.csv", "--grow", "-o", "x", "--no-track")
    refused(
        "Expected vae, the model to start from, found ease",
        "train",
        "no.csv",
        "--init-from",
        "old",
        "-m",
        "ease",
        "-o",
        "x",
    )
    refused("latent 4 (now 9)", "train", "no.csv", "--init-from", "old", "-s", "latent=9", "-o", "x")
    refused("found both", "train", "no.csv", "--init-from", "old", "--encoder-from", "old", "-o", "x")
    refused("of the other one", "train", "no.csv", "--init-from", "old", "--task", "rating", "-o", "x")
    refused("Expected a model directory", "train", "no.csv", "--init-from", "nothing", "-o", "x")
    assert not Path("x").exists()


def test_ratings_of_another_world_are_refused():
    train("old.csv", "old", "-m", "vae", *TINY)
    table = pd.read_csv("new.csv")
    table.assign(movieId="x" + table.movieId).to_csv("other.csv", index=False)
    refused("found none among 24", "train", "other.csv", "--init-from", "old", "-o", "x", "--no-track")
