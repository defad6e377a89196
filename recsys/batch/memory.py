"""Main memory of a batch job: how much it needs, and how many workers stay within a limit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.batch.engines import BatchJob
from recsys.batch.plan import ScoringPlan
from recsys.batch.scorers import block_scorer
from recsys.batch.shards import tiles_per_group, widest_block
from recsys.batch.targets import Targets
from recsys.errors import ConfigError
from recsys.inference.rules import RuleSet
from recsys.inference.variety import pool_size
from recsys.models.contributions import WORKING_BYTES
from recsys.system.memory import now_and_peak

RAY_CLIENT_BYTES = 80_000_000  # main memory that Ray adds to the command and to each actor, about

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class MemoryPlan:
    """Workers of a batch job and the memory they are expected to need.

    Attributes
    ----------
    workers : int or None
        Threads or actors; None: as many as the cluster has.
    limit_bytes : int or None
        The limit that was asked for.
    limit_is_for : str
        Which processes the limit and the expectation are for.
    expected_bytes : int
        Main memory these processes are expected to need, at most.
    block : int
        Items scored at once.
    """

    workers: int | None
    limit_bytes: int | None
    limit_is_for: str
    expected_bytes: int
    block: int


def plan_memory(job: BatchJob, program_bytes: int) -> MemoryPlan:
    """Choose the number of workers, so that the job stays within its memory limit.

    Parameters
    ----------
    job : BatchJob
        What is written, and how.
    program_bytes : int
        What this process held before it read the histories: about what an actor holds.

    Returns
    -------
    MemoryPlan

    Raises
    ------
    ConfigError
        If not even one worker stays within the limit.
    """
    plan, execution = job.plan, job.execution
    block = widest_block(block_scorer(job.saved, plan), len(job.saved.items))
    held, most = process_bytes(), execution.most_workers(plan.tile)
    ruled = ruling_bytes(job.rules.rules, plan, block)

    def working(workers: int) -> int:
        return workers * ruled + working_bytes(plan, block, workers)

    # An actor holds one shard that it works on, and one that waits.
    actor = program_bytes + 2 * shard_bytes(job.targets, plan) + working(1) + RAY_CLIENT_BYTES

    def cost(workers: int) -> int:
        if execution.engine == "local":
            return held + working(workers)
        return actor if execution.on_cluster else held + RAY_CLIENT_BYTES + workers * actor

    workers = limit_workers(execution.max_memory, most or 1, cost)
    scope = "each actor" if execution.on_cluster else "the command" + " and its actors" * (execution.engine == "ray")
    return MemoryPlan(workers if most else None, execution.max_memory, scope, cost(workers), block)


def working_bytes(plan: ScoringPlan, block: int, threads: int) -> int:
    """Return the memory of the work itself, beyond the model and the histories, at most.

    It is threads x tile x block x 12 (scores and the work of selecting the best) + 4 x rows of a row group x 64 (lists,
    as positions, as a table, and while Parquet encodes them). With reasons, a row is as much larger as it has columns
    more, and each thread finds contributions (`recsys.models.contributions.WORKING_BYTES`).

    Parameters
    ----------
    plan : ScoringPlan
        Length of the lists and users in a tile.
    block : int
        Items scored at once.
    threads : int
        Tiles scored at the same time.

    Returns
    -------
    int
        Bytes.
    """
    row = 64 + 32 * plan.reasons
    lists = 4 * tiles_per_group(plan) * plan.tile * min(plan.n, block) * row
    return threads * (plan.tile * block * 12 + (WORKING_BYTES if plan.reasons else 0)) + lists


def ruling_bytes(rules: RuleSet | None, plan: ScoringPlan, block: int) -> int:
    """Return the memory that one thread needs for rules, at most: a copy of the scores, and the candidates of a tile.

    Parameters
    ----------
    rules : RuleSet, optional
        None: nothing is needed.
    plan : ScoringPlan
        Length of the lists and users in a tile.
    block : int
        Items scored at once.

    Returns
    -------
    int
        Bytes: tile x (block x 8 + candidates x (64 + 8 for each number that makes an item like another)).
    """
    if rules is None:
        return 0
    candidates = max(pool_size(plan.n), 4 * plan.n) * (1 + len(rules.of("promote")))
    numbers = 0 if rules.variety is None else rules.variety.vectors.shape[1]
    return plan.tile * (8 * block + candidates * (64 + 8 * numbers))


def shard_bytes(targets: Targets, plan: ScoringPlan) -> int:
    """Return the size in bytes of the largest shard's input: ids, histories, seen and excluded items of its users."""
    users = min(plan.shard_users, len(targets))
    ends = np.append(np.arange(0, len(targets), max(1, users)), len(targets))
    matrices = [
        matrix for matrix in (targets.history, targets.excluded, targets.seen, targets.attributes) if matrix is not None
    ]
    cells = sum(int(np.diff(matrix.indptr[ends]).max(initial=0)) for matrix in matrices)
    return cells * 8 + users * (4 * len(matrices) + int(targets.ids.nbytes) // max(1, len(targets)))


def limit_workers(limit: int | None, wanted: int, cost: Callable[[int], int]) -> int:
    """Reduce the number of workers until their cost stays within a limit.

    Parameters
    ----------
    limit : int or None
        Bytes; None: no limit.
    wanted : int
        Workers without a limit.
    cost : callable
        Bytes that a number of workers need.

    Returns
    -------
    int
        At most `wanted`, at least 1.

    Raises
    ------
    ConfigError
        If one worker alone needs more than the limit.
    """
    if limit is None:
        return wanted
    for workers in range(wanted, 0, -1):
        if cost(workers) <= limit:
            return workers
    raise ConfigError(
        f"Expected max_memory of at least {cost(1) / 1e9:.2f}GB (the program, the model, the histories, and the work "
        f"of one worker), found {limit / 1e9:.2f}GB: raise it, shorten the lists, or score fewer users in one job."
    )


def process_bytes() -> int:
    """Return the main memory of this process in bytes; 0 where the system does not tell."""
    return (now_and_peak() or (0, 0))[0]


def parse_size(text: str) -> int:
    """Read a size such as `2GB`.

    Parameters
    ----------
    text : str
        A number and a unit: KB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB powers of 1024.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ConfigError
        If the text is not a size.
    """
    found = _SIZE.fullmatch(text)
    if not found:
        raise ConfigError(f"Expected a size such as 2GB or 500MB, found {text!r}.")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** ("KMGT".index(found[2].upper()) + 1))
