"""Rules of lists in a TOML file, by the columns of a table of items.

```toml
items = "items.csv"                # beside this file: CSV or Parquet, one row an item

[[rule]]
exclude = { genre = "Horror" }     # a category, or a list of them: any of these

[[rule]]
only = { available = true, price = { max = 20 } }    # all conditions hold

[[rule]]
boost = { released = { days = 365 } }                # at most so old, from the newest date, or as_of = 2026-01-31
strength = 0.3                     # 1 lifts a user's fiftieth best item to the score of the best one

[[rule]]
promote = { brand = "Own" }
share = 0.2                        # of the first places of a list; or places = [1, 5]

[[rule]]
cap = "brand"                      # at most so many items of one brand
most = 2
users = "students.csv"             # any rule may be for some users only

[variety]
by = "genre"                       # what makes items alike; the model's embeddings where there is no column
diversity = 0.3                    # or calibration = 0.3
```
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.data.item_features import Column, FeatureOptions, ItemTable, read_item_table
from recsys.data.reading.id_files import read_ids
from recsys.errors import ConfigError
from recsys.inference.rules import RULE_KINDS, Rule, RuleKind, RuleSet
from recsys.inference.variety import WIDEST, Variety
from recsys.system.storage import Location, as_location
from recsys.system.toml_files import read_toml

MOST_GROUPS = 100  # of an item: a table of items x groups is held
DAY = 86_400_000  # milliseconds
_FURTHER = {"boost": {"strength"}, "promote": {"share", "places"}, "cap": {"most"}}  # keys beside name, users and kind
_SIDES = ("min", "max", "days", "as_of")

Embeddings = Callable[[], NDArray[np.float32]]  # of the items of the model


def read_rules(
    path: Location | None, items: Vocabulary, embeddings: Embeddings, diversity: float | None = None
) -> RuleSet:
    """Read rules, for the items of a model.

    Parameters
    ----------
    path : Path or str, optional
        TOML file; no rules but `diversity` if None.
    items : Vocabulary
        The model's items.
    embeddings : callable
        Returns what makes items alike where the file names no column, float32 (items, size).
    diversity : float, optional
        Weight of variety in place of the file's, from 0 to below 1.

    Returns
    -------
    RuleSet

    Raises
    ------
    ConfigError
        If the file is not TOML, or holds anything but rules.
    DataError
        If a table of items or of users cannot be read, or lacks a column.
    """
    path = None if path is None else as_location(path)
    content = {} if path is None else read_toml(path, "rules")
    _refuse_unknown(content, {"items", "rule", "variety"}, f"in {path}")
    rules, variety = content.get("rule", []), content.get("variety")
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError(f"Expected each rule of {path} under [[rule]], found {rules!r}.")
    if variety is not None and not isinstance(variety, dict):
        raise ConfigError(f"Expected a table [variety] in {path}, found {variety!r}.")
    table = _table(content, path, rules, variety)
    reader = _Reader(path, None if table is None else table.aligned(items))
    made = tuple(reader.rule(rule, number) for number, rule in enumerate(rules, 1))
    return RuleSet(made, reader.variety(variety, embeddings, diversity))


def _table(
    content: Mapping[str, Any], path: Location | None, rules: Sequence[Mapping[str, Any]], variety: Any
) -> ItemTable | None:
    """The columns of the table of items that the rules speak of."""
    wanted = [rule["cap"] for rule in rules if "cap" in rule]
    for rule in rules:
        for conditions in (rule[kind] for kind in RULE_KINDS if kind != "cap" and kind in rule):
            wanted += list(conditions) if isinstance(conditions, dict) else []
    wanted += [variety["by"]] if variety is not None and "by" in variety else []
    if not wanted:
        return None
    place = content.get("items")
    if not isinstance(place, str) or path is None:
        raise ConfigError(f'Expected items = "FILE" in {path}, the table with {wanted[0]!r}; found {place!r}.')
    return read_item_table(_beside(path, place), FeatureOptions(tuple(dict.fromkeys(map(str, wanted)))))


def _beside(path: Location, name: str) -> Location:
    """A file that another one names: relative to its folder."""
    place = as_location(name)
    if isinstance(place, str) or place.is_absolute():
        return place
    return f"{path.rpartition('/')[0]}/{name}" if isinstance(path, str) else path.parent / place


@dataclass(frozen=True)
class _Reader:
    """Makes rules of their tables."""

    path: Location | None
    table: ItemTable | None  # a row for each of the model's items

    def rule(self, given: Mapping[str, Any], number: int) -> Rule:
        """One rule."""
        where = f"in rule {number} of {self.path}"
        kinds = [kind for kind in RULE_KINDS if kind in given]
        if len(kinds) != 1:
            raise ConfigError(f"Expected one of {', '.join(RULE_KINDS)} {where}, found {', '.join(given) or 'none'}.")
        (kind,) = kinds
        _refuse_unknown(given, {"name", "users", kind, *_FURTHER.get(kind, ())}, where)
        name = given.get("name", f"{kind} {_words(given[kind])}")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"Expected a text as the name {where}, found {name!r}.")
        users = None if given.get("users") is None else self._users(given["users"], where)
        if kind == "cap":
            groups = _groups(self._column(given["cap"]), given["cap"])
            if (widest := int(np.diff(groups.indptr).max(initial=0))) > MOST_GROUPS:
                raise ConfigError(
                    f"Expected at most {MOST_GROUPS} values of an item in {given['cap']!r} to cap by, found {widest:,}."
                )
            most = _whole(given.get("most"), "most", where)
            return Rule(name, kind, np.diff(groups.indptr) > 0, users, groups=groups, most=most)
        return self._placed(Rule(name, kind, self._meet(given[kind], kind, where), users), given, where)

    def _placed(self, rule: Rule, given: Mapping[str, Any], where: str) -> Rule:
        """A rule with what a boost or a promotion has besides."""
        if rule.kind == "boost":
            strength = _number(given.get("strength"), "strength", where)
            return replace(rule, strength=strength)
        if rule.kind != "promote":
            return rule
        if ("share" in given) == ("places" in given):
            raise ConfigError(f"Expected share = 0.2 or places = [1, 5] {where}, found {'both' * ('share' in given)}.")
        if "share" in given:
            share = _number(given["share"], "share", where)
            if not 0 < share <= 1:
                raise ConfigError(f"Expected a share above 0, at most 1, {where}, found {share}.")
            return replace(rule, share=share)
        places = given["places"] if isinstance(given["places"], list) else [given["places"]]
        return replace(rule, places=tuple(_whole(place, "places", where) for place in places))

    def _users(self, name: Any, where: str) -> Vocabulary:
        if not isinstance(name, str) or self.path is None:
            raise ConfigError(f'Expected users = "FILE" of user ids {where}, found {name!r}.')
        return read_ids(_beside(self.path, name), "user")

    def _meet(self, conditions: Any, kind: RuleKind, where: str) -> NDArray[np.bool_]:
        """The items that meet all conditions."""
        if not isinstance(conditions, dict) or not conditions:
            raise ConfigError(f'Expected {kind} = {{ COLUMN = "VALUE" }} {where}, found {conditions!r}.')
        met = [_meets(self._column(name), wanted, f"{name} {where}") for name, wanted in conditions.items()]
        return np.asarray(np.all(met, axis=0))

    def _column(self, name: str) -> Column:
        assert self.table is not None  # a column was asked for: it was read
        return self.table.column(name)

    def variety(
        self, given: Mapping[str, Any] | None, embeddings: Embeddings, diversity: float | None
    ) -> Variety | None:
        """How lists are made varied; None where nothing asks for it."""
        where = f"in [variety] of {self.path}"
        given = {} if given is None else dict(given)
        _refuse_unknown(given, {"by", "diversity", "calibration"}, where)
        if diversity is not None:
            given = {"by": given["by"]} if "by" in given else {}
            given["diversity"] = diversity
        if not given:
            return None
        weights = [name for name in ("diversity", "calibration") if name in given]
        if len(weights) != 1:
            raise ConfigError(f"Expected diversity = 0.3 or calibration = 0.3 {where}, found {' and '.join(given)}.")
        weight, calibrated = _number(given[weights[0]], weights[0], where), weights[0] == "calibration"
        if "by" in given:
            return Variety(_vectors(self._column(given["by"]), given["by"]), weight, calibrated)
        if calibrated:
            raise ConfigError(f'Expected by = "COLUMN" of categories {where} to calibrate by, found none.')
        return Variety(embeddings(), weight)


def _meets(column: Column, wanted: Any, where: str) -> NDArray[np.bool_]:
    """Which items have a value that is wanted; those without a value have none."""
    if column.kind == "embedding":
        raise ConfigError(f"Expected a column of categories, text, numbers or dates as {where}, found an embedding.")
    if isinstance(wanted, dict):
        return _within(column, wanted, where)
    values = wanted if isinstance(wanted, list) else [wanted]
    if not values or not all(isinstance(value, (str, int, float, datetime.date)) for value in values):
        raise ConfigError(
            f"Expected a value, a list of values or a table with min or max as {where}, found {wanted!r}."
        )
    if column.kind in ("number", "date"):
        numbers = [_as_number(value, column, where) for value in values]
        return np.isin(column.numbers(), numbers)
    if column.kind == "text":
        cells, row = column.values, np.arange(len(column))
    else:
        cells, row = column.values.flatten(), pc.list_parent_indices(column.values).to_numpy(zero_copy_only=False)
    texts = [str(value) for value in values]
    if any(isinstance(value, bool) for value in values):  # True, TRUE and true are one
        cells, texts = pc.utf8_lower(cells), [text.lower() for text in texts]
    found = np.zeros(len(column), dtype=bool)
    found[row[pc.is_in(cells, pa.array(texts, pa.string())).to_numpy(zero_copy_only=False)]] = True
    return found


def _within(column: Column, limits: Mapping[str, Any], where: str) -> NDArray[np.bool_]:
    """Which items have a number or a date between limits, both included."""
    if column.kind not in ("number", "date"):
        raise ConfigError(
            f"Expected a column of numbers or dates for limits as {where}, found one of {column.kind}: write its "
            "values like 2.50, with a point, or like 2026-01-31."
        )
    known = _SIDES if column.kind == "date" else _SIDES[:2]
    if not limits or set(limits) - set(known) or ("as_of" in limits and "days" not in limits):
        raise ConfigError(f"Expected limits ({', '.join(known)}) as {where}, found {dict(limits)!r}.")
    values = column.numbers()
    able = np.isfinite(values)
    met = able.copy()
    least = [_as_number(limits["min"], column, where)] if "min" in limits else []
    most = [_as_number(limits["max"], column, where)] if "max" in limits else []
    if "days" in limits:
        newest = values[able].max(initial=-np.inf)
        end = _as_number(limits["as_of"], column, where) if "as_of" in limits else newest
        least.append(end - _number(limits["days"], "days", where) * DAY)
        most += [end] if "as_of" in limits else []
    with np.errstate(invalid="ignore"):
        for bound in least:
            met &= values >= bound
        for bound in most:
            met &= values <= bound
    return met


def _as_number(value: Any, column: Column, where: str) -> float:
    """A number, or a date in milliseconds since 1970."""
    if column.kind == "date" and isinstance(value, datetime.date):
        whole = value if isinstance(value, datetime.datetime) else datetime.datetime.combine(value, datetime.time())
        return whole.replace(tzinfo=whole.tzinfo or datetime.UTC).timestamp() * 1000
    if column.kind == "number" and isinstance(value, (int, float)):
        return float(value)
    expected = "a date such as 2026-01-31" if column.kind == "date" else "a number"
    raise ConfigError(f"Expected {expected} as {where}, found {value!r}.")


def _groups(column: Column, name: str) -> csr_matrix:
    """Which item is in which group; items without a value are in none."""
    if column.kind == "categories":
        return column.labels()[0]
    if column.kind == "embedding":
        raise ConfigError(f"Expected a column of categories, text or numbers to cap by, found the embedding {name!r}.")
    codes = column.values.dictionary_encode().indices
    rows = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
    groups = codes.drop_null().to_numpy(zero_copy_only=False)
    cells = np.ones(len(rows), dtype=np.float32), (rows, groups)
    return csr_matrix(cells, shape=(len(column), int(groups.max(initial=0)) + 1))


def _vectors(column: Column, name: str) -> NDArray[np.float32]:
    """What makes items alike: 1 for each of their categories, or an embedding; zeros for items without a value."""
    if column.kind == "categories":
        labels, values = column.labels()
        if len(values) > WIDEST:
            raise ConfigError(
                f"Expected at most {WIDEST:,} different values in {name!r} to tell items apart by, found "
                f"{len(values):,}: choose a column with fewer, genres for example."
            )
        return np.asarray(labels.toarray(), dtype=np.float32)
    if column.kind != "embedding":
        raise ConfigError(f"Expected a column of categories or embeddings for variety, found {name!r}: {column.kind}.")
    size = column.values.type.list_size
    cells = pc.fill_null(column.values, pa.scalar([0.0] * size, column.values.type))
    return np.asarray(cells.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(column), size)


def _words(content: Any) -> str:
    """Conditions in a few words: `genre = Horror, price = max 20`."""
    if isinstance(content, dict):
        return ", ".join(f"{name} = {_value_words(value)}" for name, value in content.items())
    return _value_words(content)


def _value_words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{side} {_value_words(limit)}" for side, limit in value.items())
    if isinstance(value, list):
        return " or ".join(map(_value_words, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ConfigError(f"Expected a number as {name} {where}, found {value!r}.")
    return float(value)


def _whole(value: Any, name: str, where: str) -> int:
    if type(value) is not int or value < 1:
        raise ConfigError(f"Expected a whole number of at least 1 as {name} {where}, found {value!r}.")
    return value


def _refuse_unknown(given: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"Expected {', '.join(sorted(known))} {where}, found {unknown[0]!r}.")
