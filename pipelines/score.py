"""`recsys score`: write the top-n items of every user to files, in shards, resumable and verified."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from recsys.artifacts import load_model
from recsys.batch.engines import BatchJob, Execution, write_shards
from recsys.batch.gates import ALWAYS, measure, read_gates, refusals, require_finished
from recsys.batch.memory import parse_size, plan_memory, process_bytes
from recsys.batch.output import (
    OpenedOutput,
    ShardSummary,
    draft_of,
    open_output,
    record_shards,
    refuse_output,
    write_manifest,
)
from recsys.batch.plan import ScoringPlan
from recsys.batch.shards import WORKER_PEAK
from recsys.batch.targets import add_new_users, fingerprint, require_new
from recsys.data.interactions import Interactions
from recsys.data.item_features import ItemTable
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions
from recsys.errors import DataError, GateError, StorageError
from recsys.inference.rules import RuleSet
from recsys.models.contributions import MEANING
from recsys.models.trained import TrainedModel
from recsys.reporting.plotting import exposure
from recsys.system.memory import now_and_peak
from recsys.system.storage import Location, folder_at
from recsys.system.text import plural

from .cli.choice import Choice, choose, unknown_ids
from .cli.exit_notice import exit_notice
from .cli.features import grow, read_new_items
from .cli.interrupts import resumable
from .cli.models import ModelType
from .cli.options import LocationType, options_from, setting
from .cli.output import as_json, note, print_json, say, wrapped
from .cli.progress import watch
from .cli.reading import read_histories
from .cli.settings import TrackingOptions
from .cli.steps import log_data, log_used_model
from .cli.unknown import UnknownIds, note_unknown

CLUSTER_LOST = (
    "Error: the command was ended from outside, by Ray if its node on this machine stopped. What is written stays: run "
    "the same command with --resume to continue."
)


@dataclass(frozen=True)
class ScoreJob:
    """Which model, which histories, how many items, and where the lists go."""

    model: Location
    ratings: tuple[Location, ...]
    output: Location = setting(Path("lists"), "Folder or address for the lists.", "--output", "-o")
    n: int = setting(10, "Length of each list.", "-n")
    reasons: int = setting(0, "Reasons of each listed item: items of the history with their shares, as columns.")
    choice: Choice = field(default_factory=Choice)
    format: Literal["parquet", "csv"] = setting("parquet", "Format of the lists.")
    csv_safe: bool = setting(False, "Prefix ids that a spreadsheet would run as formulas with a '.")
    shard_users: int = setting(65_536, "Users in each file.")
    engine: Literal["local", "ray"] = setting("local", "This machine's cores, or a Ray cluster.")
    workers: int | None = setting(None, "Threads (local) or actors (ray); all that there are by default.")
    ray_address: str | None = setting(None, "Address of a running Ray cluster; one is started here by default.")
    batch_size: int | None = setting(None, "Maximum number of users scored at once; may reduce the number of workers.")
    max_memory: str | None = setting(
        None,
        "Memory limit such as 2GB, kept by running fewer workers. On Ray it is for the command and its actors (without "
        "Ray's own processes, about 0.4 GB); with --ray-address it is for each actor.",
    )
    gates: Location | None = setting(None, "TOML file of limits that the lists must keep to be published.")
    previous: Location | None = setting(None, "An earlier output, to measure the overlap with it.")
    resume: bool = setting(False, "Continue an interrupted job; the output is the same, byte for byte.")
    overwrite: bool = setting(False, "Replace an existing output.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", "bf16 is faster on some hardware, and approximate: items with nearly equal scores change places."
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
    """The folder, its manifest, the speed, the account of the rows, and ids in files that are unknown."""

    directory: Location
    manifest: Mapping[str, Any]
    speed: Mapping[str, float]
    ledger: str
    unknown: Mapping[str, UnknownIds]


def run(job: ScoreJob) -> Scored:
    """Score all users. Raises GateError, after all is written and marked unpublished, where a gate refuses."""
    gates = read_gates(job.gates, job.previous is not None) if job.gates else ALWAYS
    if job.previous is not None:
        require_finished(job.previous, "items" if job.choice.item_to_item else "users")
    refuse_output(job.output, job.resume, job.overwrite)
    saved, new_items, new = load(job)
    program_bytes = process_bytes()
    interactions, histories = make_histories(job, saved)
    unknown = unknown_ids(job.choice, saved, histories)
    note_unknown(unknown)
    batch = replace(make_batch(job, saved, histories), new_items=new_items)
    plan = batch.plan
    if not plan.users:
        refuse_to_empty(job)
    memory = plan_memory(batch, program_bytes)
    output = open_output(job.output, plan, job.resume, job.overwrite)
    with job.tracking.open().run(f"score {saved.model.name}", "score") as tracked:
        if interactions is not None:
            log_data(tracked, interactions)
        tracked.log_params({"model": saved.model.name, "n": job.n, "plan": plan.hash, "engine": job.engine})
        log_used_model(tracked, saved)
        started = time.perf_counter()
        written = write_shards(batch, output.location, memory.workers, output.finished)
        recorded = record_shards(output.location, plan, output.finished, written)
        summaries = dict(watch(recorded, len(plan.shards), "scoring", "file"))
        seconds = time.perf_counter() - started
        peak_of_actor = max((summary.pop(WORKER_PEAK, 0) for summary in summaries.values()), default=0)
        quality = measure(output.location, plan, summaries, saved.items, saved.item_counts, job.previous)
        refused = refusals(quality.measures, gates)
        facts = {
            **facts_of(batch, interactions, histories, summaries.values()),
            "new_items": new,
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
    return Scored(job.output, manifest, speed, ledger_line(interactions), unknown)


def load(job: ScoreJob) -> tuple[TrainedModel, ItemTable | None, int]:
    """The model with its new items, their table, and how many they are; refused where it has no reasons to give."""
    trained = load_model(job.model, job.device)
    if job.reasons:
        trained.model.check_explainable()
    new_items = read_new_items(trained, job.choice.new_items)
    saved = grow(trained, new_items)
    return saved, new_items, len(saved.items) - len(trained.items)


def refuse_to_empty(job: ScoreJob) -> None:
    """Say that no user is to get a list. Raises DataError where lists would be replaced by none."""
    if job.overwrite and not folder_at(job.output).is_empty():
        raise DataError(
            f"Expected users in {job.choice.users} to replace the lists in {job.output}, found none: no list would be "
            "left. Choose another output, or remove the old one."
        )
    note("The file names no users: there will be no lists.", "users")


def facts_of(
    batch: BatchJob,
    interactions: Interactions | None,
    histories: UserItemMatrix | None,
    summaries: Collection[ShardSummary],
) -> dict[str, dict[str, Any]]:
    """What the manifest says of the model, the histories and the rules."""
    saved, targets, allowed = batch.saved, batch.targets, batch.rules.allowed
    ruled = batch.rules.rules or RuleSet()
    changes = np.array([summary.get("effects", []) for summary in summaries], dtype=np.int64)
    changes = changes.reshape(len(summaries), len(ruled.rules), 2).sum(axis=0)
    return {
        "model": {"name": saved.model.name, "digest": saved.digest, "run_id": saved.about.get("run_id")},
        "histories": {
            "ledger": ledger_line(interactions),
            "interactions_on_unknown_items": 0 if histories is None else histories.unknown,
            "users_without_known_items": int(targets.cold.sum()),
        },
        "rules": {
            "items": len(saved.items),
            "items_allowed": len(saved.items) if allowed is None else int(allowed.sum()),
            "pairs_excluded": 0 if targets.excluded is None else targets.excluded.nnz,
            "reasons_by": saved.model.explained_by if batch.plan.reasons else None,
            "effects": [
                {
                    "rule": rule.name,
                    "kind": rule.kind,
                    "items": int(rule.items.sum()),
                    "places_without": without,
                    "places": listed,
                }
                for rule, (without, listed) in zip(ruled.rules, changes.tolist(), strict=True)
            ],
            "variety": None if ruled.variety is None else ruled.variety.weight,
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
    """Read the ratings, and make histories of them; neither where the lists are for items."""
    if job.choice.item_to_item:
        return None, None
    interactions = read_histories(saved, job.ratings, job.reading)
    histories = _matrix(interactions, job, saved)
    if job.choice.new_users is not None:
        further = read_histories(saved, job.choice.new_users, job.reading, "new-users")
        require_new(further.with_all_users().users, interactions.with_all_users().users)
        histories = add_new_users(histories, _matrix(further, job, saved))
    return interactions, histories


def _matrix(interactions: Interactions, job: ScoreJob, saved: TrainedModel) -> UserItemMatrix:
    """Histories over the model's items; a user who is asked for by id and liked nothing has one too, empty but seen."""
    asked = interactions if job.choice.users is None else interactions.with_all_users()
    return saved.to_matrix(asked)


def make_batch(job: ScoreJob, saved: TrainedModel, histories: UserItemMatrix | None) -> BatchJob:
    """Decide what the job will write, and how."""
    targets, rules = choose(job.choice, saved, histories)
    plan = ScoringPlan(
        model=saved.digest,
        inputs=fingerprint(targets, rules),
        users=len(targets),
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
        reasons=job.reasons,
        rules=() if rules.rules is None else tuple(rule.name for rule in rules.rules.rules),
    )
    return BatchJob(plan, saved, job.model, targets, rules, job.execution)


@click.command("score")
@click.argument("model", type=ModelType())
@click.argument("ratings", type=LocationType(), nargs=-1)
@options_from(ScoreJob)
def command(job: ScoreJob) -> None:
    """Write the N best unseen items of every user in RATINGS, with the model directory MODEL.

    Every input and the output may be in an object store: s3://bucket/key, gs://bucket/key, ...
    """
    if bool(job.ratings) == job.choice.item_to_item:
        raise click.UsageError("Expected RATINGS, or --item-to-item without them.")
    notice = exit_notice(CLUSTER_LOST) if job.engine == "ray" else nullcontext()
    with resumable(lambda: resume_hint(job.output), job.output), notice:
        scored = run(job)
    report(scored, job)


def effect_line(effect: Mapping[str, Any]) -> str:
    """What a rule did, in a line."""
    items, places = plural(effect["items"], "item"), plural(effect["places"], "place")
    beyond = " beyond the cap" if effect["kind"] == "cap" else " in lists"
    nothing = "" if effect["items"] else " No item meets it: look at the values of the column."
    return f"Rule {effect['rule']}: {items}, {places}{beyond}, {effect['places_without']:,} without rules.{nothing}"


def resume_hint(output: Location) -> str:
    """How many files of lists are there, and how to continue after them; empty where the job has not begun."""
    try:
        for place in (draft_of(output), output):
            if place is not None and folder_at(place).is_file("plan.json"):
                files = plural(len(folder_at(place).names("recommendations")), "file of lists is", "files of lists are")
                return f"{files} in {place}: run the same command with --resume to continue after them."
    except StorageError:  # an object store that is away cannot be asked what it has
        return "When it is back, run the same command with --resume to continue after the files that are there."
    return ""


def report(scored: Scored, job: ScoreJob) -> None:
    """Print what was written."""
    manifest, speed = scored.manifest, scored.speed
    if as_json():
        unknown = {name: asdict(ids) for name, ids in scored.unknown.items()}
        print_json({"directory": scored.directory, "manifest": manifest, "speed": speed, "unknown": unknown})
        return
    if scored.ledger:
        say(scored.ledger)
    unknown = manifest["histories"]["interactions_on_unknown_items"]
    if unknown:
        say(f"{plural(unknown, 'interaction is', 'interactions are')} with items that the model does not know")
    if job.choice.only_items is not None or job.choice.exclude_items is not None:
        items = plural(manifest["rules"]["items"], "item")
        say(f"{manifest['rules']['items_allowed']:,} of {items} may be recommended")
    if job.choice.exclude_pairs is not None:
        excluded = plural(manifest["rules"]["pairs_excluded"], "pair", "pairs")
        say(f"{excluded} of these users and items excluded")
    for effect in manifest["rules"]["effects"]:
        say(wrapped(effect_line(effect), "  "))
    targets = plural(manifest["users"], manifest["plan"]["lists_for"].removesuffix("s"))
    say(
        f"{plural(manifest['rows'], 'row')} for {targets} in {speed['seconds']:.1f} s "
        f"({speed['users_per_second']:,.0f} per second)"
    )
    if manifest["measures"]:
        measures = manifest["measures"]
        say(
            wrapped(
                f"{measures['coverage']:.1%} of the catalog is in some list; {measures['popularity']:.1%} of the rows "
                "are popular items, those with half of all training interactions"
            )
        )
    if manifest["short_lists"]:
        lists = plural(manifest["short_lists"], "list is", "lists are")
        say(f"{lists} shorter than n: see {scored.directory}/short_lists")
    if job.reasons:
        found = manifest["rules"]["reasons_by"]
        say(wrapped(f"Reasons: columns reason_1, share_1, ...; {found}: {MEANING[found]}"))
    say(f"Lists: {scored.directory}/recommendations")
