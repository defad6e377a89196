"""Measures of a batch, computed by hand, and gates that refuse it."""

import json
import math

import pyarrow.parquet as pq
import pytest
from scoring_case import save_popularity, score, write_ratings

from recsys.batch.gates import read_gates, refusals
from recsys.errors import ArtifactError, ConfigError, DataError

# Counts: a 4, b 3, c 2, d 1. Lists of 2: bob d, cat c d, dan b c.
TAKEN = {"ann": "abcd", "bob": "abc", "cat": "ab", "dan": "a"}


@pytest.fixture
def case(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    return save_popularity(tmp_path, ratings), ratings, tmp_path / "lists"


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_measures_are_those_computed_by_hand(case, form):
    measures = score(*case, n=2, format=form).manifest["measures"]
    assert measures["coverage"] == 3 / 4  # b, c and d of four
    assert measures["short_lists"] == 2 / 4  # ann 0, bob 1
    assert measures["popularity"] == 1 / 5  # a and b have 7 of 10 interactions; b stands in one of five rows
    assert measures["score_p50"] == 2.0  # of 1, 2, 1, 3, 2
    assert "overlap" not in measures


def test_overlap_is_the_share_of_a_list_that_was_in_the_previous_one(case, tmp_path):
    score(*case, n=1)  # bob d, cat c, dan b
    later = score(*case[:2], tmp_path / "later", n=2, previous=case[2])  # bob d, cat c d, dan b c
    assert later.manifest["measures"]["overlap"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_batches_without_a_user_in_common_have_no_overlap(case, tmp_path):
    score(case[0], write_ratings(tmp_path / "others.csv", {"eve": "a"}), tmp_path / "others", n=1)
    measures = score(*case, n=1, previous=tmp_path / "others").manifest["measures"]
    assert math.isnan(measures["overlap"])
    assert refusals(measures, {"overlap": (0.1, math.inf)}) == ["overlap is nan, expected at least 0.1"]
    manifest = (case[2] / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(manifest, parse_constant=pytest.fail)["measures"]["overlap"] is None


def test_an_unfinished_output_is_refused_as_the_previous_one(case, tmp_path):
    with pytest.raises(ArtifactError, match="finished batch"):
        score(*case, previous=tmp_path)
    assert not case[2].exists()


def test_a_gate_passes_on_its_limits_and_refuses_beyond_them():
    gates = {"coverage": (0.2, 0.8)}
    assert refusals({"coverage": 0.2}, gates) == refusals({"coverage": 0.8}, gates) == []
    assert refusals({"coverage": 0.9}, gates) == ["coverage is 0.9, expected at least 0.2 and at most 0.8"]


@pytest.mark.parametrize(
    "text, says",
    [
        ("covrage = { min = 1 }", "found 'covrage'"),
        ("coverage = 1", "coverage = {"),
        ("coverage = { least = 1 }", "coverage = {"),
        ("coverage = {}", "coverage = {"),
        ('coverage = { min = "0.2" }', "coverage = {"),
        ("coverage = { min = nan }", "coverage = {"),
        ("overlap = { min = 0.5 }", "a previous batch"),
        ("coverage = { min = ", "Expected TOML"),
    ],
)
def test_what_is_not_a_gate_is_refused(tmp_path, text, says):
    (tmp_path / "gates.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_gates(tmp_path / "gates.toml", with_previous=False)


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("manifest.json", b"[]", r"manifest\.json is damaged"),
        ("plan.json", b'{"hash": "x"}', "its format is None"),
        ("plan.json", b'{"format": "parquet", "lists_for": ["items"]}', "found those for"),
        ("plan.json", b"[" * 100_000, r"plan\.json is damaged"),
        ("recommendations/part-00000.parquet", b"PAR1", "is damaged"),
        ("recommendations/part-00000.parquet", b"", "is damaged"),
    ],
)
def test_a_damaged_previous_batch_is_refused_by_name(case, tmp_path, file, content, complaint):
    score(*case, n=1)
    (case[2] / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=complaint):
        score(*case[:2], tmp_path / "later", n=2, previous=case[2])


def test_a_previous_batch_without_a_column_is_refused(case, tmp_path):
    score(*case, n=1)
    file = case[2] / "recommendations" / "part-00000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["item_id"]), file)
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet is damaged"):
        score(*case[:2], tmp_path / "later", n=2, previous=case[2])


def test_a_file_of_gates_that_is_not_there_is_named(tmp_path):
    with pytest.raises((ConfigError, DataError), match=r"gates\.toml"):
        read_gates(tmp_path / "gates.toml", with_previous=False)
