"""How a shard is made: users in tiles, tiles to lists, lists to files.

The last bits of a matrix product depend on its shape and on the number of threads. So scores are always made for a
tile of `plan.tile` users (the last one padded with empty histories) on one thread, and what differs between runs, how
many tiles or shards are worked on at once and where, changes no byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.artifacts import SavedModel, load_model
from recsys.batch.audience import Audience, Rules
from recsys.batch.output import Note, Plan, Shard
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import nobody
from recsys.errors import ConfigError
from recsys.inference.topn import BLOCK, top_n_of_blocks
from recsys.system.memory import now_and_peak
from recsys.system.storage import Location, folder_at, sha256
from recsys.system.threads import in_order
from recsys.training.batches import SparseRows, weighted_sum

# Why somebody has fewer than n items.
NO_HISTORY = "no item of the history is known to the model"
NOT_TRAINED = "the user was not in training, and this model cannot score anybody else"
LOW_SCORES = "too few items reach the minimum score"
SMALL_CATALOGUE = "n is larger than the number of items that may be listed"
NOTHING_LEFT = "too few unseen items are left"

_ROWS = 524_288  # of a Parquet row group, about: written while the next one is made

PEAK = "peak_bytes"  # in a note of another process: the most memory it ever held

Piece = tuple[Shard, Audience]


class BlockScorer(Protocol):
    """Scores histories in blocks of items: a Recommender, or SimilarItems."""

    def score_blocks(self, history: csr_matrix, users: Any = None, width: int = BLOCK) -> Iterator[Tensor]:
        """Scores (rows, up to `width`) of some items at a time, side by side."""


class SimilarItems:
    """Scores items for a history by the cosine of their codes (summed over its items)."""

    def __init__(self, codes: Tensor):
        self.codes = torch.nn.functional.normalize(codes.float(), dim=1)

    def score_blocks(self, history: csr_matrix, users: Any = None, width: int = BLOCK) -> Iterator[Tensor]:
        """Cosines (rows, up to `width`) of some items at a time."""
        wanted = weighted_sum(SparseRows(history, self.codes.device).everything(), self.codes)
        return (wanted @ codes.T for codes in torch.split(self.codes, width))


@dataclass(frozen=True)
class Lists:
    """Lists of a tile's users. positions int32, -1 at the end of short ones; scores float32; both (users, n or fewer).

    short: the number of each user with a short list, and why. cold: bool (users,), who could not be scored.
    """

    audience: Audience
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]
    cold: NDArray[np.bool_]
    short: dict[int, str]


class ShardWriter:
    """Makes the files of a shard. Holds the model; knows nothing of who calls it, where, or beside how many others."""

    def __init__(self, directory: Location, plan: Plan, saved: SavedModel, rules: Rules, threads: int = 1):
        self.folder, self.plan, self.items, self.rules, self.threads = (
            folder_at(directory),
            plan,
            saved.items,
            rules,
            threads,
        )
        if plan.precision == "bf16":
            saved.model.to_bf16()
        similar = plan.lists_for == "items"
        self.scorer: BlockScorer = SimilarItems(saved.model.item_codes()) if similar else saved.model

    def __call__(self, piece: Piece) -> tuple[str, Note]:
        """Write a shard's two files. Returns its name and its note: users, rows, short lists, checksums."""
        shard, audience = piece
        names = self.plan.files(shard)
        rows, short, sums = 0, [], {}
        with one_thread_each(), self.folder.new_file(names[0]) as file:
            with self._open(file, audience) as writer:
                for group in self._groups(audience):
                    table = self._table(group)
                    rows += table.num_rows
                    writer.write_table(table)
                    short.append(self._short_lists(group))
            sums[names[0]] = sha256(file)  # as it was meant: whatever becomes of it on its way, --resume sees
        with self.folder.new_file(names[1]) as file:
            pq.write_table(pa.concat_tables(short), file, compression="zstd")
            sums[names[1]] = sha256(file)
        return shard.name, {
            "users": len(audience),
            "rows": rows,
            "short_lists": sum(table.num_rows for table in short),
            "sha256": sums,
        }

    def _groups(self, audience: Audience) -> Iterator[list[Lists]]:
        """The tiles of the shard, in order, as many together as make a row group; made by threads, some ahead."""
        starts = range(0, len(audience), self.plan.tile)
        together = tiles_together(self.plan)
        tiles = in_order(
            lambda start: self._tile(audience, start), starts, self.threads, self.threads + together, on_one_thread
        )
        while group := list(islice(tiles, together)):
            yield group

    def _tile(self, audience: Audience, start: int) -> Lists:
        tile = audience.cut(start, start + self.plan.tile)
        users, cold = len(tile), tile.cold
        history = _padded(tile.history, self.plan.tile)
        trained = None if tile.trained is None else np.pad(tile.trained.clip(0), (0, self.plan.tile - users))
        masked = [history] if self.plan.filter_seen else []
        masked += [] if tile.excluded is None else [_padded(tile.excluded, self.plan.tile)]
        positions, scores = top_n_of_blocks(
            self._blocks(history, trained, cold),
            min(self.plan.n, len(self.items)),
            _pattern(masked),
            self.rules.allowed,
            self.rules.cap,
        )
        return self._lists(tile, positions[:users], scores[:users], cold)

    def _blocks(
        self, history: csr_matrix, trained: NDArray[np.int64] | None, cold: NDArray[np.bool_]
    ) -> Iterator[Tensor]:
        """Blocks of scores, those of cold users replaced: by popularity, or by -inf, which is never listed."""
        start, rows = 0, np.flatnonzero(cold)
        for block in self.scorer.score_blocks(history, trained, BLOCK):
            if len(rows):
                block = block.float()  # counts have more digits than bfloat16
                popularity = self.rules.popularity
                stop = start + block.shape[1]
                given = torch.tensor(-torch.inf) if popularity is None else torch.as_tensor(popularity[start:stop])
                block[torch.as_tensor(rows, device=block.device)] = given.to(block.device)
            start += block.shape[1]
            yield block

    def _lists(
        self, tile: Audience, positions: NDArray[np.int32], scores: NDArray[np.float32], cold: NDArray[np.bool_]
    ) -> Lists:
        listed = positions >= 0
        if self.rules.min_score is not None:
            listed &= (scores >= np.float32(self.rules.min_score)) | cold[:, None]
        reachable = len(self.items) if self.rules.allowed is None else int(self.rules.allowed.sum())
        reasons: dict[int, str] = {}
        for row in np.flatnonzero(listed.sum(axis=1) < self.plan.n).tolist():
            if cold[row] and self.rules.popularity is None:
                strange = tile.trained is not None and tile.trained[row] < 0
                reasons[row] = NOT_TRAINED if strange else NO_HISTORY
            elif listed[row].sum() < (positions[row] >= 0).sum():
                reasons[row] = LOW_SCORES
            else:
                reasons[row] = SMALL_CATALOGUE if reachable < self.plan.n else NOTHING_LEFT
        return Lists(tile, np.where(listed, positions, np.int32(-1)), scores, cold, reasons)

    def _table(self, group: list[Lists]) -> pa.Table:
        positions = np.concatenate([lists.positions for lists in group])
        row, rank = np.nonzero(positions >= 0)
        columns = {
            self.plan.target: _take(group, row),
            "item_id": self.items.take(positions[row, rank]),
            "rank": pa.array(rank + 1, pa.int32()),
            "score": pa.array(np.concatenate([lists.scores for lists in group])[row, rank], pa.float32()),
        }
        if self.plan.cold == "popularity":
            cold = np.concatenate([lists.cold for lists in group])[row]
            columns["source"] = pa.array(np.where(cold, "popularity", "model"), pa.string())
        table = pa.table(columns)
        return spreadsheet_safe(table) if self.plan.csv_safe else table

    def _short_lists(self, group: list[Lists]) -> pa.Table:
        start, rows = 0, []
        for lists in group:
            rows += [start + row for row in lists.short]
            start += len(lists.audience)
        lengths = np.concatenate([(lists.positions >= 0).sum(axis=1) for lists in group])
        return pa.table(
            {
                self.plan.target: _take(group, np.array(rows, dtype=np.int64)),
                "items": pa.array(lengths[rows], pa.int32()),
                "reason": pa.array([reason for lists in group for reason in lists.short.values()], pa.string()),
            }
        )

    def _open(self, file: Path, audience: Audience) -> Any:
        schema = self._table([_nobody(audience)]).schema
        if self.plan.format == "csv":
            return pa_csv.CSVWriter(file, schema)
        return pq.ParquetWriter(file, schema, compression="zstd")


def load_writer(model: Location, device: str, directory: Location, plan: Plan, rules: Rules) -> Callable[[Piece], Any]:
    """A writer on another machine: the model comes from its folder or address, its notes say what its process held."""
    writer = ShardWriter(directory, plan, load_model(model, device), rules)

    def write(piece: Piece) -> tuple[str, Note]:
        name, note = writer(piece)
        return name, note | {PEAK: (now_and_peak() or (0, 0))[1]}

    return write


def pieces(audience: Audience, shards: Iterable[Shard]) -> Iterator[Piece]:
    """Each shard with its users."""
    return ((shard, audience.cut(shard.start, shard.stop)) for shard in shards)


def tiles_together(plan: Plan) -> int:
    """Tiles whose lists make a row group."""
    return max(1, _ROWS // plan.n // plan.tile)


def memory_needed(plan: Plan, widest: int, threads: int) -> int:
    """Bytes beyond the model and the histories, at most:

    threads x tile x widest block x 12 (scores and the work of the cut) + 4 x rows of a row group x 64 (lists, as
    positions, as a table, and in the hands of Parquet).
    """
    return threads * plan.tile * widest * 12 + 4 * tiles_together(plan) * plan.tile * min(plan.n, widest) * 64


def piece_bytes(audience: Audience, plan: Plan) -> int:
    """Bytes of the largest piece: ids, histories and excluded items of a shard's users."""
    users = min(plan.shard_users, len(audience))
    ends = np.append(np.arange(0, len(audience), plan.shard_users), len(audience))
    matrices = [matrix for matrix in (audience.history, audience.excluded) if matrix is not None]
    cells = sum(int(np.diff(matrix.indptr[ends]).max(initial=0)) for matrix in matrices)
    return cells * 8 + users * (4 * len(matrices) + int(audience.ids.nbytes) // max(1, len(audience)))


def workers_within(limit: int | None, wanted: int, cost: Callable[[int], int]) -> int:
    """As many workers as wanted, or fewer so that their `cost` in bytes stays within the limit.

    Raises ConfigError where not even that of one does.
    """
    if limit is None:
        return wanted
    for workers in range(wanted, 0, -1):
        if cost(workers) <= limit:
            return workers
    raise ConfigError(
        f"Expected --max-memory of at least {cost(1) / 1e9:.2f}GB (the program, the model, the histories, and the work "
        f"of one worker), found {limit / 1e9:.2f}GB: raise it, shorten the lists, or give fewer users at a time."
    )


def widest_block(scorer: BlockScorer, items: int) -> int:
    """Items in the blocks this scorer makes: BLOCK, or all of them where the model cannot make some."""
    with one_thread_each(), torch.inference_mode():
        return int(next(scorer.score_blocks(nobody(items), np.zeros(1), BLOCK)).shape[1])


def on_one_thread() -> None:
    """Products that this thread asks for are made by it alone."""
    torch.set_num_threads(1)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Products run on the thread that asks for them."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def spreadsheet_safe(table: pa.Table) -> pa.Table:
    """Texts a spreadsheet would run as a formula (they begin with = + - @, tab or return) with a ' before them."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts = table.column(place)
            risky = pc.match_substring_regex(texts, r"\A[=+\-@\t\r]")
            marked = pc.binary_join_element_wise(pa.scalar("'", field.type), texts, pa.scalar("", field.type))
            table = table.set_column(place, field.name, pc.if_else(risky, marked, texts))
    return table


def _take(group: list[Lists], rows: NDArray[np.int64]) -> pa.Array:
    ids = pa.concat_arrays([lists.audience.ids for lists in group])
    return Vocabulary(ids).take(rows)


def _nobody(audience: Audience) -> Lists:
    none = np.empty((0, 0))
    return Lists(audience.cut(0, 0), none.astype(np.int32), none.astype(np.float32), np.empty(0, dtype=bool), {})


def _padded(matrix: csr_matrix, rows: int) -> csr_matrix:
    """The matrix with empty rows below, `rows` in all."""
    indptr = np.pad(matrix.indptr, (0, rows - matrix.shape[0]), mode="edge")
    return csr_matrix((matrix.data, matrix.indices, indptr), shape=(rows, matrix.shape[1]))


def _pattern(matrices: list[csr_matrix]) -> csr_matrix | None:
    """CSR with a 1 wherever one of the matrices stores something, be it 0."""
    ones = [csr_matrix((np.ones_like(m.data), m.indices, m.indptr), shape=m.shape) for m in matrices]
    return None if not ones else ones[0] if len(ones) == 1 else csr_matrix(ones[0] + ones[1])
