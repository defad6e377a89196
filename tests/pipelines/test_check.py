from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from malformed import ACCOUNTED, REFUSED

from pipelines.cli.main import main

SAMPLE = "user_id,item_id,rating,timestamp\nu,a,5,0\nu,b,4,1\nv,a,1,86400\n"


def check(*arguments: object):
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_useless_file_is_refused_with_what_was_expected_found_and_to_do(tmp_path, case):
    path = tmp_path / f"ratings{case.suffix}"
    path.write_bytes(case.data)
    result = check(path, *case.flags)
    assert result.exit_code == case.code, result.output
    assert isinstance(result.exception, SystemExit)  # a message, not a traceback
    assert "xpected" in result.output or case.code == 2
    for words in case.says:
        assert words in result.output
    assert len(result.output) < 1000


@pytest.mark.parametrize("case", ACCOUNTED, ids=lambda case: case.name)
def test_a_file_with_some_bad_rows_is_read_and_every_row_accounted_for(tmp_path, case):
    path = tmp_path / "ratings.csv"
    path.write_bytes(case.data)
    result = CliRunner().invoke(main, ["--json", "check", str(path)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["ledger"]["rejected"] == case.rejected
    assert found["ledger"]["kept"] == found["facts"]["rows"] == case.kept
    assert found["ledger"]["read"] == case.kept + sum(case.rejected.values())


def test_the_table_of_malformed_files_holds_sixty_or_more():
    names = [case.name for case in REFUSED + ACCOUNTED]
    assert len(names) >= 60
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("where", ["nothing here", "an empty folder"])
def test_a_place_without_ratings_is_refused(tmp_path, where):
    if where == "an empty folder":
        (tmp_path / where).mkdir()
    result = check(tmp_path / where)
    assert result.exit_code == 1
    assert "Expected" in result.output
    assert "found no" in result.output


def test_the_description_fits_eighty_columns_and_says_what_is_there(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(SAMPLE)
    result = check(path)
    assert result.exit_code == 0, result.output
    assert "users      2, items each 1 to 2, median 1.5" in result.output
    assert "pairs      3, 75.000% of all" in result.output
    assert "ratings    1 to 5 in steps of 1 (rating)" in result.output
    assert "times      1970-01-01 00:00:00 to 1970-01-02 00:00:00 UTC" in result.output
    assert max(map(len, result.output.splitlines()[1:])) <= 80


def test_json_holds_the_same(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(SAMPLE + "w,,3,0\n")
    found = json.loads(CliRunner().invoke(main, ["--json", "check", str(path)]).output)
    assert found["ledger"] == {"read": 4, "kept": 3, "rejected": {"missing item id": 1}}
    assert found["format"]["columns"] == {
        "user": "user_id",
        "item": "item_id",
        "rating": "rating",
        "timestamp": "timestamp",
    }
    assert found["facts"]["density"] == 0.75


def test_pictures_are_drawn_of_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "r.csv"
    path.write_text(SAMPLE)
    assert check(path, "--plots", tmp_path / "plots").exit_code == 0
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"long_tail.png", "ratings.png", "activity.png"}
    path.write_text("user_id,item_id\nu,a\n")
    assert check(path, "--plots", tmp_path / "fewer").exit_code == 0
    assert {p.name for p in (tmp_path / "fewer").iterdir()} == {"long_tail.png"}


def test_play_counts_are_recognized_and_explained(tmp_path):
    path = tmp_path / "plays.tsv"
    path.write_text("userID\tartistID\tweight\n" + "".join(f"u{i}\ta{i}\t{i**4}\n" for i in range(1, 40)))
    output = check(path).output
    assert "(count)" in output
    assert "--min-rating" in output
    assert "log(1 + count)" in output


def test_a_decimal_comma_is_told_from_other_text(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("user_id;item_id;rating\nu;a;4,5\n")
    assert "found '4,5': write a point in place of the decimal comma in line 2" in check(path).output
    path.write_text("user_id;item_id;rating\nu;a;4/5\n")
    assert "decimal comma" not in check(path).output


def test_of_a_store_prepare_writes_the_rows_left_out(tmp_path):
    path, store = tmp_path / "r.csv", tmp_path / "store"
    path.write_text(SAMPLE + "w,,3,5\n")
    assert CliRunner().invoke(main, ["prepare", str(path), "-o", str(store)]).exit_code == 0
    said = " ".join(check(store, "--rejects", tmp_path / "rejects.csv").output.split())
    assert "prepare --rejects FILE writes them" in said
    assert "each with its line and reason" not in said
