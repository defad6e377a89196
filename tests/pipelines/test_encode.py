"""recsys encode and recsys similar: embeddings in files that load as they are, and neighbors on the terminal."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scoring_case import bytes_of, save_popularity, save_vae, write_ratings

from pipelines import encode as encode_job
from pipelines import similar as similar_job
from pipelines.cli.main import main
from pipelines.encode import EncodeJob, run
from recsys.artifacts import load_model, save_model
from recsys.batch.encoding import read_vectors
from recsys.batch.shards import NO_HISTORY
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.errors import ArtifactError, ConfigError, DataError, UnsupportedError
from recsys.models import create_model
from recsys.models.trained import TrainedModel

TAKEN = {"ann": "abcd", "bob": "abc", "cat": "bd", "dan": "a"}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return save_vae(tmp_path_factory.mktemp("vae"), users=700, items=300)


@pytest.fixture
def ease(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    data = UserItemMatrix.from_interactions(read_interactions(ratings))
    model = create_model("ease", {"l2": 1.0}).fit(data.matrix)
    return save_model(tmp_path / "ease", TrainedModel(model, data.items, data.item_counts)), ratings


def encode(model, ratings, output, **settings):
    job = EncodeJob(model, () if ratings is None else (ratings,), output, **{"device": "cpu", **settings})
    return run(job)


def vectors_of(file):
    return np.concatenate([part for _, part in read_vectors(file)])


def expected(model, ratings):
    """Ids, means and deviations by the model itself."""
    saved = load_model(model, "cpu")
    data = UserItemMatrix.from_interactions(read_interactions(ratings), saved.items)
    found = saved.model.embed_users(data.matrix)
    return data.users.ids.to_pylist(), found


def test_one_file_has_a_row_a_user_with_mean_and_deviation_and_loads_into_pandas(vae, tmp_path):
    found = encode(*vae, tmp_path / "users.parquet", shard_users=300)
    frame = pd.read_parquet(tmp_path / "users.parquet")
    ids, embeddings = expected(*vae)
    assert found.rows == 700
    assert frame.user_id.tolist() == ids
    assert np.stack(frame.embedding) == pytest.approx(embeddings.mean.numpy(), abs=1e-5)
    assert np.stack(frame.deviation) == pytest.approx(embeddings.deviation.numpy(), abs=1e-5)
    assert (
        str(pq.read_schema(tmp_path / "users.parquet").field("embedding").type) == "fixed_size_list<element: float>[9]"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["users.parquet"]


@pytest.mark.parametrize("way", [{"workers": 3}, {"workers": 1}])
def test_the_bytes_are_the_same_however_the_work_is_done(vae, tmp_path, way):
    encode(*vae, tmp_path / "one", shard_users=300)
    encode(*vae, tmp_path / "two", shard_users=300, **way)
    assert len(bytes_of(tmp_path / "one")) == 2 * 3
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_killed_job_continues_after_its_shards_and_gives_the_same_file(vae, tmp_path, monkeypatch):
    encode(*vae, tmp_path / "whole.parquet", shard_users=300)
    original, written = encode_job.record_shards, []

    def killed_after_one(*arguments):
        for name, summary in original(*arguments):
            written.append(name)
            yield name, summary
            raise KeyboardInterrupt

    monkeypatch.setattr(encode_job, "record_shards", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        encode(*vae, tmp_path / "users.parquet", shard_users=300)
    with pytest.raises(ArtifactError, match="interrupted job: set resume"):
        encode(*vae, tmp_path / "users.parquet", shard_users=300)
    seen = []
    monkeypatch.setattr(encode_job, "record_shards", lambda *a: (seen.append(len(a[2])), *original(*a))[1:])
    encode(*vae, tmp_path / "users.parquet", shard_users=300, resume=True)
    assert seen == [1]
    assert (tmp_path / "users.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert encode(*vae, tmp_path / "users.parquet", shard_users=300, resume=True).resumed
    with pytest.raises(ArtifactError, match="output of another job"):
        encode(*vae, tmp_path / "users.parquet", compress="int8", resume=True)
    with pytest.raises(ArtifactError, match="already exists"):
        encode(*vae, tmp_path / "users.parquet")
    assert not encode(*vae, tmp_path / "users.parquet", overwrite=True).resumed


def test_int8_takes_a_byte_an_element_and_comes_back_nearly_the_same(vae, tmp_path):
    encode(*vae, tmp_path / "plain.parquet")
    encode(*vae, tmp_path / "small.parquet", compress="int8")
    plain, small = (vectors_of(tmp_path / f"{name}.parquet") for name in ("plain", "small"))
    assert np.abs(plain - small).max() <= np.abs(plain).max() / 127
    table = pq.read_table(tmp_path / "small.parquet")
    assert table.column_names == ["user_id", "embedding", "scale", "deviation", "deviation_scale"]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: int8>[9]"


def test_vectors_of_scores_of_users_and_items_give_the_scores(vae, tmp_path):
    encode(*vae, tmp_path / "users.parquet", vectors="scores")
    encode(vae[0], None, tmp_path / "items.parquet", items=True, vectors="scores")
    users, items = (vectors_of(tmp_path / f"{name}.parquet") for name in ("users", "items"))
    saved = load_model(vae[0], "cpu")
    data = UserItemMatrix.from_interactions(read_interactions(vae[1]), saved.items)
    assert users @ items.T == pytest.approx(saved.model.score(data.matrix).numpy(), abs=1e-4)
    assert pq.read_schema(tmp_path / "items.parquet").names == ["item_id", "vector"]


def test_a_user_without_a_known_item_is_left_out_and_named(ease, tmp_path):
    ratings = write_ratings(tmp_path / "more.csv", {**TAKEN, "eve": "z", "fay": "y"})
    found = encode(ease[0], ratings, tmp_path / "folder")
    assert (found.rows, found.left_out, found.first_left_out, found.unknown) == (4, 2, ("eve", "fay"), 2)
    left_out = pq.read_table(tmp_path / "folder" / "left_out" / "part-00000.parquet").to_pylist()
    assert left_out == [{"user_id": "eve", "reason": NO_HISTORY}, {"user_id": "fay", "reason": NO_HISTORY}]
    manifest = json.loads((tmp_path / "folder" / "manifest.json").read_text())
    assert (manifest["users"], manifest["rows"], manifest["left_out"]) == (6, 4, 2)


def test_items_x_items_weights_are_factorized_and_it_is_said(ease, tmp_path):
    found = encode(ease[0], None, tmp_path / "items.parquet", items=True, size=2)
    assert found.vectors["factorized"] is True
    assert vectors_of(tmp_path / "items.parquet").shape == (4, 2)
    with pytest.raises(UnsupportedError, match="not inner products"):
        encode(ease[0], None, tmp_path / "other.parquet", items=True, vectors="scores")
    done = CliRunner().invoke(main, ["encode", str(ease[0]), str(ease[1]), "-o", str(tmp_path / "users.parquet")])
    assert done.exit_code == 0, done.output
    assert "4 embeddings of 4 numbers" in done.output
    assert "truncated factorization" in " ".join(done.output.split())


def test_models_and_sizes_that_do_not_fit_are_refused(vae, tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    with pytest.raises(UnsupportedError, match="popularity has no embeddings"):
        encode(save_popularity(tmp_path, ratings), ratings, tmp_path / "users.parquet")
    with pytest.raises(ConfigError, match="size it was trained with"):
        encode(*vae, tmp_path / "users.parquet", size=7)
    with pytest.raises(ConfigError, match="size of at least 1"):
        encode(*vae, tmp_path / "users.parquet", size=0)
    with pytest.raises(ConfigError, match="Expected no size for vectors of scores"):
        encode(*vae, tmp_path / "users.parquet", vectors="scores", size=9)
    for arguments in (["-o", "x.parquet"], [str(vae[1]), "--items"]):
        done = CliRunner().invoke(main, ["encode", str(vae[0]), *arguments])
        assert done.exit_code == 2
        assert "Expected RATINGS, or --items without them" in done.output


def test_an_index_answers_similar_as_the_model_does_and_another_models_is_refused(ease, vae, tmp_path):
    pytest.importorskip("faiss")
    index = tmp_path / "items.index"
    found = encode(ease[0], None, tmp_path / "items.parquet", items=True, index=index)
    assert found.index.recall == 1
    with pytest.raises(ArtifactError, match="already exists"):
        encode(ease[0], None, tmp_path / "again.parquet", items=True, index=index)
    exact = similar_job.run(similar_job.SimilarJob(ease[0], item="a", n=2, device="cpu"))
    by_index = similar_job.run(similar_job.SimilarJob(ease[0], item="a", n=2, index=index, device="cpu"))
    assert [one["item_id"] for one in exact.neighbors] == [one["item_id"] for one in by_index.neighbors]
    assert [one["score"] for one in exact.neighbors] == pytest.approx(
        [one["score"] for one in by_index.neighbors], abs=1e-4
    )
    with pytest.raises(DataError, match="found 'nobody'"):
        similar_job.run(similar_job.SimilarJob(ease[0], item="nobody", index=index, device="cpu"))
    with pytest.raises(ArtifactError, match="index of the embeddings of this model's items"):
        similar_job.run(similar_job.SimilarJob(vae[0], item="i1", index=index, device="cpu"))


def test_a_folder_in_place_of_the_file_is_refused_before_any_work_and_one_user_is_no_comparison(vae, tmp_path):
    (tmp_path / "users.parquet").mkdir()
    with pytest.raises(ArtifactError, match="found the folder"):
        encode(*vae, tmp_path / "users.parquet", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["users.parquet"]
    alone = tmp_path / "alone.csv"
    alone.write_text("user_id,item_id\nann,i1\n")
    done = CliRunner().invoke(main, ["similar", str(vae[0]), "--user", "ann", "--ratings", str(alone)])
    assert (done.exit_code, done.stdout.strip()) == (
        0,
        "Nearest to user ann, of 1 item: there is nothing else to compare with.",
    )


def test_similar_shows_items_with_titles_and_users_with_what_they_have_in_common(ease, tmp_path):
    titles = tmp_path / "titles.csv"
    titles.write_text("item_id,title\na,Apple\nb,Banana\nz,Zebra\n")
    runner = CliRunner()
    done = runner.invoke(main, ["similar", str(ease[0]), "--item", "a", "--titles", str(titles), "-n", "2"])
    assert done.exit_code == 0, done.output
    assert "Nearest to Apple" in done.output
    assert "1 of 3 ids unknown" in done.output
    done = runner.invoke(
        main, ["--json", "similar", str(ease[0]), "--user", "ann", "--ratings", str(ease[1]), "--titles", str(titles)]
    )
    neighbors = json.loads(done.stdout)["neighbors"]
    assert {one["user_id"]: one["in_common"] for one in neighbors} == {"bob": 3, "cat": 2, "dan": 1}
    assert neighbors[0]["such_as"] in ("Apple", "Banana")
    for arguments, says in (
        ([], "either --item ID"),
        (["--user", "ann"], "Expected --ratings FILE"),
        (["--item", "a", "--user", "ann"], "either --item ID"),
    ):
        done = runner.invoke(main, ["similar", str(ease[0]), *arguments])
        assert done.exit_code == 2
        assert says in done.output
    done = runner.invoke(main, ["similar", str(ease[0]), "--user", "zoe", "--ratings", str(ease[1])])
    assert done.exit_code == 1
    assert "'zoe'" in done.output


def test_the_same_answers_in_python_in_ids_and_frames(ease, vae):
    saved = load_model(vae[0], "cpu")
    frame = saved.embed_users(vae[1])
    ids, embeddings = expected(*vae)
    assert frame.index.tolist() == ids
    assert frame.columns.tolist() == [f"{part}_{i}" for part in ("embedding", "deviation") for i in range(9)]
    assert frame.to_numpy()[:, :9] == pytest.approx(embeddings.mean.numpy(), abs=1e-5)
    trained = load_model(ease[0], "cpu")
    assert trained.embed_items().shape == (4, 4)
    near = trained.similar_users("ann", ease[1], n=9)
    assert near.user_id.tolist()[0] == "bob"
    assert sorted(near.user_id) == ["bob", "cat", "dan"]
    assert near["rank"].tolist() == [1, 2, 3]
    stranger = pd.DataFrame({"user_id": ["eve", "ann"], "item_id": ["z", "a"]})
    assert trained.similar_users("ann", stranger).empty
    with pytest.raises(DataError, match="an item that the model knows in the history of user 'eve'"):
        trained.similar_users("eve", stranger)
