"""Lists by the rules of a file: what is listed, what is counted, and what is refused."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scoring_case import bytes_of, lists_of, save_popularity, save_vae, score, short_of, write_ratings

from pipelines.cli.main import main
from pipelines.cli.rules import RuleFlags
from recsys.batch.gates import read_gates
from recsys.batch.shards import LOW_SCORES, RULED_OUT
from recsys.errors import ConfigError, GateError
from recsys.inference.topn import GroupCap

# Counts: a 4, b 3, c 2, d 1.
TAKEN = {"ann": "abcd", "bob": "abc", "cat": "ab", "dan": "a"}
ITEMS = "item_id,genre,price\na,Drama,1\nb,Horror,2\nc,Drama,3\nd,Comedy,4\n"


@pytest.fixture
def case(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    (tmp_path / "items.csv").write_text(ITEMS)
    return save_popularity(tmp_path, ratings), ratings, tmp_path / "lists"


def rules(folder, text):
    (folder / "rules.toml").write_text('items = "items.csv"\n' + text)
    return RuleFlags(folder / "rules.toml")


EXCLUDE = '[[rule]]\nexclude = { genre = "Horror" }\n'
CAP = '[[rule]]\ncap = "genre"\nmost = 1\n'


def test_an_excluded_genre_is_in_no_list_and_the_manifest_counts_it(case, tmp_path):
    scored = score(*case, n=2, ruling=rules(tmp_path, EXCLUDE), keep_seen=True)
    assert set(lists_of(case[2]).values()) == {"ac"}
    effect = {"rule": "exclude genre = Horror", "kind": "exclude", "items": 1, "places_without": 4, "places": 0}
    assert scored.manifest["rules"]["effects"] == [effect]
    assert scored.manifest["plan"]["rules"] == ("exclude genre = Horror",)
    assert scored.manifest["measures"]["emptied"] == 0


def test_a_rule_for_a_segment_leaves_the_other_users_alone(case, tmp_path):
    (tmp_path / "some.csv").write_text("user_id\nbob\n")
    score(*case, n=2, ruling=rules(tmp_path, EXCLUDE + 'users = "some.csv"'), keep_seen=True)
    assert lists_of(case[2]) == {"ann": "ab", "bob": "ac", "cat": "ab", "dan": "ab"}


def test_a_promotion_a_boost_and_a_cap(case, tmp_path):
    text = '[[rule]]\npromote = { genre = "Comedy" }\nplaces = [2]\n' + CAP
    score(*case, n=3, ruling=rules(tmp_path, text), keep_seen=True)
    assert set(lists_of(case[2]).values()) == {"adb"}
    boost = "[[rule]]\nboost = { price = { min = 4 } }\nstrength = 1.1\n"
    score(*case, n=3, ruling=rules(tmp_path, boost), keep_seen=True, overwrite=True)
    assert set(lists_of(case[2]).values()) == {"dab"}


def test_short_lists_say_that_the_rules_left_too_few(case, tmp_path):
    score(*case, n=3, ruling=rules(tmp_path, '[[rule]]\nonly = { genre = "Drama" }'), keep_seen=True)
    assert short_of(case[2]) == dict.fromkeys(TAKEN, (2, RULED_OUT))


def test_rules_that_empty_lists_are_not_published_unless_a_gate_allows_it(case, tmp_path):
    nothing = rules(tmp_path, '[[rule]]\nonly = { genre = "Western" }')
    with pytest.raises(GateError, match=r"emptied is 0\.75, expected at most 0"):
        score(*case, n=2, ruling=nothing)
    manifest = json.loads((case[2] / "manifest.json").read_text())
    assert not manifest["published"]
    (tmp_path / "gates.toml").write_text("emptied = { max = 0.8 }")
    assert score(*case, n=2, ruling=nothing, gates=tmp_path / "gates.toml", overwrite=True).manifest["published"]
    assert read_gates(tmp_path / "gates.toml", False)["emptied"] == (-np.inf, 0.8)


def test_the_groups_file_and_the_rules_hold_together(case, tmp_path):
    (tmp_path / "groups.csv").write_text("item_id,group\na,1\nc,1\nd,2\n")
    score(*case, n=3, ruling=rules(tmp_path, EXCLUDE), groups=tmp_path / "groups.csv", max_per_group=1, keep_seen=True)
    assert set(lists_of(case[2]).values()) == {"ad"}


def test_an_item_below_the_least_score_gives_its_place_to_another(case, tmp_path):
    text = '[[rule]]\npromote = { genre = ["Comedy", "Drama"] }\nshare = 1.0\n'
    score(*case, n=3, ruling=rules(tmp_path, text), min_score=2, keep_seen=True)
    assert set(lists_of(case[2]).values()) == {"acb"}
    ranks = pq.read_table(case[2] / "recommendations")["rank"].to_pylist()
    assert ranks == [1, 2, 3] * 4
    score(*case, n=4, ruling=rules(tmp_path, text), min_score=2, keep_seen=True, overwrite=True)
    assert short_of(case[2])["dan"] == (3, LOW_SCORES)


def test_cold_users_get_popular_items_by_the_rules(case, tmp_path):
    (tmp_path / "who").write_text("user_id\neve\n")
    score(*case, n=2, ruling=rules(tmp_path, EXCLUDE), cold="popularity", users=tmp_path / "who")
    assert lists_of(case[2]) == {"eve": "ac"}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    made = save_vae(folder)
    generator = np.random.default_rng(1)
    rows = [f"i{item},g{generator.integers(9)},{generator.integers(100)}" for item in range(3000)]
    (folder / "items.csv").write_text("\n".join(["item_id,genre,price", *rows]) + "\n")
    return made, rules(
        folder,
        '[[rule]]\nexclude = { genre = "g1" }\n[[rule]]\nboost = { price = { max = 10 } }\nstrength = 0.5\n'
        '[[rule]]\npromote = { genre = "g2" }\nshare = 0.2\n[[rule]]\ncap = "genre"\nmost = 4\n'
        '[variety]\nby = "genre"\ndiversity = 0.4\n',
    )


@pytest.mark.parametrize(
    "way", [{"batch_size": 1}, {"workers": 3}, {"max_memory": "64GB"}, {"engine": "ray", "workers": 2}]
)
def test_the_bytes_are_the_same_however_the_work_is_done(vae, tmp_path, way):
    (model, ratings), ruling = vae
    one = score(model, ratings, tmp_path / "one", n=10, shard_users=300, ruling=ruling)
    two = score(model, ratings, tmp_path / "two", n=10, shard_users=300, ruling=ruling, **way)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert one.manifest["rules"] == two.manifest["rules"]


def test_an_interrupted_job_goes_on_and_other_rules_are_another_job(vae, tmp_path):
    (model, ratings), ruling = vae
    whole = score(model, ratings, tmp_path / "lists", n=5, shard_users=300, ruling=ruling)
    manifest = json.loads((tmp_path / "lists" / "manifest.json").read_text())
    last = sorted(manifest["shards"])[-1]
    for name in manifest["shards"][last]["sha256"]:
        (tmp_path / "lists" / name).unlink()
    again = score(model, ratings, tmp_path / "lists", n=5, shard_users=300, ruling=ruling, resume=True)
    assert again.speed["files_resumed"] == 2
    assert again.manifest["rules"] == whole.manifest["rules"]
    with pytest.raises(Exception, match="output of another job"):
        score(model, ratings, tmp_path / "lists", n=5, shard_users=300, resume=True)


def test_a_recorded_shard_without_the_counts_of_its_rules_is_written_again(vae, tmp_path):
    (model, ratings), ruling = vae
    score(model, ratings, tmp_path / "lists", n=5, ruling=ruling)
    manifest = json.loads((tmp_path / "lists" / "manifest.json").read_text())
    manifest["shards"]["part-00000"]["effects"] = ["many"]
    (tmp_path / "lists" / "manifest.json").write_text(json.dumps(manifest))
    assert score(model, ratings, tmp_path / "lists", n=5, ruling=ruling, resume=True).speed["files_resumed"] == 0


def test_the_vae_keeps_all_rules(vae, tmp_path):
    (model, ratings), ruling = vae
    score(model, ratings, tmp_path / "lists", n=10, ruling=ruling)
    table = pq.read_table(tmp_path / "lists" / "recommendations").to_pandas()
    genre = dict(re.findall(r"(i\d+),(g\d)", (ruling.rules.parent / "items.csv").read_text()))
    table["genre"] = table["item_id"].map(genre)
    assert not (table["genre"] == "g1").any()
    assert table.groupby(["user_id", "genre"]).size().max() <= 4
    own = table[table["genre"] == "g2"].groupby("user_id")["rank"]
    assert (own.count() >= 2).all() and (own.min() <= 5).all()


def test_the_command_says_what_each_rule_did(case, tmp_path):
    flags = rules(tmp_path, EXCLUDE + CAP + '[[rule]]\nonly = { genre = "Western" }\nusers = "some.csv"')
    (tmp_path / "some.csv").write_text("user_id\nzoe\n")
    done = CliRunner().invoke(
        main, ["score", str(case[0]), str(case[1]), "-o", str(case[2]), "-n", "2", "--keep-seen", "--no-track",
               "--rules", str(flags.rules)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "Rule exclude genre = Horror: 1 item, 0 places in lists, 4 without rules." in said
    assert "Rule cap genre: 4 items, 0 places beyond the cap, 0 without rules." in said
    assert "Rule only genre = Western: 0 items, 0 places in lists, 0 without rules. No item meets it" in said


def test_diversity_without_a_file_needs_embeddings_and_a_weight_in_range(case, vae, tmp_path):
    with pytest.raises(ConfigError, match="diversity from 0 to below 1, found 1"):
        RuleFlags(None, 1.0)
    with pytest.raises(Exception, match="embeddings"):
        score(*case, n=2, ruling=RuleFlags(None, 0.5))
    (model, ratings), _ = vae
    scored = score(model, ratings, tmp_path / "varied", n=5, ruling=RuleFlags(None, 0.9))
    score(model, ratings, tmp_path / "plain", n=5)
    assert bytes_of(tmp_path / "varied") != bytes_of(tmp_path / "plain")
    assert scored.manifest["rules"]["variety"] == 0.9


def test_similar_items_keep_rules_too(vae, tmp_path):
    (model, _), ruling = vae
    score(model, None, tmp_path / "lists", n=10, ruling=ruling, item_to_item=True)
    table = pq.read_table(tmp_path / "lists" / "recommendations").to_pandas()
    genre = dict(re.findall(r"(i\d+),(g\d)", (ruling.rules.parent / "items.csv").read_text()))
    assert not (table["item_id"].map(genre) == "g1").any()


def test_a_cap_as_a_rule_counts_the_places_beyond_it():
    cap = GroupCap(np.array([0, 0, 1], dtype=np.int32), 1)
    assert cap.keeps(np.array([[0, 1, 2]], dtype=np.int32)).tolist() == [[True, False, True]]
