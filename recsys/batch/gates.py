"""Is a batch fit to be published? Its measures, and the limits somebody set for them.

coverage           share of the catalog that stands in at least one list
short_lists        share of users with fewer than n items
popularity         share of rows on the short head: the fewest items that have half of all training interactions
overlap            share of a list's items that were in the same user's previous list; mean over a sample of users
score_p05 .. p95   quantiles of the sample's scores
```toml
coverage = { min = 0.2 }         # a file of gates: least, most, or both
popularity = { min = 0.1, max = 0.9 }
```
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.batch.output import Note, Plan
from recsys.data.interactions import Vocabulary
from recsys.errors import ArtifactError, ConfigError
from recsys.system.storage import Location, folder_at, local_copy

MEASURES = ("coverage", "short_lists", "popularity", "overlap", "score_p05", "score_p50", "score_p95")
SAMPLE = 10_000  # users compared with the previous batch: the mean is right to about half a point in a hundred


@dataclass(frozen=True)
class Quality:
    """Measures of a batch by name, and what a plot needs: lists each item stands in, int64 (items,)."""

    measures: Mapping[str, float]
    listed: NDArray[np.int64]


def read_gates(path: Location, with_previous: bool) -> dict[str, tuple[float, float]]:
    """Least and most allowed of each measure. Raises ConfigError for what is not a gate, before any work is done."""
    try:
        with local_copy(path) as file:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"Expected TOML in {path}, found: {error}.") from error
    gates = {}
    for name, limits in table.items():
        if name not in MEASURES:
            raise ConfigError(f"Expected gates for {', '.join(MEASURES)}; found {name!r}.")
        if not isinstance(limits, Mapping) or not limits or set(limits) - {"min", "max"} or not _numbers(limits):
            raise ConfigError(f"Expected {name} = {{ min = 0.1, max = 0.9 }} (or one of them), found {limits!r}.")
        if name == "overlap" and not with_previous:
            raise ConfigError("Expected --previous DIR for the gate overlap, found none.")
        gates[name] = (float(limits.get("min", -math.inf)), float(limits.get("max", math.inf)))
    return gates


def _numbers(limits: Mapping[str, object]) -> bool:
    return all(type(limit) in (int, float) and limit == limit for limit in limits.values())  # NaN would refuse nothing


def refusals(measures: Mapping[str, float], gates: Mapping[str, tuple[float, float]]) -> list[str]:
    """A sentence for each gate that does not let the batch through; a measure that is not a number passes none."""
    return [
        f"{name} is {measures[name]:.4g}, expected {_limits(*limits)}"
        for name, limits in gates.items()
        if not limits[0] <= measures[name] <= limits[1]
    ]


def _limits(least: float, most: float) -> str:
    sides = [f"at least {least:g}"] * (least > -math.inf) + [f"at most {most:g}"] * (most < math.inf)
    return " and ".join(sides)


def measure(
    directory: Location,
    plan: Plan,
    notes: Mapping[str, Note],
    items: Vocabulary,
    counts: NDArray[np.int64],
    previous: Location | None = None,
) -> Quality:
    """Read a written batch once, a piece at a time. `counts`: training users of each item, int64 (items,).

    What there is nothing to measure by (no users, no rows, no user in both batches) is not a number.
    """
    users, short_lists = plan.users, sum(note["short_lists"] for note in notes.values())
    step = max(1, users // SAMPLE)
    listed, sample, lists = np.zeros(len(items), dtype=np.int64), [], 0
    for table in _tables(directory):
        positions = items.positions(table["item_id"])
        listed += np.bincount(positions[positions >= 0], minlength=len(items))
        number = lists + np.cumsum(table["rank"].to_numpy() == 1)  # of each row's list, from 1
        sample.append(table.filter(pa.array(number % step == 0)))
        lists = int(number[-1])
    rows = pa.concat_tables(sample) if sample else None
    scores = np.array([math.nan]) if rows is None or not len(rows) else rows["score"].to_numpy()
    measures = {
        "coverage": float((listed > 0).mean()),
        "short_lists": short_lists / users if users else math.nan,
        "popularity": float(listed[_short_head(counts)].sum() / max(1, listed.sum())),
        **{f"score_p{q:02d}": float(np.quantile(scores, q / 100)) for q in (5, 50, 95)},
    }
    if previous is not None:
        measures["overlap"] = math.nan if rows is None else _overlap(rows, previous)
    return Quality(measures, listed)


def _short_head(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fewest items that have half of all interactions."""
    order = np.argsort(-counts, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)) + 1]


def _overlap(rows: pa.Table, previous: Location) -> float:
    """Mean over the users of `rows` who are in `previous` too; not a number without such."""
    target = rows.column_names[0]
    ours = _pairs(rows)
    wanted = pa.array(ours[target].unique())
    theirs = [_pairs(table.filter(pc.is_in(_text(table[target]), wanted))) for table in _tables(previous)]
    old = pd.concat(theirs) if theirs else ours.iloc[:0]
    ours["kept"] = pd.MultiIndex.from_frame(ours).isin(pd.MultiIndex.from_frame(old))
    both = ours[ours[target].isin(old[target])]
    return float(both.groupby(target)["kept"].mean().mean())


def _pairs(table: pa.Table) -> pd.DataFrame:
    target = table.column_names[0]
    frame: pd.DataFrame = pa.table({name: _text(table[name]) for name in (target, "item_id")}).to_pandas()
    return frame


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def require_finished(directory: Location) -> None:
    """Raise ArtifactError where the folder is not a complete batch."""
    folder = folder_at(directory)
    if not folder.is_file("manifest.json"):
        raise ArtifactError(f"Expected a finished batch with manifest.json in {folder}, found none.")


def _tables(directory: Location) -> Iterator[pa.Table]:
    """The rows of a batch, some hundred thousand at a time, none of them empty."""
    folder = folder_at(directory)
    format = json.loads(folder.read_text("plan.json"))["format"]
    for name in folder.names("recommendations"):
        if name.endswith(f".{format}"):
            with folder.local(name) as file:
                yield from (table for table in _pieces(file, format) if len(table))


def _pieces(file: Path, format: str) -> Iterator[pa.Table]:
    if format == "csv":
        ids = {name: pa.string() for name in ("user_id", "target_item_id", "item_id")}
        stream = pa_csv.open_csv(file, convert_options=pa_csv.ConvertOptions(column_types=ids))
        return (pa.Table.from_batches([batch]) for batch in stream)
    source = pq.ParquetFile(file)
    return (source.read_row_group(i) for i in range(source.num_row_groups))
