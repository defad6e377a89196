"""generate from a model folder to a file of nobody's ratings and its report; the seed makes the bytes."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner
from model_folders import save
from tastes import two_tastes, write_csv

pytest.importorskip("jinja2")

import recsys
from pipelines import generate, train
from pipelines.cli.main import main
from pipelines.cli.settings import TrackingOptions
from pipelines.generate import SEEN, UNSEEN, GenerateJob, hold_out
from recsys.errors import ArtifactError, ConfigError, UnsupportedError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Ratings, and a vae of them that held a fifth of the users out."""
    folder = tmp_path_factory.mktemp("generate")
    ratings = write_csv(folder / "ratings.csv", two_tastes(users=100))
    settings = ("hidden=8", "latent=2", "epochs=20", "learning_rate=0.01")
    train.run(
        train.TrainJob(
            (ratings,), folder / "model", "vae", settings, held_out=0.2, seed=3, tracking=TrackingOptions(False)
        )
    )
    return ratings, folder / "model"


@pytest.fixture
def job(trained, tmp_path):
    ratings, model = trained
    return GenerateJob(model, (ratings,), 200, tmp_path / "made.csv")


def test_the_file_reads_as_ratings_of_new_users_over_the_items_of_the_model(job, trained):
    found = generate.run(job)
    made = recsys.read_interactions(job.output)
    assert (len(made.users), len(made)) == (found.users, found.rows) == (200, found.rows)
    assert set(made.items.to_list()) <= set(recsys.load_model(job.model).items.to_list())
    assert not set(made.users.to_list()) & set(recsys.read_interactions(trained[0]).users.to_list())


def test_the_seed_makes_the_bytes_of_the_file_and_of_the_report(job, tmp_path):
    again, other = replace(job, output=tmp_path / "again.csv"), replace(job, output=tmp_path / "other.csv", seed=1)
    for one in (job, again, other):
        generate.run(one)
    assert again.output.read_bytes() == job.output.read_bytes() != other.output.read_bytes()
    assert again.page.read_bytes() == job.page.read_bytes()


def test_csv_and_parquet_hold_the_same_users(job, tmp_path):
    columns = replace(job, output=tmp_path / "made.parquet", report=False)
    generate.run(job), generate.run(columns)
    pd.testing.assert_frame_equal(pd.read_parquet(columns.output), pd.read_csv(job.output), check_dtype=False)


def test_the_report_tells_what_the_terminal_tells(job, monkeypatch):
    monkeypatch.chdir(job.output.parent)
    words = ["generate", str(job.model), str(job.ratings[0]), "--users", "200", "-o", job.output.name]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "200 users with" in done.output and "Membership check" in done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    told = json.loads(CliRunner().invoke(main, ["--json", *words, "--overwrite"]).stdout)
    assert f"reaches {told['usefulness']['ratio']:.1%} of the ndcg@100" in job.page.read_text(encoding="utf-8")
    assert told["users"] == 200 and told["membership"]["users"] == 200


def test_the_users_held_out_from_the_training_are_those_it_is_tested_on(trained):
    saved = recsys.load_model(trained[1])
    interactions = saved.read_histories(trained[0])
    split, seen = hold_out(saved, interactions, 0)
    again = recsys.split(interactions, "strong", share=0.2, seed=3, test=False)
    assert seen == UNSEEN
    assert split.validation.users.to_pylist() == again.validation.users.to_pylist()
    assert split.train.matrix.shape[0] == 80
    fewer = replace(saved, about={})
    assert hold_out(fewer, interactions, 0)[1] == SEEN


def test_of_too_few_users_nobody_is_held_out_and_the_command_says_so(job, tmp_path):
    few = write_csv(tmp_path / "few.csv", two_tastes(users=4))
    found = generate.run(replace(job, ratings=(few,)))
    assert found.usefulness is None and found.membership is not None


def test_the_prior_is_a_setting(job):
    assert generate.run(replace(job, codes="prior", report=False)).users == 200


def test_what_cannot_be_done_is_refused_before_the_work(job, tmp_path):
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        replace(job, output=tmp_path / "made.txt")
    with pytest.raises(ConfigError, match="at least 1"):
        replace(job, users=0)
    save(tmp_path / "ease")
    with pytest.raises(UnsupportedError, match="vae, recvae, rating-vae"):
        generate.run(replace(job, model=tmp_path / "ease"))
    job.page.write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match="already exists"):
        generate.run(job)
    assert not job.output.exists()


def test_ratings_are_generated_from_a_model_of_ratings(tmp_path):
    rows = [f"u{u},i{i},{(u * i) % 5 + 1}" for u in range(40) for i in range(12) if (u + i) % 3]
    ratings = tmp_path / "rated.csv"
    ratings.write_text("\n".join(["user_id,item_id,rating", *rows]) + "\n", encoding="utf-8")
    settings = ("hidden=8", "latent=2", "epochs=5")
    train.run(
        train.TrainJob((ratings,), tmp_path / "rater", "rating-vae", settings, seed=1, tracking=TrackingOptions(False))
    )
    job = GenerateJob(tmp_path / "rater", (ratings,), 50, tmp_path / "made.csv", learner="biases")
    found = generate.run(job)
    made = recsys.read_interactions(job.output)
    assert set(made.rating) <= {1, 2, 3, 4, 5}
    assert found.usefulness.metric == "rmse" and "lower is better" in found.findings[0]
    wrong = "learner of the rating task"
    for learner, said in (("ease", wrong), ("bpr", wrong), ("esae", "a model of")):
        with pytest.raises(ConfigError, match=said):
            generate.run(replace(job, learner=learner, overwrite=True))
