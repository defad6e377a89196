"""Rules in TOML, read for the items of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from recsys.data.interactions import Vocabulary
from recsys.errors import ConfigError, DataError
from recsys.inference.rule_file import read_rules
from recsys.inference.rules import Rule, RuleSet

ITEMS = """item_id,genre,price,released,available,brand,title
a,Horror,10,2026-01-01,true,x,The quick brown fox jumps over it
b,Comedy|Horror,25,2025-01-01,TRUE,x,A lazy dog lies in the sun all day
c,Comedy,20,2024-01-01,false,y,The cat sat on the mat and slept
d,,,2025-12-01,false,,A bird in the hand is worth two
z,Drama,5,2020-01-01,true,z,What is not known to the model at all
"""
NAMES = list("abcde")  # of the model; e is not in the table


def none_there() -> NDArray[np.float32]:
    raise AssertionError("no embeddings are needed")


def read(folder: Path, text: str, **more: Any) -> RuleSet:
    (folder / "items.csv").write_text(ITEMS)
    (folder / "rules.toml").write_text('items = "items.csv"\n' + text if "items =" not in text else text)
    return read_rules(folder / "rules.toml", Vocabulary.of(NAMES), more.pop("embeddings", none_there), **more)


def met(folder: Path, condition: str) -> str:
    """The items that meet a condition."""
    (rule,) = read(folder, f"[[rule]]\nexclude = {{ {condition} }}").rules
    return "".join(np.array(NAMES)[rule.items])


@pytest.mark.parametrize(
    ("condition", "items"),
    [
        ('genre = "Horror"', "ab"),
        ('genre = ["Horror", "Comedy"]', "abc"),
        ('genre = "Western"', ""),
        ("available = true", "ab"),
        ("available = false", "cd"),
        ("price = 20", "c"),
        ("price = [10, 25]", "ab"),
        ("price = { max = 20 }", "ac"),
        ("price = { min = 15, max = 25 }", "bc"),
        ("released = { days = 31 }", "ad"),
        ("released = { days = 31, as_of = 2025-01-15 }", "b"),
        ("released = { min = 2025-01-01 }", "abd"),
        ("released = 2024-01-01", "c"),
        ('title = "The cat sat on the mat and slept"', "c"),
        ('genre = "Horror", price = { max = 20 }', "a"),
    ],
)
def test_conditions_on_columns(tmp_path: Path, condition: str, items: str) -> None:
    assert met(tmp_path, condition) == items


def test_all_kinds_of_rules_with_their_settings(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("user_id\nann\n")
    found = read(
        tmp_path,
        """
        [[rule]]
        only = { available = true }
        users = "some.csv"
        [[rule]]
        name = "lift"
        boost = { price = { max = 20 } }
        strength = -0.5
        [[rule]]
        promote = { brand = "x" }
        places = [1, 3]
        [[rule]]
        promote = { brand = "y" }
        share = 0.25
        [[rule]]
        cap = "genre"
        most = 2
        """,
    )
    names = ["only available = true", "lift", "promote brand = x", "promote brand = y", "cap genre"]
    assert [rule.name for rule in found.rules] == names
    only, lift, first, second, cap = found.rules
    assert only.applies(pa.array(["ann", "bob", None])).tolist() == [True, False, False]
    assert lift.applies(pa.array(["ann", None])).tolist() == [True, True]
    assert (lift.strength, first.places, second.share, cap.most) == (-0.5, (1, 3), 0.25, 2)
    assert cap.items.tolist() == [True, True, True, False, False]
    assert cap.groups is not None and cap.groups.toarray().sum(axis=1).tolist() == [1, 2, 1, 0, 0]
    assert found.variety is None


def test_a_cap_by_a_column_of_numbers_takes_each_number_for_a_group(tmp_path: Path) -> None:
    (rule,) = read(tmp_path, '[[rule]]\ncap = "price"\nmost = 1').rules
    assert rule.groups is not None
    assert rule.groups.toarray().sum(axis=1).tolist() == [1, 1, 1, 0, 0]


def test_variety_by_categories_by_embeddings_and_of_the_model(tmp_path: Path) -> None:
    found = read(tmp_path, '[variety]\nby = "genre"\ncalibration = 0.4').variety
    assert found is not None and (found.weight, found.calibrated) == (0.4, True)
    assert found.vectors.sum(axis=1).tolist() == [1, 2, 1, 0, 0]

    pq.write_table(
        pa.table({"item_id": ["b", "c"], "v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))}),
        tmp_path / "vectors.parquet",
    )
    found = read(tmp_path, 'items = "vectors.parquet"\n[variety]\nby = "v"\ndiversity = 0.1').variety
    assert found is not None and found.vectors.tolist() == [[0, 0], [1, 2], [3, 4], [0, 0], [0, 0]]

    own = np.eye(5, dtype=np.float32)
    found = read(tmp_path, "[variety]\ndiversity = 0.1", embeddings=lambda: own).variety
    assert found is not None and found.vectors is own


def test_a_diversity_that_is_given_counts_instead_of_that_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, '[variety]\nby = "genre"\ncalibration = 0.4', diversity=0.2).variety
    assert found is not None and (found.weight, found.calibrated, found.vectors.shape[1]) == (0.2, False, 2)
    own = np.eye(5, dtype=np.float32)
    alone = read_rules(None, Vocabulary.of(NAMES), lambda: own, 0.2)
    assert alone.rules == () and alone.variety is not None and alone.variety.vectors is own


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]", "Expected TOML in"),
        ("what = 1", "Expected items, rule, variety in .*, found 'what'"),
        ("rule = 1", "under \\[\\[rule\\]\\], found 1"),
        ("[[rule]]\nname = 'x'", "Expected one of exclude, only, boost, promote, cap in rule 1 of .*, found name"),
        ("[[rule]]\nonly = { price = 1 }\nexclude = { price = 2 }", "Expected one of"),
        ("[[rule]]\nonly = { price = 1 }\nmost = 2", "in rule 1 of .*, found 'most'"),
        ("[[rule]]\nonly = 3", 'Expected only = { COLUMN = "VALUE" } in rule 1'),
        ("[[rule]]\nonly = { colour = 'red' }", "Expected 'colour' among .*; found no such column"),
        ("[[rule]]\nonly = { price = 'cheap' }", "Expected a number as price in rule 1 of .*, found 'cheap'"),
        ("[[rule]]\nonly = { genre = { max = 3 } }", "Expected a column of numbers or dates for limits as genre"),
        ("[[rule]]\nonly = { price = { days = 3 } }", "Expected limits \\(min, max\\) as price"),
        ("[[rule]]\nonly = { released = { as_of = 2026-01-01 } }", "Expected limits \\(min, max, days, as_of\\)"),
        ("[[rule]]\nonly = { price = [] }", "Expected a value, a list of values or a table"),
        ("[[rule]]\nboost = { price = 1 }", "Expected a number as strength in rule 1 of .*, found None"),
        ("[[rule]]\nboost = { price = 1 }\nstrength = true", "Expected a number as strength"),
        ("[[rule]]\npromote = { price = 1 }", "Expected share = 0.2 or places = \\[1, 5\\] in rule 1"),
        ("[[rule]]\npromote = { price = 1 }\nshare = 2", "Expected a share above 0, at most 1, in rule 1"),
        ("[[rule]]\npromote = { price = 1 }\nplaces = [0]", "Expected a whole number of at least 1 as places"),
        ("[[rule]]\ncap = 'genre'", "Expected a whole number of at least 1 as most in rule 1 of .*, found None"),
        ("[[rule]]\nonly = { price = 1 }\nname = ''", "Expected a text as the name"),
        ("[[rule]]\nonly = { price = 1 }\nusers = 3", 'Expected users = "FILE" of user ids in rule 1'),
        ("variety = 1", "Expected a table \\[variety\\]"),
        ("[variety]\nby = 'genre'", "Expected diversity = 0.3 or calibration = 0.3"),
        ("[variety]\ndiversity = 1", "Expected a weight of variety from 0 to below 1, found 1"),
        ("[variety]\nby = 'price'\ndiversity = .3", "Expected TOML"),
        ("[variety]\nby = 'price'\ndiversity = 0.3", "Expected a column of categories or embeddings for variety"),
        ("[variety]\ncalibration = 0.3", 'Expected by = "COLUMN" of categories'),
        ("[variety]\nby = 'genre'\nweight = 0.3", "in \\[variety\\] of .*, found 'weight'"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    embeddings = np.eye(5, dtype=np.float32)
    with pytest.raises((ConfigError, DataError), match=message):
        read(tmp_path, text, embeddings=lambda: embeddings)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a TOML file of rules at .*missing.toml"):
        read_rules(tmp_path / "missing.toml", Vocabulary.of(NAMES), none_there)
    (tmp_path / "rules.toml").write_text("[[rule]]\nonly = { price = 1 }")
    with pytest.raises(ConfigError, match=r"Expected items = \"FILE\" in .*, the table with 'price'; found None"):
        read_rules(tmp_path / "rules.toml", Vocabulary.of(NAMES), none_there)


def test_items_with_ids_that_are_numbers_are_found(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,genre\n1,Horror\n2,Comedy\n3,Comedy\n")
    (tmp_path / "rules.toml").write_text('items = "items.csv"\n[[rule]]\nexclude = { genre = "Comedy" }')
    (rule,) = read_rules(tmp_path / "rules.toml", Vocabulary.of([3, 1, 2]), none_there).rules
    assert isinstance(rule, Rule)
    assert rule.items.tolist() == [True, False, True]
