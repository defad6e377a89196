"""Score everybody: the best n items of every user, written to files that can be trusted."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from recsys.artifacts import SavedModel, load_model
from recsys.batch.audience import (
    Audience,
    Rules,
    add_new_users,
    all_items,
    allowed_items,
    excluded_pairs,
    fingerprint,
    group_cap,
    make_audience,
)
from recsys.batch.gates import measure, read_gates, refusals, require_finished
from recsys.batch.output import Note, Plan, keep_notes, open_output, refuse_output, write_manifest
from recsys.batch.ray_engine import CLIENT_BYTES, on_ray
from recsys.batch.shards import (
    PEAK,
    ShardWriter,
    load_writer,
    memory_needed,
    piece_bytes,
    pieces,
    widest_block,
    workers_within,
)
from recsys.data.interactions import Interactions
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError, DataError, GateError, StoreError
from recsys.evaluation.tasks import TASKS
from recsys.reporting.plotting import exposure
from recsys.system.hardware import gpus, usable_cores
from recsys.system.memory import now_and_peak
from recsys.system.storage import Location, absolute, folder_at
from recsys.training.context import TrainingContext

from .cli.options import LocationType, options_from, setting
from .cli.output import as_json, print_json, wrapped
from .cli.progress import watch
from .cli.settings import TrackingOptions, read_histories
from .cli.steps import log_data

GPU_TILE = 4096  # a GPU wants more users in one product than a core


@dataclass(frozen=True)
class Choice:
    """Who gets lists, and what may stand in them."""

    users: Location | None = setting(None, "File of the users to score, in its order; all without it.")
    new_users: Location | None = setting(None, "Ratings of more people, of whom none is in RATINGS.")
    only_items: Location | None = setting(None, "File of the only items to list.")
    exclude_items: Location | None = setting(None, "File of items never to list.")
    exclude_pairs: Location | None = setting(None, "File of user_id, item_id: items not to list for that user.")
    keep_seen: bool = setting(False, "Let items of the history be recommended too.")
    min_score: float | None = setting(None, "Leave out items with a lower score.")
    max_per_group: int | None = setting(None, "At most so many items of a group in a list.")
    groups: Location | None = setting(None, "File of item_id, group (a brand, an author, ...).")
    cold: Literal["popularity", "skip", "fail"] = setting(
        "skip", "Users without a known item: popular items (said in a column), no list, or refuse the job."
    )
    item_to_item: bool = setting(False, "Lists of similar items for every item; needs no RATINGS.")

    def __post_init__(self) -> None:
        if (self.max_per_group is None) != (self.groups is None):
            raise ConfigError("Expected --max-per-group K and --groups FILE together, found one of them.")
        if self.max_per_group is not None and self.max_per_group < 1:
            raise ConfigError(f"Expected max_per_group of at least 1, found {self.max_per_group}.")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise ConfigError(f"Expected a finite min_score, found {self.min_score}.")
        users_only = {"users": self.users, "new-users": self.new_users, "exclude-pairs": self.exclude_pairs}
        given = [name for name, value in users_only.items() if value is not None]
        if self.item_to_item and given:
            raise ConfigError(f"Expected --item-to-item without --{given[0]}, found both.")


@dataclass(frozen=True)
class ScoreJob:
    """Which model, whose histories, how many items, and where the lists go."""

    model: Location
    ratings: tuple[Location, ...]
    output: Location = setting(Path("lists"), "Folder or address for the lists.", "--output", "-o")
    n: int = setting(10, "Length of each list.", "-n")
    choice: Choice = field(default_factory=Choice)
    format: Literal["parquet", "csv"] = setting("parquet", "Format of the lists.")
    csv_safe: bool = setting(False, "Mark ids that a spreadsheet would run as formulas with a '.")
    shard_users: int = setting(65_536, "Users a file.")
    engine: Literal["local", "ray"] = setting("local", "This machine's cores, or a Ray cluster.")
    workers: int | None = setting(None, "Threads (local) or actors (ray); all there are without it.")
    ray_address: str | None = setting(None, "Address of a running Ray cluster; without it one is started here.")
    batch_size: int | None = setting(None, "Users scored at once, at most: fewer workers where it says so.")
    max_memory: str | None = setting(
        None,
        "Limit such as 2GB, kept by running fewer workers. On Ray it is for the command and its actors (Ray's own "
        "processes, some 0.4 GB, apart), with --ray-address for each actor.",
    )
    gates: Location | None = setting(None, "TOML file of limits the lists must keep to be published.")
    previous: Location | None = setting(None, "An earlier output, to measure the overlap with.")
    resume: bool = setting(False, "Go on with a job that was stopped: the same bytes come out.")
    overwrite: bool = setting(False, "Replace an earlier output.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", "bf16 is faster where the chip has it, and approximate: items of nearly equal score change places."
    )
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        for name, count in (("workers", self.workers), ("batch_size", self.batch_size)):
            if count is not None and count < 1:
                raise ConfigError(f"Expected {name} of at least 1, found {count}.")


@dataclass(frozen=True)
class Scored:
    """The folder, its manifest, and how the job went."""

    directory: Location
    manifest: Mapping[str, Any]
    went: Mapping[str, float]
    ledger: str


def run(job: ScoreJob) -> Scored:
    """Do the job. Raises GateError, when all is written and marked unpublished, where a gate refuses."""
    gates = read_gates(job.gates, job.previous is not None) if job.gates else {}
    if job.previous is not None:
        require_finished(job.previous)
    refuse_output(job.output, job.resume, job.overwrite)
    saved = load_model(job.model, job.device)
    program = bytes_held()
    interactions, histories = make_histories(job, saved)
    audience, rules = choose(job.choice, saved, histories)
    plan = make_plan(job, saved, audience, rules)
    workers, memory = plan_memory(job, plan, saved, audience, program)
    done = open_output(job.output, plan, job.resume, job.overwrite)
    with job.tracking.open().run(f"score {saved.model.name}", "score") as tracked:
        if interactions is not None:
            log_data(tracked, interactions)
        tracked.log_params({"model": saved.model.name, "n": job.n, "plan": plan.hash, "engine": job.engine})
        tracked.set_tags({"recsys.training_run": saved.about.get("run_id") or "", "recsys.model_digest": saved.digest})
        started = time.perf_counter()
        written = keep_notes(job.output, plan, done, write(job, plan, saved, audience, rules, workers, done))
        notes = dict(watch(written, len(plan.shards), "scoring", "file"))
        seconds = time.perf_counter() - started
        elsewhere = max((note.pop(PEAK, 0) for note in notes.values()), default=0)  # of one actor
        quality = measure(job.output, plan, notes, saved.items, saved.item_counts, job.previous)
        refused = refusals(quality.measures, gates)
        ledger = "" if interactions is None else interactions.ledger.line()
        facts = {
            "model": {"name": saved.model.name, "digest": saved.digest, "run_id": saved.about.get("run_id")},
            "histories": {
                "ledger": ledger,
                "interactions_on_unknown_items": 0 if histories is None else histories.unknown,
                "users_without_known_items": int(audience.cold.sum()),
            },
            "rules": {
                "items": len(saved.items),
                "items_allowed": len(saved.items) if rules.allowed is None else int(rules.allowed.sum()),
                "pairs_excluded": 0 if audience.excluded is None else audience.excluded.nnz,
            },
            "measures": quality.measures,
            "memory": memory | {"peak_bytes": (now_and_peak() or (0, 0))[1], "peak_bytes_of_an_actor": elsewhere},
        }
        manifest = write_manifest(job.output, plan, notes, facts, refused)
        went = {"seconds": seconds, "users_per_second": plan.users / seconds, "files_resumed": len(done)}
        tracked.log_metrics({**went, "rows": manifest["rows"], **quality.measures})
        if quality.listed.any():
            tracked.log_figure(partial(exposure, quality.listed), "exposure")
        with folder_at(job.output).local("manifest.json") as file:
            tracked.log_artifact(file)
        if refused:
            raise GateError(f"Not published: {'; '.join(refused)}. The lists are in {job.output}, marked so.")
    return Scored(job.output, manifest, went, ledger)


def make_histories(job: ScoreJob, saved: SavedModel) -> tuple[Interactions | None, UserItemMatrix | None]:
    """The ratings, and the histories they make; neither where the lists are for items."""
    if job.choice.item_to_item:
        return None, None
    task = TASKS[saved.model.task]
    interactions = read_histories(saved, job.ratings, job.reading)
    histories = UserItemMatrix.from_interactions(interactions, saved.items, task.ratings)
    if job.choice.new_users is not None:
        newcomers = read_histories(saved, job.choice.new_users, job.reading, "new-users")
        more = UserItemMatrix.from_interactions(newcomers, saved.items, task.ratings)
        histories = add_new_users(histories, more)
    return interactions, histories


def choose(choice: Choice, saved: SavedModel, histories: UserItemMatrix | None) -> tuple[Audience, Rules]:
    """Who gets lists, and by which rules."""
    audience = all_items(saved) if histories is None else make_audience(histories, saved, choice.users)
    if choice.exclude_pairs is not None:
        audience = replace(audience, excluded=excluded_pairs(choice.exclude_pairs, audience, saved.items))
    if choice.cold == "fail" and audience.cold.any():
        raise DataError(
            f"Expected a known item in every history (--cold fail), found {audience.cold.sum():,} of {len(audience):,} "
            "users without: use --cold skip or --cold popularity."
        )
    most, groups = choice.max_per_group, choice.groups
    rules = Rules(
        allowed_items(saved.items, choice.only_items, choice.exclude_items),
        None if most is None or groups is None else group_cap(saved.items, groups, most),
        choice.min_score,
        saved.item_counts.astype(np.float32) if choice.cold == "popularity" else None,
    )
    return audience, rules


def make_plan(job: ScoreJob, saved: SavedModel, audience: Audience, rules: Rules) -> Plan:
    """What the job will write."""
    on_gpu = is_gpu(job)
    return Plan(
        model=saved.digest,
        audience=fingerprint(audience, rules),
        users=len(audience),
        n=job.n,
        lists_for="items" if job.choice.item_to_item else "users",
        filter_seen=not job.choice.keep_seen,
        cold="popularity" if job.choice.cold == "popularity" else "skip",
        shard_users=job.shard_users,
        format=job.format,
        csv_safe=job.csv_safe,
        device="cuda" if on_gpu else "cpu",
        precision=job.precision,
        tile=GPU_TILE if on_gpu else Plan.tile,
    )


def plan_memory(
    job: ScoreJob, plan: Plan, saved: SavedModel, audience: Audience, program: int
) -> tuple[int | None, dict[str, Any]]:
    """How many workers (None: all of a cluster), and the memory expected, in bytes, of those whom the limit is for.

    `program`: what this process held before it read the histories, about what an actor holds.
    """
    limit = None if job.max_memory is None else parse_size(job.max_memory)
    widest = widest_block(ShardWriter(job.output, plan, saved, Rules()).scorer, len(saved.items))
    held, most = bytes_held(), most_workers(job, plan)
    actor = program + 2 * piece_bytes(audience, plan) + memory_needed(plan, widest, 1)  # one piece at work, one waiting

    def cost(workers: int) -> int:
        if job.engine == "local":
            return held + memory_needed(plan, widest, workers)
        each = actor + CLIENT_BYTES
        return each if on_cluster(job) else held + CLIENT_BYTES + workers * each

    workers = workers_within(limit, most or 1, cost)
    whose = "each actor" if on_cluster(job) else "the command" + " and its actors" * (job.engine == "ray")
    expected = {"limit_bytes": limit, "limit_is_for": whose, "expected_bytes": cost(workers), "block": widest}
    return workers if most else None, expected | {"workers": workers if most else "all"}


def most_workers(job: ScoreJob, plan: Plan) -> int | None:
    """Threads or actors before memory is considered; None: as many as a cluster has."""
    here = len(gpus()) if job.engine == "ray" and is_gpu(job) else usable_cores()
    most = job.workers or (None if on_cluster(job) else here)
    return most if job.batch_size is None else min(most or sys.maxsize, max(1, job.batch_size // plan.tile))


def on_cluster(job: ScoreJob) -> bool:
    """Whether the actors have machines of their own."""
    return job.engine == "ray" and job.ray_address is not None


def bytes_held() -> int:
    """Main memory of this process; 0 where the system does not say."""
    return (now_and_peak() or (0, 0))[0]


def write(
    job: ScoreJob,
    plan: Plan,
    saved: SavedModel,
    audience: Audience,
    rules: Rules,
    workers: int | None,
    done: Mapping[str, Note],
) -> Iterator[tuple[str, Note]]:
    """Write the shards that are not done, here or on Ray; name and note of each as it is finished."""
    todo = pieces(audience, [shard for shard in plan.shards if shard.name not in done])
    if job.engine == "local" or len(done) == len(plan.shards):
        return map(ShardWriter(job.output, plan, saved, rules, workers or 1), todo)
    make = partial(load_writer, absolute(job.model), job.device, absolute(job.output), plan, rules)
    return on_ray(make, todo, workers, job.ray_address, is_gpu(job))


def is_gpu(job: ScoreJob) -> bool:
    """Whether scores are made on a GPU."""
    return TrainingContext(device=job.device).resolve_device().type == "cuda"


def parse_size(text: str) -> int:
    """`2GB` -> 2,000,000,000 bytes; KB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of 1024."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", text, re.IGNORECASE)
    if not found:
        raise ConfigError(f"Expected a size such as 2GB or 500MB, found {text!r}.")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** ("KMGT".index(found[2].upper()) + 1))


@click.command("score")
@click.argument("model", type=LocationType())
@click.argument("ratings", type=LocationType(), nargs=-1)
@options_from(ScoreJob)
def command(job: ScoreJob) -> None:
    """Write the best N unseen items of every user in RATINGS, with the model directory MODEL.

    All may lie in an object store: s3://bucket/key, gs://bucket/key, ...
    """
    if bool(job.ratings) == job.choice.item_to_item:
        raise click.UsageError("Expected RATINGS, or --item-to-item without them.")
    try:
        scored = run(job)
    except (KeyboardInterrupt, OSError, StoreError) as error:
        raise click.ClickException(stopped(job.output, error)) from error
    report(scored, job)


def stopped(output: Location, error: BaseException) -> str:
    """What stopped the job, what is there, and how to go on."""
    if isinstance(error, StoreError):  # it is not asked again
        return f"Stopped. {error} What is written stays: the same command with --resume goes on after it."
    why = "by you" if isinstance(error, KeyboardInterrupt) else f"{error}"
    count = len(folder_at(output).names("recommendations"))
    return f"Stopped: {why}. {count} files of lists are in {output}; the same command with --resume goes on after them."


def report(scored: Scored, job: ScoreJob) -> None:
    """What was written."""
    manifest, went = scored.manifest, scored.went
    if as_json():
        print_json({"directory": scored.directory, "manifest": manifest, "went": went})
        return
    if scored.ledger:
        click.echo(scored.ledger)
    unknown = manifest["histories"]["interactions_on_unknown_items"]
    if unknown:
        click.echo(f"{unknown:,} interactions are on items the model does not know")
    if job.choice.only_items is not None or job.choice.exclude_items is not None:
        click.echo(f"{manifest['rules']['items_allowed']:,} of {manifest['rules']['items']:,} items may be listed")
    if job.choice.exclude_pairs is not None:
        click.echo(f"{manifest['rules']['pairs_excluded']:,} pairs of these users and items are excluded")
    click.echo(
        f"{manifest['rows']:,} rows for {manifest['users']:,} {manifest['plan']['lists_for']} in "
        f"{went['seconds']:.1f} s ({went['users_per_second']:,.0f} a second)"
    )
    if manifest["measures"]:
        measures = manifest["measures"]
        click.echo(
            wrapped(
                f"{measures['coverage']:.1%} of the catalog is listed; {measures['popularity']:.1%} of the rows are "
                "on the items that have half of all training interactions"
            )
        )
    if manifest["short_lists"]:
        click.echo(f"{manifest['short_lists']:,} lists are shorter than asked: {scored.directory}/short_lists says why")
    click.echo(f"Lists: {scored.directory}/recommendations")
