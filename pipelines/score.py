"""Score everybody: the best n items of every user, written to files that can be trusted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from recsys.artifacts import SavedModel, load_model
from recsys.batch import Plan, open_output, write_manifest, write_shards
from recsys.interactions import Interactions, UserItemMatrix
from recsys.reading import ReadingOptions, read_interactions

from .cli import as_json
from .fitting import log_data
from .options import options_from, setting
from .output import print_json
from .progress import watch
from .settings import TrackingOptions


@dataclass(frozen=True)
class ScoreJob:
    """Which model, whose histories, how many items, and where the lists go."""

    model: Path
    ratings: tuple[Path, ...]
    output: Path = setting(Path("lists"), "Folder for the lists.", "--output", "-o")
    n: int = setting(10, "Length of each list.", "-n")
    keep_seen: bool = setting(False, "Let items of the history be recommended too.")
    format: Literal["parquet", "csv"] = setting("parquet", "Format of the lists.")
    batch_size: int = setting(512, "Users scored at once: memory follows it.")
    shard_users: int = setting(65_536, "Users a file.")
    resume: bool = setting(False, "Go on with a job that was stopped: the same bytes come out.")
    overwrite: bool = setting(False, "Replace an earlier output.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Scored:
    """The folder, its manifest, and how the job went."""

    directory: Path
    manifest: Mapping[str, Any]
    went: Mapping[str, float]
    ledger: str


def run(job: ScoreJob) -> Scored:
    """Do the job."""
    saved = load_model(job.model, job.device)
    interactions = read_interactions(job.ratings, job.reading)
    histories = UserItemMatrix.from_interactions(interactions, saved.items)
    plan = make_plan(job, saved, interactions)
    done = open_output(job.output, plan, job.resume, job.overwrite)
    with job.tracking.open().run(f"score {saved.model.name}", "score") as tracked:
        log_data(tracked, interactions)
        tracked.log_params({"model": saved.model.name, "n": job.n, "plan": plan.hash})
        tracked.set_tags({"recsys.training_run": saved.about.get("run_id") or "", "recsys.model_digest": saved.digest})
        started = time.perf_counter()
        shards = write_shards(job.output, plan, saved, histories, done)
        notes = list(watch(shards, len(plan.shards), "scoring", "file"))
        seconds = time.perf_counter() - started
        facts = {
            "model": {"name": saved.model.name, "digest": saved.digest, "run_id": saved.about.get("run_id")},
            "histories": {"ledger": interactions.ledger.line(), "interactions_on_unknown_items": histories.unknown},
        }
        manifest = write_manifest(job.output, plan, notes, facts)
        went = {
            "seconds": seconds,
            "users_per_second": plan.users / seconds,
            "files_resumed": len(done),
        }
        tracked.log_metrics({**went, "rows": manifest["rows"], "short_lists": manifest["short_lists"]})
        tracked.log_artifact(job.output / "manifest.json")
    return Scored(job.output, manifest, went, interactions.ledger.line())


def make_plan(job: ScoreJob, saved: SavedModel, interactions: Interactions) -> Plan:
    """What the job will write."""
    return Plan(
        model=saved.digest,
        histories=interactions.fingerprint(),
        users=len(interactions.users),
        n=job.n,
        filter_seen=not job.keep_seen,
        batch_size=job.batch_size,
        shard_users=job.shard_users,
        format=job.format,
    )


@click.command("score")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("ratings", type=click.Path(path_type=Path), nargs=-1, required=True)
@options_from(ScoreJob)
def command(job: ScoreJob) -> None:
    """Write the best N unseen items of every user in RATINGS, with the model directory MODEL."""
    report(run(job))


def report(scored: Scored) -> None:
    """What was written."""
    manifest, went = scored.manifest, scored.went
    if as_json():
        print_json({"directory": scored.directory, "manifest": manifest, "went": went})
        return
    click.echo(scored.ledger)
    unknown = manifest["histories"]["interactions_on_unknown_items"]
    if unknown:
        click.echo(f"{unknown:,} interactions are on items the model does not know")
    click.echo(
        f"{manifest['rows']:,} rows for {manifest['users']:,} users in {went['seconds']:.1f} s "
        f"({went['users_per_second']:,.0f} users/s)"
    )
    if manifest["short_lists"]:
        click.echo(f"{manifest['short_lists']:,} users got fewer than asked: {scored.directory}/short_lists says why")
    click.echo(f"Lists: {scored.directory}/recommendations")
