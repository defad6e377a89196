"""`recsys explain`: the sentence, the table, what is refused, and the evaluation of explanations."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scoring_case import save_popularity, write_ratings

from pipelines.cli.main import main
from pipelines.explain import ExplainJob, run
from recsys.artifacts import save_model
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import ConfigError
from recsys.models import create_model
from recsys.models.trained import TrainedModel

LETTERS = "abcdefghijkl"  # the first six for one taste, the others for another, with exceptions
CHANCE = np.where((np.arange(40) % 2)[:, None] == (np.arange(12) >= 6), 0.7, 0.15)
DRAWN = np.random.default_rng(0).random((40, 12)) < CHANCE
TASTES = {f"u{number}": "".join(np.array(list(LETTERS))[row]) for number, row in enumerate(DRAWN) if row.any()}
ROWS = {**TASTES, "ann": "abcl", "new": "zq"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    ratings = write_ratings(folder / "ratings.csv", ROWS)
    data = read_interactions(write_ratings(folder / "train.csv", TASTES)).to_matrix()
    for name, settings in (("ease", {"l2": 1.0}), ("ials", {"factors": 2})):
        model = create_model(name, settings).fit(data.matrix)
        save_model(folder / name, TrainedModel(model, data.items, data.item_counts))
    (folder / "titles.csv").write_text("item_id,title\na,Alien\nb,\x1b[31mBlade Runner\nd,Dune\nx,Xanadu\n")
    assert ratings.is_file()
    return folder


def call(folder: Path, *words: str, model: str = "ease", code: int = 0) -> str:
    done = CliRunner().invoke(
        main,
        [*(["--json"] if "--json" in words else []), "explain", str(folder / model)]
        + [word for word in words if word != "--json"],
    )
    assert done.exit_code == code, done.output
    return done.output


def of_ann(folder, *words, **more):
    return call(folder, "--user", "ann", "--ratings", str(folder / "ratings.csv"), *words, **more)


def test_the_first_recommendation_is_explained_in_a_sentence_and_a_table(folder):
    shown = of_ann(folder, "--titles", str(folder / "titles.csv"))
    assert ": score 0." in shown and "rank 1 of 8 unseen items" in shown
    assert "in your history." in shown and "Alien" in shown
    assert "of 4 items of the history support it. Method: exact; the score is the sum" in " ".join(shown.split())
    assert "titles: 1 of 4 ids unknown to the model: x" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "\x1b" not in shown


def test_a_named_item_is_explained_with_what_speaks_against_it(folder):
    shown = of_ann(folder, "--item", "e", "-n", "1", "--titles", str(folder / "titles.csv"))
    assert "e: score" in shown and "rank " in shown
    assert "Against it: l (-0." in shown


def test_liked_is_said_only_of_ratings_with_a_minimum(folder, tmp_path):
    lines = [f"{user},{item},5" for user, items in ROWS.items() for item in items]
    (tmp_path / "rated.csv").write_text("\n".join(["user_id,item_id,rating", *lines]) + "\n")
    words = ("--user", "ann", "--ratings", str(tmp_path / "rated.csv"))
    assert "Because you liked " in call(folder, *words, "--min-rating", "4")
    assert "Because you liked " not in call(folder, *words)


def test_items_stand_for_a_history_and_unknown_ones_are_named(folder):
    shown = call(folder, "--items", "a,b,nope")
    assert "history: 1 of 3 ids unknown to the model: nope" in shown
    assert "of 10 unseen items" in shown


def test_json_holds_the_explanation(folder):
    found = json.loads(of_ann(folder, "--json", "--item", "d", "--titles", str(folder / "titles.csv")))
    one = found["explanation"]
    assert one["item_id"] == "d" and one["method"] == "exact" and one["history"] == 4
    contributions = [reason["contribution"] for reason in one["reasons"] + one["against"]]
    assert sum(contributions) == pytest.approx(one["score"], abs=1e-5)
    assert sum(reason["share"] for reason in one["reasons"]) == pytest.approx(1)
    assert found["titles"]["a"] == "Alien" and found["sentence"].startswith("Because of ")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--user", "ann"], 2, "--ratings FILE with the history"),
        ([], 2, "either --user ID"),
        (["--evaluate"], 2, "--evaluate with --ratings FILE"),
        (["--user", "nobody", "--ratings", "RATINGS"], 1, "user 'nobody'"),
        (["--user", "new", "--ratings", "RATINGS"], 1, "an item that the model knows, found none of 2: q, z"),
        (["--user", "ann", "--ratings", "RATINGS", "--item", "nope"], 1, "found 'nope'"),
        (["--user", "ann", "--ratings", "RATINGS", "-n", "0"], 1, "at least 1, found 0"),
        (["--items", "a,b,c,d,e,f,g,h,i,j,k,l"], 1, "holds all items"),
        (["--evaluate", "--ratings", "RATINGS", "--item", "a"], 2, "without a user, an item"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(folder, words, code, reason):
    words = [str(folder / "ratings.csv") if word == "RATINGS" else word for word in words]
    assert reason in " ".join(call(folder, *words, code=code).split())


def test_a_model_without_reasons_is_refused_before_the_ratings_are_read(folder, tmp_path):
    model = save_popularity(tmp_path, folder / "train.csv")
    done = CliRunner().invoke(main, ["explain", str(model), "--user", "ann", "--ratings", str(tmp_path / "none.csv")])
    assert done.exit_code == 1 and "popularity scores all alike" in " ".join(done.output.split())


def test_explanations_are_evaluated_beside_simple_ones(folder):
    shown = call(folder, "--evaluate", "--ratings", str(folder / "ratings.csv"), "--users", "10", model="ials")
    assert "First recommendation of 10 users, explained by ials (closed form)" in shown
    for name in ("contributions", "cosine", "popularity", "random"):
        assert any(line.startswith(name) for line in shown.splitlines()), name
    assert "contributions - random" in shown and "POS ↓" in shown and "one model only" in " ".join(shown.split())
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_an_evaluation_is_the_same_for_a_seed(folder):
    job = ExplainJob(folder / "ease", ratings=folder / "ratings.csv", evaluate=True, users=5, device="cpu")
    first, again = run(job), run(job)
    assert first.means == again.means and first.differences == again.differences
    assert first.users == 5
    with pytest.raises(ConfigError, match="at least 1"):
        ExplainJob(folder / "ease", users=0, reading=ReadingOptions())
