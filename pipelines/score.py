"""Score everybody: the best n items of every user, written to files that can be trusted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from recsys.artifacts import load_model
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
from recsys.batch.engines import BatchJob, Execution, write_shards
from recsys.batch.gates import measure, read_gates, refusals, require_finished
from recsys.batch.memory import parse_size, plan_memory, process_bytes
from recsys.batch.output import OpenedOutput, draft_of, open_output, record_shards, refuse_output, write_manifest
from recsys.batch.plan import ScoringPlan
from recsys.batch.shards import WORKER_PEAK
from recsys.data.interactions import Interactions
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError, DataError, EngineError, GateError, StorageError
from recsys.evaluation.tasks import TASKS
from recsys.models.trained import TrainedModel
from recsys.reporting.plotting import exposure
from recsys.system.memory import now_and_peak
from recsys.system.storage import Location, folder_at

from .cli.options import LocationType, options_from, setting
from .cli.output import as_json, print_json, wrapped
from .cli.progress import watch
from .cli.settings import TrackingOptions, read_histories
from .cli.steps import log_data


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
        _ = self.execution  # refuses what is out of range

    @property
    def execution(self) -> Execution:
        """How the library runs the job."""
        limit = None if self.max_memory is None else parse_size(self.max_memory)
        return Execution(self.engine, self.workers, self.ray_address, self.batch_size, limit, self.device)


@dataclass(frozen=True)
class Scored:
    """The folder, its manifest, and how the job went."""

    directory: Location
    manifest: Mapping[str, Any]
    speed: Mapping[str, float]
    ledger: str


def run(job: ScoreJob) -> Scored:
    """Do the job. Raises GateError, when all is written and marked unpublished, where a gate refuses."""
    gates = read_gates(job.gates, job.previous is not None) if job.gates else {}
    if job.previous is not None:
        require_finished(job.previous, "items" if job.choice.item_to_item else "users")
    refuse_output(job.output, job.resume, job.overwrite)
    saved = load_model(job.model, job.device)
    program_bytes = process_bytes()
    interactions, histories = make_histories(job, saved)
    batch = make_batch(job, saved, histories)
    plan = batch.plan
    memory = plan_memory(batch, program_bytes)
    output = open_output(job.output, plan, job.resume, job.overwrite)
    with job.tracking.open().run(f"score {saved.model.name}", "score") as tracked:
        if interactions is not None:
            log_data(tracked, interactions)
        tracked.log_params({"model": saved.model.name, "n": job.n, "plan": plan.hash, "engine": job.engine})
        tracked.set_tags({"recsys.training_run": saved.about.get("run_id") or "", "recsys.model_digest": saved.digest})
        started = time.perf_counter()
        written = write_shards(batch, output.location, memory.workers, output.finished)
        recorded = record_shards(output.location, plan, output.finished, written)
        summaries = dict(watch(recorded, len(plan.shards), "scoring", "file"))
        seconds = time.perf_counter() - started
        peak_of_actor = max((summary.pop(WORKER_PEAK, 0) for summary in summaries.values()), default=0)
        quality = measure(output.location, plan, summaries, saved.items, saved.item_counts, job.previous)
        refused = refusals(quality.measures, gates)
        facts = {
            **facts_of(batch, interactions, histories),
            "measures": quality.measures,
            "memory": asdict(memory)
            | {"workers": memory.workers or "all"}
            | {"peak_bytes": (now_and_peak() or (0, 0))[1], "peak_bytes_of_an_actor": peak_of_actor},
        }
        manifest = write_manifest(output.location, plan, summaries, facts, refused)
        speed = {"seconds": seconds, "users_per_second": plan.users / seconds, "files_resumed": len(output.finished)}
        tracked.log_metrics({**speed, "rows": manifest["rows"], **quality.measures})
        if quality.listed.any():
            tracked.log_figure(partial(exposure, quality.listed), "exposure")
        with folder_at(output.location).local("manifest.json") as file:
            tracked.log_artifact(file)
        if refused:
            raise GateError(not_published(refused, output))
        output.publish()
    return Scored(job.output, manifest, speed, ledger_line(interactions))


def facts_of(
    batch: BatchJob, interactions: Interactions | None, histories: UserItemMatrix | None
) -> dict[str, dict[str, Any]]:
    """What the manifest says of the model, the histories and the rules."""
    saved, audience, allowed = batch.saved, batch.audience, batch.rules.allowed
    return {
        "model": {"name": saved.model.name, "digest": saved.digest, "run_id": saved.about.get("run_id")},
        "histories": {
            "ledger": ledger_line(interactions),
            "interactions_on_unknown_items": 0 if histories is None else histories.unknown,
            "users_without_known_items": int(audience.cold.sum()),
        },
        "rules": {
            "items": len(saved.items),
            "items_allowed": len(saved.items) if allowed is None else int(allowed.sum()),
            "pairs_excluded": 0 if audience.excluded is None else audience.excluded.nnz,
        },
    }


def ledger_line(interactions: Interactions | None) -> str:
    """What became of the rows of RATINGS; empty where there are none."""
    return "" if interactions is None else interactions.ledger.line()


def not_published(refused: Sequence[str], output: OpenedOutput) -> str:
    """Why the lists are not published, and where they are."""
    text = f"Not published: {'; '.join(refused)}. The lists are in {output.location}, marked as not published"
    return text + ("." if output.location == output.target else f"; {output.target} still holds the earlier lists.")


def make_histories(job: ScoreJob, saved: TrainedModel) -> tuple[Interactions | None, UserItemMatrix | None]:
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


def choose(choice: Choice, saved: TrainedModel, histories: UserItemMatrix | None) -> tuple[Audience, Rules]:
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


def make_batch(job: ScoreJob, saved: TrainedModel, histories: UserItemMatrix | None) -> BatchJob:
    """What the job will write, and how."""
    audience, rules = choose(job.choice, saved, histories)
    plan = ScoringPlan(
        model=saved.digest,
        inputs=fingerprint(audience, rules),
        users=len(audience),
        n=job.n,
        lists_for="items" if job.choice.item_to_item else "users",
        filter_seen=not job.choice.keep_seen,
        cold="popularity" if job.choice.cold == "popularity" else "skip",
        shard_users=job.shard_users,
        format=job.format,
        csv_safe=job.csv_safe,
        device=job.execution.device_type,
        precision=job.precision,
        tile=job.execution.tile,
    )
    return BatchJob(plan, saved, job.model, audience, rules, job.execution)


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
    except (KeyboardInterrupt, OSError, StorageError, EngineError) as error:
        raise click.ClickException(stopped(job.output, error)) from error
    report(scored, job)


def stopped(output: Location, error: BaseException) -> str:
    """What stopped the job, what is there, and how to continue."""
    if isinstance(error, StorageError):  # it is not asked again
        return f"Stopped. {error} What is written stays: the same command with --resume continues after it."
    if isinstance(error, KeyboardInterrupt):
        why = "Interrupted."
    elif isinstance(error, EngineError):
        why = f"{error}"
    else:
        why = f"Stopped: {error}."
    return f"{why} {count_of_files(output)}; run the same command with --resume to continue after them."


def count_of_files(output: Location) -> str:
    """How many files of lists are there."""
    draft = draft_of(output)
    places = [place for place in (draft, output) if place is not None and folder_at(place).is_file("plan.json")]
    place = places[0] if places else output
    count = len(folder_at(place).names("recommendations"))
    return f"{count} {'file of lists is' if count == 1 else 'files of lists are'} in {place}"


def report(scored: Scored, job: ScoreJob) -> None:
    """What was written."""
    manifest, speed = scored.manifest, scored.speed
    if as_json():
        print_json({"directory": scored.directory, "manifest": manifest, "speed": speed})
        return
    if scored.ledger:
        click.echo(scored.ledger)
    unknown = manifest["histories"]["interactions_on_unknown_items"]
    if unknown:
        click.echo(f"{unknown:,} interaction{' is' if unknown == 1 else 's are'} with items the model does not know")
    if job.choice.only_items is not None or job.choice.exclude_items is not None:
        click.echo(f"{manifest['rules']['items_allowed']:,} of {manifest['rules']['items']:,} items may be listed")
    if job.choice.exclude_pairs is not None:
        click.echo(f"{manifest['rules']['pairs_excluded']:,} pairs of these users and items are excluded")
    click.echo(
        f"{manifest['rows']:,} rows for {manifest['users']:,} {manifest['plan']['lists_for']} in "
        f"{speed['seconds']:.1f} s ({speed['users_per_second']:,.0f} a second)"
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
        lists = "list is" if manifest["short_lists"] == 1 else "lists are"
        click.echo(f"{manifest['short_lists']:,} {lists} shorter than n: {scored.directory}/short_lists says why")
    click.echo(f"Lists: {scored.directory}/recommendations")
