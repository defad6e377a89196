"""The scoring job: who gets which items, and the same bytes whatever the machine does."""

import json
import re

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from scoring_case import bytes_of, lists_of, save_popularity, save_vae, score, short_of, write_ratings

from pipelines.score import Choice
from recsys.artifacts import save_model
from recsys.batch.shards import LOW_SCORES, NO_HISTORY, NOT_TRAINED, NOTHING_LEFT, SMALL_CATALOG
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.errors import ArtifactError, ConfigError, DataError, GateError
from recsys.models import create_model
from recsys.models.trained import TrainedModel

# Counts: a 4, b 3, c 2, d 1; equal for none.
TAKEN = {"ann": "abcd", "bob": "abc", "cat": "ab", "dan": "a"}


@pytest.fixture
def case(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    return save_popularity(tmp_path, ratings), ratings, tmp_path / "lists"


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return save_vae(tmp_path_factory.mktemp("vae"))


def ids(path, names, header="user_id"):
    path.write_text("\n".join([header, *names]) + "\n")
    return path


def test_everybody_gets_the_best_items_they_have_not_taken(case):
    score(*case, n=2)
    assert lists_of(case[2]) == {"bob": "d", "cat": "cd", "dan": "bc"}
    assert short_of(case[2]) == {"ann": (0, NOTHING_LEFT), "bob": (1, NOTHING_LEFT)}


@pytest.mark.parametrize("way", [{"batch_size": 1}, {"workers": 3}, {"workers": 1}, {"max_memory": "64GB"}])
def test_the_bytes_are_the_same_however_the_work_is_done(vae, tmp_path, way):
    score(*vae, tmp_path / "one", n=20, shard_users=300)
    score(*vae, tmp_path / "two", n=20, shard_users=300, **way)
    assert len(bytes_of(tmp_path / "one")) == 6
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_lists_in_bfloat16_are_nearly_those_of_float32(vae, tmp_path):
    items = []
    for kind in ("fp32", "bf16"):
        score(*vae, tmp_path / kind, n=20, precision=kind)
        items.append([set(re.findall(r"i\d+", text)) for text in lists_of(tmp_path / kind).values()])
    assert bytes_of(tmp_path / "fp32") != bytes_of(tmp_path / "bf16")
    assert np.mean([len(exact & near) / 20 for exact, near in zip(*items, strict=True)]) > 0.9


def test_a_user_scores_the_same_in_any_company(vae, tmp_path):
    score(*vae, tmp_path / "all", n=5)
    score(*vae, tmp_path / "two", n=5, users=ids(tmp_path / "users", ["u699", "u8"]))
    everybody = pq.read_table(tmp_path / "all" / "recommendations").to_pylist()
    chosen = [row for name in ("u699", "u8") for row in everybody if row["user_id"] == name]
    assert pq.read_table(tmp_path / "two" / "recommendations").to_pylist() == chosen


def test_keep_seen_lets_the_history_return(case):
    score(*case, n=2, keep_seen=True)
    assert set(lists_of(case[2]).values()) == {"ab"}


def test_users_come_in_the_order_of_their_file_and_strangers_are_said_to_be_such(case, tmp_path):
    score(*case, n=1, users=ids(tmp_path / "users.csv", ["dan", "eve", "cat"]))
    assert list(lists_of(case[2]).items()) == [("dan", "b"), ("cat", "c")]
    assert short_of(case[2]) == {"eve": (0, NO_HISTORY)}


def test_an_empty_users_file_gives_a_complete_output_without_users(case, tmp_path):
    scored = score(*case, users=ids(tmp_path / "users.csv", []))
    assert scored.manifest["users"] == 0 and scored.manifest["published"]
    assert bytes_of(case[2]) == {}


def test_only_and_excluded_items_hold_for_everybody_and_pairs_for_one(case, tmp_path):
    only, never = ids(tmp_path / "only", "bcd", "item_id"), ids(tmp_path / "never", "c", "item_id")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user_id,item_id\ndan,b\nnobody,a\n")
    scored = score(*case, n=4, only_items=only, exclude_items=never, exclude_pairs=pairs, keep_seen=True)
    expected = {"items": 4, "items_allowed": 2, "pairs_excluded": 1, "reasons_by": None, "effects": [], "variety": None}
    assert scored.manifest["rules"] == expected
    assert lists_of(case[2]) == {"ann": "bd", "bob": "bd", "cat": "bd", "dan": "d"}


def test_a_list_of_items_of_which_none_is_known_is_refused(case, tmp_path):
    with pytest.raises(DataError, match="found none among 1"):
        score(*case, only_items=ids(tmp_path / "only", "z", "item_id"))


def test_low_scores_are_left_out_and_the_reason_said(case):
    score(*case, n=3, min_score=2.0)
    assert lists_of(case[2]) == {"cat": "c", "dan": "bc"}
    assert short_of(case[2])["dan"] == (2, LOW_SCORES)


def test_at_most_so_many_items_of_a_group(case, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("item_id,brand\na,x\nb,x\nc,x\n")  # d has no group: not limited
    score(*case, n=3, keep_seen=True, max_per_group=2, groups=groups)
    assert set(lists_of(case[2]).values()) == {"abd"}


def test_users_without_history_get_popular_items_in_a_marked_row(case, tmp_path):
    score(*case, n=2, cold="popularity", users=ids(tmp_path / "users.csv", ["eve", "dan"]))
    rows = pq.read_table(case[2] / "recommendations").to_pylist()
    assert [(row["user_id"], row["item_id"], row["source"]) for row in rows] == [
        *[("eve", "a", "popularity"), ("eve", "b", "popularity")],
        *[("dan", "b", "model"), ("dan", "c", "model")],
    ]


def test_users_without_history_can_stop_the_job(case, tmp_path):
    with pytest.raises(DataError, match="found 1 of 1"):
        score(*case, cold="fail", users=ids(tmp_path / "users.csv", ["eve"]))
    assert not case[2].exists()


def test_new_users_join_the_others_and_may_not_be_one_of_them(case, tmp_path):
    score(*case, n=1, new_users=write_ratings(tmp_path / "new.csv", {"eve": "az"}))
    assert lists_of(case[2])["eve"] == "b"
    with pytest.raises(DataError, match="found 1 of 1 among the others"):
        score(*case, overwrite=True, new_users=write_ratings(tmp_path / "new.csv", {"ann": "a"}))


def test_unknown_items_are_counted_and_a_history_of_nothing_else_is_said(case, tmp_path):
    scored = score(case[0], write_ratings(tmp_path / "more.csv", {"dan": "ay", "eve": "yz"}), case[2], n=1)
    assert scored.manifest["histories"]["interactions_on_unknown_items"] == 3
    assert short_of(case[2]) == {"eve": (0, NO_HISTORY)}


def test_a_model_of_its_training_users_says_who_was_not_among_them(case, tmp_path):
    pytest.importorskip("implicit")
    data = UserItemMatrix.from_interactions(read_interactions(case[1]))
    bpr = create_model("bpr", {"factors": 2, "iterations": 2}).fit(data.matrix)
    model = save_model(tmp_path / "bpr", TrainedModel(bpr, data.items, data.item_counts, data.users))
    score(model, write_ratings(tmp_path / "more.csv", {"eve": "a", "dan": "a"}), case[2], n=3)
    assert short_of(case[2]) == {"eve": (0, NOT_TRAINED)}
    assert sorted(lists_of(case[2])["dan"]) == ["b", "c", "d"]


def test_a_list_longer_than_the_catalog_holds_all_that_is_left(case):
    score(*case, n=100, keep_seen=True)
    assert set(lists_of(case[2]).values()) == {"abcd"}
    assert set(short_of(case[2]).values()) == {(4, SMALL_CATALOG)}


def test_who_has_seen_3000_of_3050_items_gets_the_50_others(tmp_path):
    model, _ = save_vae(tmp_path, users=1, items=3050)
    rows = [f"reader,i{i}" for i in range(3000)]
    (tmp_path / "ratings.csv").write_text("\n".join(["user_id,item_id", *rows]) + "\n")
    score(model, tmp_path / "ratings.csv", tmp_path / "lists", n=100)
    listed = pq.read_table(tmp_path / "lists" / "recommendations")["item_id"].to_pylist()
    assert sorted(listed) == sorted(f"i{i}" for i in range(3000, 3050))
    assert short_of(tmp_path / "lists") == {"reader": (50, NOTHING_LEFT)}


def test_items_get_their_most_similar_items_and_never_themselves(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", {"ann": "ab", "bob": "ab", "cat": "cd", "dan": "cd"})
    data = UserItemMatrix.from_interactions(read_interactions(ratings))
    ease = create_model("ease", {"l2": 0.1}).fit(data.matrix)
    model = save_model(tmp_path / "model", TrainedModel(ease, data.items, data.item_counts))
    score(model, None, tmp_path / "lists", n=1, item_to_item=True)
    table = pq.read_table(tmp_path / "lists" / "recommendations")
    assert table.column_names == ["target_item_id", "item_id", "rank", "score"]
    assert {row["target_item_id"] for row in table.to_pylist()} == set("abcd")
    assert all(row["target_item_id"] != row["item_id"] for row in table.to_pylist())


def test_csv_ids_that_a_spreadsheet_would_run_are_marked(case, tmp_path):
    ratings = tmp_path / "odd.csv"
    ratings.write_text("user_id,item_id\n=1+1,a\n-x,a\nplain,a\n")
    score(case[0], ratings, case[2], n=1, format="csv", csv_safe=True)
    table = pa_csv.read_csv(case[2] / "recommendations" / "part-00000.csv")
    assert table["user_id"].to_pylist() == ["'-x", "'=1+1", "plain"]


def test_csv_and_parquet_hold_the_same_lists(case, tmp_path):
    score(*case, n=2)
    score(*case[:2], tmp_path / "csv", n=2, format="csv")
    text = pa_csv.read_csv(tmp_path / "csv" / "recommendations" / "part-00000.csv")
    assert text.to_pylist() == pq.read_table(case[2] / "recommendations").to_pylist()


def test_a_finished_job_can_be_resumed_and_does_nothing(case):
    score(*case, n=2)
    before = bytes_of(case[2])
    assert score(*case, n=2, resume=True).speed["files_resumed"] == 1
    assert bytes_of(case[2]) == before


def test_a_damaged_or_missing_file_is_written_again(case):
    score(*case, n=2, shard_users=1)
    before = bytes_of(case[2])
    (case[2] / "recommendations" / "part-00001.parquet").write_bytes(b"damaged")
    (case[2] / "short_lists" / "part-00002.parquet").unlink()
    assert score(*case, n=2, shard_users=1, resume=True).speed["files_resumed"] == 2
    assert bytes_of(case[2]) == before


@pytest.mark.parametrize("other", [{"n": 3}, {"keep_seen": True}, {"min_score": 1.0}, {"shard_users": 1}])
def test_the_output_of_another_plan_is_not_resumed(case, other):
    score(*case, n=2)
    with pytest.raises(ArtifactError, match="another job"):
        score(*case, resume=True, **{"n": 2, **other})


def test_a_gate_that_refuses_leaves_the_lists_marked_unpublished(case, tmp_path):
    gates = tmp_path / "gates.toml"
    gates.write_text("coverage = { min = 0.5 }\nshort_lists = { max = 0.1 }\n")
    with pytest.raises(GateError, match=r"short_lists is 0.5, expected at most 0.1"):
        score(*case, n=2, gates=gates)
    manifest = json.loads((case[2] / "manifest.json").read_text())
    assert not manifest["published"] and manifest["refused"] == ["short_lists is 0.5, expected at most 0.1"]
    assert lists_of(case[2])["cat"] == "cd"


def test_options_that_need_each_other_are_refused_alone(tmp_path):
    with pytest.raises(ConfigError, match="together"):
        Choice(max_per_group=2)
    with pytest.raises(ConfigError, match="without --users"):
        Choice(item_to_item=True, users=tmp_path)


def test_no_workers_are_refused_before_any_work(case):
    for name in ("workers", "batch_size"):
        with pytest.raises(ConfigError, match=f"Expected {name} of at least 1, found 0"):
            score(*case, **{name: 0})


def test_a_min_score_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match="Expected a finite min_score, found nan"):
        Choice(min_score=float("nan"))


def test_a_model_that_has_diverged_is_not_saved(case, tmp_path):
    data = UserItemMatrix.from_interactions(read_interactions(case[1]))
    model = create_model("popularity").fit(data.matrix)
    model.counts[0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        save_model(tmp_path / "broken", TrainedModel(model, data.items, data.item_counts))
    assert not (tmp_path / "broken").exists()
