"""Reading equals a slow, obvious reference in plain Python."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reading_case import cells

from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions, delimited, read_interactions, streams
from recsys.errors import DataError

IDS = st.one_of(
    st.sampled_from(["1", "2", "03", "NA", "x"]),
    st.text(st.sampled_from("ab1 ,;|\t:\"'é€🦊\u2003N"), min_size=1, max_size=5).filter(lambda name: name.strip()),
)
RATINGS = st.sampled_from(["1", "2.5", "-3", "0", " 4", "4.0"])
BAD = st.sampled_from(["", "x", "inf", "NaN", "1_0", "1,5,2", "0x1F"])
ROWS = st.lists(
    st.tuples(IDS, IDS, st.one_of(RATINGS, RATINGS, RATINGS, BAD), st.integers(0, 5)), min_size=1, max_size=40
)
JUNK = st.lists(st.tuples(st.integers(0, 39), st.sampled_from(["", "junk", 'u,"a,3,1', "a,b,c,d,e,f"])), max_size=4)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("u", '"', "1", 0), ("u", '"', "2", 0)], [(1, 'u,"a,3,1')], ",", "\n", True, True, "last", True, 1, 1)
@given(
    rows=ROWS,
    junk=JUNK,
    separator=st.sampled_from([",", ";", "\t", "|", "::"]),
    end=st.sampled_from(["\n", "\r\n"]),
    closed=st.booleans(),
    quoted=st.booleans(),
    policy=st.sampled_from(["last", "first", "mean", "max", "sum"]),
    timed=st.booleans(),
    least=st.sampled_from([0, 1, 2]),
    few=st.sampled_from([1, 3, 256]),
)
def test_reading_equals_a_slow_obvious_reference(
    tmp_path, monkeypatch, rows, junk, separator, end, closed, quoted, policy, timed, least, few
):
    with monkeypatch.context() as patch:
        patch.setattr(delimited, "FEW_LINES", few)
        patch.setattr(streams, "BLOCK", 64 * few)
        names = ["user_id", "item_id", "rating", *(["timestamp"] if timed else [])]
        table = [[*row[:3], *([str(row[3])] if timed else [])] for row in rows]
        lines = [separator.join(quote(cell, separator, quoted) for cell in row) for row in [names, *table]]
        for place, line in junk:
            lines.insert(1 + place % len(lines), line)
        path = tmp_path / "ratings.csv"
        path.write_bytes((end.join(lines) + (end if closed else "")).encode())
        options = ReadingOptions(separator=separator, header=True, duplicates=policy, min_user_items=least)
        expected, counts, users = reference(lines[1:], separator, len(names), policy, least)
        if not expected:
            with pytest.raises(DataError, match=r"found none|only the header"):
                read_interactions(path, options)
            return
        found = read_interactions(path, options)
    assert cells(found) == pytest.approx(expected)
    assert found.users.to_list() == users
    assert {"read": found.ledger.read, **found.ledger.rejected} == counts
    assert found.ledger.kept == len(found) == len(expected)
    matrix = UserItemMatrix.from_interactions(found, ratings=True)
    assert matrix.matrix.nnz == len(expected)
    for (user, item), rating in expected.items():
        position = matrix.users.positions([user])[0], matrix.items.positions([item])[0]
        assert matrix.matrix[position] == pytest.approx(rating)


def quote(cell: str, separator: str, always: bool) -> str:
    if separator == "::":
        return cell.replace(":", "")  # it knows no quotes
    if always or separator in cell or '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


def fields_of(line: str, separator: str) -> list[str] | None:
    """The fields of a line, sign by sign."""
    if len(separator) > 1:
        return line.split(separator)
    fields, field, place, inside = [], "", 0, False
    while place < len(line):
        if inside and line.startswith('""', place):
            field, place = field + '"', place + 2
        elif inside and line[place] == '"':
            inside, place = False, place + 1
        elif not inside and line[place] == '"' and field == "":
            inside, place = True, place + 1
        elif not inside and line.startswith(separator, place):
            fields, field, place = [*fields, field], "", place + len(separator)
        else:
            field, place = field + line[place], place + 1
    return None if inside or "\0" in line else [*fields, field]


def reference(lines, separator, width, policy, least):
    """({(user, item): rating}, counts by reason, users in order): rows one by one, in plain Python."""
    counts: dict[str, int] = defaultdict(int)
    pairs: dict[tuple[str, str], list] = defaultdict(list)
    for line in lines:
        if not line.strip(" "):
            continue
        counts["read"] += 1
        fields = fields_of(line, separator)
        reason = why_bad(fields, width)
        if reason:
            counts[reason] += 1
        else:
            pairs[fields[0], fields[1]].append((int(fields[3]) if width > 3 else 0, float(fields[2])))
    values = {}
    for pair, rows in pairs.items():
        in_time = [rating for _, rating in sorted(rows, key=lambda row: row[0])]
        fold = {
            "last": lambda r: r[-1],
            "first": lambda r: r[0],
            "mean": lambda r: sum(r) / len(r),
            "max": max,
            "sum": sum,
        }
        values[pair] = fold[policy](in_time)
        if len(rows) > 1:
            how = "kept" if policy in ("first", "last") else "taken"
            counts[f"duplicate ({policy} {how})"] += len(rows) - 1
    sizes = {user: sum(pair[0] == user for pair in values) for user, _ in values}
    kept = {pair: rating for pair, rating in values.items() if sizes[pair[0]] >= least}
    if len(kept) < len(values):
        counts["user below min_user_items"] = len(values) - len(kept)
    return kept, dict(counts), sorted({user for user, _ in kept}, key=place_of)


def place_of(name):
    """Whole numbers by value, then all other text by code point."""
    return (0, int(name), "") if re.fullmatch("0|-?[1-9][0-9]*", name) else (1, 0, name)


def why_bad(fields, width):
    if fields is None or len(fields) != width:
        return "unparsable line"
    if not fields[0].strip() or not fields[1].strip():
        return "missing user id" if not fields[0].strip() else "missing item id"
    text = fields[2].strip()
    if text in ("", "NaN"):
        return "missing rating"
    if text == "inf":
        return "infinite rating"
    if text in ("x", "1_0", "1,5,2", "0x1F"):
        return "non-numeric rating"
    if width > 3 and not fields[3].strip().isdecimal():
        return "missing or unreadable timestamp"
    return None
