"""Public data sets are read without any option."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from paths import SHARED

from pipelines.cli.main import main
from recsys.data.reading import read_interactions

REAL = [
    ("ml-latest-small/ratings.csv", 610, 9_724, 100_836),
    ("ml-100k/u.data", 943, 1_682, 100_000),
    ("ml-1m/ratings.csv", 6_040, 3_706, 1_000_209),
    ("ml-1m/random-80-10-10/train.csv", 6_040, None, 791_718),
    ("ml-1m/random-90-10/test.csv", None, None, 100_020),
    ("ml-1m/leave-one-out/train.csv", 6_040, 3_704, 994_169),
    ("gowalla/train.csv", 29_858, 40_981, 810_128),
    ("filmtrust/ratings.txt", 1_508, 2_071, 35_497),
    ("amazon-musical-instruments/ratings.csv", 1_429, 900, 10_261),
    ("lastfm-hetrec2011/user_artists.dat", 1_892, 17_632, 92_834),
    ("steam-200k/game_play.dat", 11_350, 3_600, 70_489),
    ("steam-200k/game_purchase.dat", 12_393, 5_155, 129_511),
    ("jester-1/ratings.csv.gz", 24_983, 100, 1_810_455),
]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which is not there")
@pytest.mark.parametrize(("name", "users", "items", "rows"), REAL, ids=[row[0] for row in REAL])
def test_public_files_are_read_without_any_option(name, users, items, rows):
    found = json.loads(CliRunner().invoke(main, ["--json", "check", str(SHARED / name)]).output)
    assert found["ledger"]["read"] == rows
    assert users in (None, found["facts"]["users"])
    assert items in (None, found["facts"]["items"])
    assert set(found["ledger"]["rejected"]) <= {"duplicate (last kept)"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which is not there")
def test_the_zeros_of_jester_are_ratings():
    found = read_interactions(SHARED / "jester-1/ratings.csv.gz")
    assert (found.rating == 0).sum() == 5_383
    assert (found.scale.min, found.scale.max) == (-9.95, 10)
