"""How a shard is made: users are cut into tiles, tiles become lists, lists are written to files.

The last bits of a matrix product depend on its shape and on the number of threads. So scores are always made for a
tile of `plan.tile` users (the last one padded with empty histories) on one thread. What differs between runs (how many
tiles or shards are worked on at once, and where) changes no byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.batch.output import ShardSummary
from recsys.batch.plan import ScoringPlan, Shard
from recsys.batch.reasons import ListReasons
from recsys.batch.rules import ListRules
from recsys.batch.scorers import BlockScorer, block_scorer
from recsys.batch.targets import Targets
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import empty_history
from recsys.inference.reranking import Request, RuledLists, ruled_lists
from recsys.inference.rules import RuleSet
from recsys.inference.topn import BLOCK, refuse_infinite, top_n_of_blocks
from recsys.models.trained import TrainedModel
from recsys.system.files import sha256
from recsys.system.storage import Location, folder_at
from recsys.system.threads import map_in_order

# Why a list has fewer than n items.
NO_HISTORY = "no item of the history is known to the model"
NOT_TRAINED = "the user was not in training, and this model cannot score anybody else"
LOW_SCORES = "too few items reach the minimum score"
RULED_OUT = "the rules leave too few items"
SMALL_CATALOG = "n is larger than the number of items that may be listed"
NOTHING_LEFT = "too few unseen items are left"

_ROW_GROUP = 524_288  # rows of a Parquet row group, about: written while the next one is made

WORKER_PEAK = "peak_bytes"  # in a summary from another process: the most memory it ever held

ShardInput = tuple[Shard, Targets]  # a shard and its users


@dataclass(frozen=True)
class Lists:
    """Lists of the users of a tile.

    Attributes
    ----------
    targets : Targets
        The users.
    positions : ndarray of int32, shape (users, at most n)
        Best item first; -1 at the end of short lists.
    scores : ndarray of float32, shape (users, at most n)
        Score of each listed item.
    cold : ndarray of bool, shape (users,)
        Users who could not be scored.
    short : dict of int to str
        Row of each user with a short list, and why.
    reasons : ListReasons, optional
        Of the listed items, if the plan asks for them.
    effects : ndarray of int64, shape (1 + 2 rules,), optional
        Lists that the rules emptied; then, for each rule, the places of its items without the rules and with them.
    """

    targets: Targets
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]
    cold: NDArray[np.bool_]
    short: dict[int, str]
    reasons: ListReasons | None = None
    effects: NDArray[np.int64] | None = None


class ShardWriter:
    """Write the files of a shard.

    It holds the model, and knows nothing of who calls it, where, or how many others work at the same time.

    Parameters
    ----------
    directory : Path or str
        Folder of the output.
    plan : ScoringPlan
        What is written.
    saved : TrainedModel
        The model, on its device; changed to bfloat16 where the plan says so.
    rules : ListRules
        What may be in the lists.
    threads : int
        Threads that score tiles, at least 1.
    """

    def __init__(self, directory: Location, plan: ScoringPlan, saved: TrainedModel, rules: ListRules, threads: int = 1):
        self.folder = folder_at(directory)
        self.plan = plan
        self.items = saved.items
        self.rules = rules
        self.threads = threads
        self.model = saved.model
        self.scorer = block_scorer(saved, plan)

    def __call__(self, shard_input: ShardInput) -> tuple[str, ShardSummary]:
        """Write the two files of a shard.

        Parameters
        ----------
        shard_input : (Shard, Targets)
            The shard and its users.

        Returns
        -------
        name : str
            Name of the shard.
        summary : ShardSummary
            Number of users, rows and short lists; what the rules changed, if there are any; sha256 of the files by
            name.
        """
        shard, targets = shard_input
        lists_name, short_name = self.plan.files(shard)
        rows, short, checksums = 0, [], {}
        effects = np.zeros(1 + 2 * len(self.plan.rules), dtype=np.int64)
        with one_thread_each(), self.folder.new_file(lists_name) as file:
            with self._open(file, targets) as writer:
                for group in self._groups(targets):
                    table = self._table(group)
                    rows += table.num_rows
                    writer.write_table(table)
                    short.append(self._short_lists(group))
                    effects += sum(lists.effects for lists in group if lists.effects is not None)
            checksums[lists_name] = sha256(file)  # before it is moved: what happens on the way is found when resuming
        with self.folder.new_file(short_name) as file:
            pq.write_table(pa.concat_tables(short), file, compression="zstd")
            checksums[short_name] = sha256(file)
        return shard.name, {
            "users": len(targets),
            "rows": rows,
            "short_lists": sum(table.num_rows for table in short),
            **({"emptied": int(effects[0]), "effects": effects[1:].tolist()} if self.plan.rules else {}),
            "sha256": checksums,
        }

    def _groups(self, targets: Targets) -> Iterator[list[Lists]]:
        """The lists of the shard in order, in groups of as many tiles as make a row group; threads work ahead."""
        starts = range(0, len(targets), self.plan.tile)
        count = tiles_per_group(self.plan)
        tiles = map_in_order(
            lambda start: self._tile(targets, start), starts, self.threads, self.threads + count, on_one_thread
        )
        while group := list(islice(tiles, count)):
            yield group

    def _tile(self, targets: Targets, start: int) -> Lists:
        """The lists of the tile that begins at a user."""
        tile = targets.rows(start, start + self.plan.tile)
        users, cold = len(tile), tile.cold
        history = padded(tile.history, self.plan.tile)
        rows = None if tile.training_rows is None else np.pad(tile.training_rows.clip(0), (0, self.plan.tile - users))
        seen = history if tile.seen is None else padded(tile.seen, self.plan.tile)
        masked = [seen] if self.plan.filter_seen else []
        masked += [] if tile.excluded is None else [padded(tile.excluded, self.plan.tile)]
        n, allowed = min(self.plan.n, len(self.items)), self.rules.allowed
        blocks = partial(self._blocks, tile, history, rows, cold)
        if self.rules.rules is None:
            positions, scores = top_n_of_blocks(blocks(), n, _pattern(masked), allowed, self.rules.cap)
            lists = self._lists(tile, positions[:users], scores[:users], cold)
        else:
            ids = pa.concat_arrays([tile.ids, pa.nulls(self.plan.tile - users, tile.ids.type)])
            ruled = ruled_lists(blocks, self.rules.rules, Request(ids, history, n, _pattern(masked), allowed))
            lists, scores = self._ruled(tile, self.rules.rules, ruled, cold), ruled.scores
        refuse_infinite(scores)
        if not self.plan.reasons:
            return lists
        return replace(lists, reasons=ListReasons.of(self.model, tile.history, lists.positions, self.plan.reasons))

    def _ruled(self, tile: Targets, rules: RuleSet, ruled: RuledLists, cold: NDArray[np.bool_]) -> Lists:
        """Lists by rules, why some are short, and what each rule changed."""
        users = len(tile)
        positions, without = ruled.positions[:users], ruled.without[:users]
        lists = self._lists(tile, positions, ruled.scores[:users], cold, without)
        emptied = ((without >= 0).any(axis=1) & ~(positions >= 0).any(axis=1)).sum()
        changes = [count for effect in rules.effects(tile.ids, without, positions) for count in effect]
        return replace(lists, effects=np.array([emptied, *changes], dtype=np.int64))

    def _blocks(
        self,
        tile: Targets,
        history: csr_matrix,
        training_rows: NDArray[np.int64] | None,
        cold: NDArray[np.bool_],
    ) -> Iterator[Tensor]:
        """Blocks of scores, those of cold users replaced: by popularity, by their taste, or by -inf, never listed."""
        start, rows, low = 0, np.flatnonzero(cold), self.rules.min_score
        for block in self.scorer.score_blocks(history, training_rows, BLOCK):
            if len(rows):
                block = block.float()  # counts have more digits than bfloat16
                popularity = self.rules.popularity
                stop = start + block.shape[1]
                given = torch.tensor(-torch.inf) if popularity is None else torch.as_tensor(popularity[start:stop])
                block[torch.as_tensor(rows, device=block.device)] = given.to(block.device)
                if self.rules.taste is not None and tile.attributes is not None:
                    described = rows[_described(tile)[rows]]
                    taste = self.rules.taste.scores(tile.attributes[described], slice(start, stop))
                    block[torch.as_tensor(described, device=block.device)] = torch.as_tensor(taste, device=block.device)
            if self.rules.rules is not None and low is not None:  # which give the place to another item
                scored = torch.ones(len(block), dtype=torch.bool)
                scored[rows] = False
                block[(block < low) & scored.to(block.device)[:, None]] = -torch.inf
            start += block.shape[1]
            yield block

    def _lists(
        self,
        tile: Targets,
        positions: NDArray[np.int32],
        scores: NDArray[np.float32],
        cold: NDArray[np.bool_],
        without: NDArray[np.int32] | None = None,
    ) -> Lists:
        """The lists without low scores, and the reasons for short ones; `without` the rules, where there are any."""
        listed, low = positions >= 0, self.rules.min_score
        if low is not None and without is None:
            listed &= (scores >= np.float32(low)) | cold[:, None]
        reachable = len(self.items) if self.rules.allowed is None else int(self.rules.allowed.sum())
        reasons: dict[int, str] = {}
        for row in np.flatnonzero(listed.sum(axis=1) < self.plan.n).tolist():
            if cold[row] and self.rules.popularity is None:
                untrained = tile.training_rows is not None and tile.training_rows[row] < 0
                reasons[row] = NOT_TRAINED if untrained else NO_HISTORY
            elif without is not None and (without[row] >= 0).sum() > listed[row].sum():
                reasons[row] = RULED_OUT
            elif listed[row].sum() < (positions[row] >= 0).sum() or (without is not None and low is not None):
                reasons[row] = LOW_SCORES
            else:
                reasons[row] = SMALL_CATALOG if reachable < self.plan.n else NOTHING_LEFT
        return Lists(tile, np.where(listed, positions, np.int32(-1)), scores, cold, reasons)

    def _table(self, group: list[Lists]) -> pa.Table:
        """The rows of the lists of a group."""
        positions = np.concatenate([lists.positions for lists in group])
        row, rank = np.nonzero(positions >= 0)
        columns = {
            self.plan.target_column: _take(group, row),
            "item_id": self.items.take(positions[row, rank]),
            "rank": pa.array(rank + 1, pa.int32()),
            "score": pa.array(np.concatenate([lists.scores for lists in group])[row, rank], pa.float32()),
        }
        if self.plan.cold == "popularity":
            sources = np.concatenate([_sources(lists) for lists in group])[row]
            columns["source"] = pa.array(sources, pa.string())
        if self.plan.reasons:
            reasons = ListReasons.joined([lists.reasons for lists in group if lists.reasons is not None])
            columns |= reasons.columns(row, rank, self.items)
        table = pa.table(columns)
        return spreadsheet_safe(table) if self.plan.csv_safe else table

    def _short_lists(self, group: list[Lists]) -> pa.Table:
        """A row for each short list of a group, with the reason."""
        start, rows = 0, []
        for lists in group:
            rows += [start + row for row in lists.short]
            start += len(lists.targets)
        lengths = np.concatenate([(lists.positions >= 0).sum(axis=1) for lists in group])
        return pa.table(
            {
                self.plan.target_column: _take(group, np.array(rows, dtype=np.int64)),
                "items": pa.array(lengths[rows], pa.int32()),
                "reason": pa.array([reason for lists in group for reason in lists.short.values()], pa.string()),
            }
        )

    def _open(self, file: Path, targets: Targets) -> Any:
        """A writer of lists in the format of the plan."""
        schema = self._table([_no_lists(targets, self.plan.reasons)]).schema
        if self.plan.format == "csv":
            return pa_csv.CSVWriter(file, schema)
        return pq.ParquetWriter(file, schema, compression="zstd")


WriterMaker = Callable[
    [Location, Any, TrainedModel, ListRules, int], Callable[[ShardInput], tuple[str, ShardSummary]]
]  # folder, plan, model, rules, threads -> what writes a shard: ShardWriter, or another


def shard_inputs(targets: Targets, shards: Iterable[Shard]) -> Iterator[ShardInput]:
    """Yield each shard with its users."""
    return ((shard, targets.rows(shard.start, shard.stop)) for shard in shards)


def tiles_per_group(plan: ScoringPlan) -> int:
    """Return the number of tiles whose lists make a Parquet row group."""
    return max(1, _ROW_GROUP // plan.n // plan.tile)


def widest_block(scorer: BlockScorer, items: int) -> int:
    """Return the number of items in a block of scores: BLOCK, or all items where the model cannot score some.

    Parameters
    ----------
    scorer : BlockScorer
        Scores one empty history to find out.
    items : int
        Number of items the model knows.
    """
    with one_thread_each(), torch.inference_mode():
        return int(next(scorer.score_blocks(empty_history(items), np.zeros(1), BLOCK)).shape[1])


def on_one_thread() -> None:
    """Let torch run the products of the calling thread on that thread alone."""
    torch.set_num_threads(1)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Run matrix products on the thread that asks for them, for the length of a block."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def spreadsheet_safe(table: pa.Table) -> pa.Table:
    """Put a ' before texts that a spreadsheet would run as a formula (they begin with = + - @, tab or return)."""
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts = table.column(position)
            risky = pc.match_substring_regex(texts, r"\A[=+\-@\t\r]")
            marked = pc.binary_join_element_wise(pa.scalar("'", field.type), texts, pa.scalar("", field.type))
            table = table.set_column(position, field.name, pc.if_else(risky, marked, texts))
    return table


def _take(group: list[Lists], rows: NDArray[np.int64]) -> pa.Array:
    """Ids of the users in these rows of a group."""
    ids = pa.concat_arrays([lists.targets.ids for lists in group])
    return Vocabulary(ids).take(rows)


def _sources(lists: Lists) -> NDArray[np.str_]:
    """Where the scores of each user are from."""
    return np.where(lists.cold, np.where(_described(lists.targets), "attributes", "popularity"), "model")


def _described(targets: Targets) -> NDArray[np.bool_]:
    """Which users have attributes."""
    if targets.attributes is None:
        return np.zeros(len(targets), dtype=bool)
    return np.asarray(np.diff(targets.attributes.indptr) > 0)


def _no_lists(targets: Targets, reasons: int) -> Lists:
    """Lists of no users, for the schema of a file."""
    items, scores = np.empty((0, 0), dtype=np.int32), np.empty((0, 0), dtype=np.float32)
    empty = ListReasons(np.empty((0, 0, reasons), dtype=np.int32), np.empty((0, 0, reasons), dtype=np.float32))
    return Lists(targets.rows(0, 0), items, scores, np.empty(0, dtype=bool), {}, empty)


def padded(matrix: csr_matrix, rows: int) -> csr_matrix:
    """Return the matrix with empty rows below, `rows` in all."""
    indptr = np.pad(matrix.indptr, (0, rows - matrix.shape[0]), mode="edge")
    return csr_matrix((matrix.data, matrix.indices, indptr), shape=(rows, matrix.shape[1]))


def _pattern(matrices: list[csr_matrix]) -> csr_matrix | None:
    """CSR with a 1 wherever one of the matrices stores something, be it 0."""
    ones = [csr_matrix((np.ones_like(m.data), m.indices, m.indptr), shape=m.shape) for m in matrices]
    return None if not ones else ones[0] if len(ones) == 1 else csr_matrix(ones[0] + ones[1])
