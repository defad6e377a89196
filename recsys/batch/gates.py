"""Whether a batch is fit to be published: its measures, and the limits that were set for them (gates).

coverage           share of the catalog that is in at least one list
short_lists        share of users with fewer than n items
emptied            share of users whose list the rules left without an item; at most 0 unless a gate says otherwise
popularity         share of rows on the most popular items: the fewest that have half of all training interactions
overlap            share of a list's items that were in the same user's previous list; mean over a sample of users
score_p05 .. p95   quantiles of the scores in a sample of lists
score_shift        population stability index of these scores against the previous batch (recsys.batch.shift)
item_shift         the same of which items are listed
```toml
coverage = { min = 0.2 }         # a file of gates: min, max, or both
popularity = { min = 0.1, max = 0.9 }
```
"""

from __future__ import annotations

import math
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

from recsys.batch.output import ShardSummary, damaged, read_json
from recsys.batch.plan import ScoringPlan
from recsys.batch.shift import item_shift, score_shift
from recsys.data.interactions import Vocabulary
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation.beyond_accuracy import short_head
from recsys.system.storage import Folder, Location, folder_at
from recsys.system.toml_files import read_toml

OF_TWO = ("overlap", "score_shift", "item_shift")  # compare with a previous batch
MEASURES = ("coverage", "short_lists", "emptied", "popularity", "score_p05", "score_p50", "score_p95", *OF_TWO)
ALWAYS = {"emptied": (-math.inf, 0.0)}  # gates of every batch, unless a file has others for them
SAMPLE = 10_000  # lists compared with the previous batch: the mean is right to about half a percentage point


@dataclass(frozen=True)
class Quality:
    """Measures of a batch.

    Attributes
    ----------
    measures : mapping of str to float
        Each measure by name; NaN where there is nothing to measure.
    listed : ndarray of int64, shape (items,)
        Number of lists each item is in.
    """

    measures: Mapping[str, float]
    listed: NDArray[np.int64]


def read_gates(path: Location, with_previous: bool) -> dict[str, tuple[float, float]]:
    """Read a file of gates.

    Parameters
    ----------
    path : Path or str
        TOML file.
    with_previous : bool
        Whether a previous batch is given, which the gates of `OF_TWO` need.

    Returns
    -------
    dict of str to (float, float)
        Least and most allowed value of each measure, with those of `ALWAYS`; infinite where there is no limit.

    Raises
    ------
    ConfigError
        If the file is not TOML, or holds anything but gates.
    """
    table = read_toml(path, "gates")
    gates = dict(ALWAYS)
    for name, limits in table.items():
        if name not in MEASURES:
            raise ConfigError(f"Expected gates for {', '.join(MEASURES)}; found {name!r}.")
        if not isinstance(limits, Mapping) or not limits or set(limits) - {"min", "max"} or not _are_numbers(limits):
            raise ConfigError(f"Expected {name} = {{ min = 0.1, max = 0.9 }} (or one of them), found {limits!r}.")
        if name in OF_TWO and not with_previous:
            raise ConfigError(f"Expected a previous batch (`previous`) for the gate {name}, found none.")
        gates[name] = (float(limits.get("min", -math.inf)), float(limits.get("max", math.inf)))
    return gates


def _are_numbers(limits: Mapping[str, object]) -> bool:
    """Whether all limits are numbers."""
    return all(type(limit) in (int, float) and limit == limit for limit in limits.values())  # NaN would refuse nothing


def refusals(measures: Mapping[str, float], gates: Mapping[str, tuple[float, float]]) -> list[str]:
    """Compare measures with gates.

    Parameters
    ----------
    measures : mapping of str to float
        Measures of a batch; NaN passes no gate.
    gates : mapping of str to (float, float)
        From `read_gates`.

    Returns
    -------
    list of str
        A sentence for each gate that refuses the batch.
    """
    return [
        f"{name} is {measures[name]:.4g}, expected {_limits_text(*limits)}"
        for name, limits in gates.items()
        if not limits[0] <= measures[name] <= limits[1]
    ]


def _limits_text(least: float, most: float) -> str:
    """The limits in words."""
    sides = [f"at least {least:g}"] * (least > -math.inf) + [f"at most {most:g}"] * (most < math.inf)
    return " and ".join(sides)


def measure(
    directory: Location,
    plan: ScoringPlan,
    summaries: Mapping[str, ShardSummary],
    items: Vocabulary,
    counts: NDArray[np.int64],
    previous: Location | None = None,
) -> Quality:
    """Measure a written batch; it is read once, in parts.

    Parameters
    ----------
    directory : Path or str
        Folder of the batch.
    plan : ScoringPlan
        Its plan.
    summaries : mapping of str to ShardSummary
        The summary of each shard.
    items : Vocabulary
        Ids of the model's items.
    counts : ndarray of int64, shape (items,)
        Training users of each item.
    previous : Path or str, optional
        An earlier batch, to measure the overlap with.

    Returns
    -------
    Quality
        A measure is NaN where there is nothing to measure (no users, no rows, no user in both batches).

    Raises
    ------
    ArtifactError
        If the previous batch is damaged.
    """
    users, short_lists = plan.users, sum(summary["short_lists"] for summary in summaries.values())
    step = max(1, users // SAMPLE)
    listed, _, rows = _count_and_sample(directory, items, step)
    scores = np.array([math.nan]) if rows is None or not len(rows) else rows["score"].to_numpy()
    measures = {
        "coverage": float((listed > 0).mean()),
        "short_lists": short_lists / users if users else math.nan,
        "emptied": sum(summary.get("emptied", 0) for summary in summaries.values()) / max(1, users),
        "popularity": float(listed[short_head(counts)].sum() / max(1, listed.sum())),
        **{f"score_p{q:02d}": float(np.quantile(scores, q / 100)) for q in (5, 50, 95)},
    }
    if previous is not None:
        measures["overlap"] = math.nan if rows is None else _overlap(rows, previous)
        before, vanished, earlier = _count_and_sample(previous, items, step)
        old_scores = np.empty(0) if earlier is None else earlier["score"].to_numpy()
        measures["score_shift"] = math.nan if rows is None else score_shift(old_scores, scores)
        measures["item_shift"] = item_shift(before, listed, vanished)
    return Quality(measures, listed)


def _count_and_sample(
    directory: Location, items: Vocabulary, step: int
) -> tuple[NDArray[np.int64], int, pa.Table | None]:
    """Number of lists each item is in, int64 (items,), of rows with other items, and the rows of every `step`-th list.

    These rows are None where there are none at all.
    """
    listed, unknown, sample, lists = np.zeros(len(items), dtype=np.int64), 0, [], 0
    for table in _tables(directory):
        positions = items.positions(table["item_id"])
        listed += np.bincount(positions[positions >= 0], minlength=len(items))
        unknown += int((positions < 0).sum())
        number = lists + np.cumsum(table["rank"].to_numpy() == 1)  # of each row's list, from 1
        sample.append(table.filter(pa.array(number % step == 0)))
        lists = int(number[-1])
    return listed, unknown, pa.concat_tables(sample) if sample else None


def _overlap(rows: pa.Table, previous: Location) -> float:
    """Mean over the users of `rows` who are also in `previous`; NaN if there are none."""
    target = rows.column_names[0]
    ours = _pairs(rows)
    wanted = pa.array(ours[target].unique())
    theirs = [_pairs(table.filter(pc.is_in(_text(table[target]), wanted))) for table in _tables(previous)]
    old = pd.concat(theirs) if theirs else ours.iloc[:0]
    ours["kept"] = pd.MultiIndex.from_frame(ours).isin(pd.MultiIndex.from_frame(old))
    both = ours[ours[target].isin(old[target])]
    return float(both.groupby(target)["kept"].mean().mean())


def _pairs(table: pa.Table) -> pd.DataFrame:
    """Target and item of each row, as text."""
    target = table.column_names[0]
    frame: pd.DataFrame = pa.table({name: _text(table[name]) for name in (target, "item_id")}).to_pandas()
    return frame


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text: the ids of two batches may differ in type."""
    return column.cast(pa.string())


def require_finished(directory: Location, lists_for: str = "users") -> None:
    """Check that a folder holds a complete batch of the same kind, before work is done that needs it.

    Parameters
    ----------
    directory : Path or str
        Folder of the batch.
    lists_for : {"users", "items"}
        Whose lists it must hold.

    Raises
    ------
    ArtifactError
        If there is no manifest, if the plan or the manifest is damaged, or if the lists are of the other kind.
    """
    folder = folder_at(directory)
    if not folder.is_file("manifest.json"):
        raise ArtifactError(f"Expected a finished batch with manifest.json in {folder}, found none.")
    read_json(folder, "manifest.json")
    _format(folder)
    found = read_json(folder, "plan.json").get("lists_for")
    if found != lists_for:
        raise ArtifactError(f"Expected lists for {lists_for} in {folder}, found those for {found}.")


def _format(folder: Folder) -> str:
    """The format of the lists of a batch."""
    format = read_json(folder, "plan.json").get("format")
    if format not in ("parquet", "csv"):
        raise damaged(folder, "plan.json", f"its format is {format!r}, not parquet or csv")
    return str(format)


def _tables(directory: Location) -> Iterator[pa.Table]:
    """The rows of a batch, some hundred thousand at a time, none of them empty."""
    folder = folder_at(directory)
    format = _format(folder)
    for name in folder.names("recommendations"):
        if name.endswith(f".{format}"):
            with folder.local(name) as file:
                try:
                    yield from (table for table in _read_parts(file, format) if len(table))
                except (pa.ArrowException, OSError, KeyError) as error:
                    raise damaged(folder, name, str(error)) from error


def _read_parts(file: Path, format: str) -> Iterator[pa.Table]:
    """The columns of a file of lists, a part at a time."""
    if format == "csv":
        ids = {name: pa.string() for name in ("user_id", "target_item_id", "item_id")}
        stream = pa_csv.open_csv(file, convert_options=pa_csv.ConvertOptions(column_types=ids))
        tables = (pa.Table.from_batches([batch]) for batch in stream)
    else:
        source = pq.ParquetFile(file)
        tables = (source.read_row_group(i) for i in range(source.num_row_groups))
    return (table.select([table.column_names[0], "item_id", "rank", "score"]) for table in tables)
