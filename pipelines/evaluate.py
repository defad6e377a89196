"""Measure a saved model on people it was not trained on, or on a test file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from recsys import splitting
from recsys.artifacts import SavedModel, load_model
from recsys.errors import UnsupportedError
from recsys.evaluation import DEFAULT_METRICS, Interval, evaluate
from recsys.interactions import Interactions
from recsys.metrics import parse_metric
from recsys.reading import ReadingOptions, read_interactions
from recsys.splitting import Holdout

from .cli import as_json
from .fitting import log_data
from .options import options_from, setting
from .output import metrics_table, print_json
from .settings import TrackingOptions, comma_list


@dataclass(frozen=True)
class EvaluateJob:
    """Which model, on what."""

    model: Path
    ratings: tuple[Path, ...]
    test: Path | None = setting(None, "Held-out rows; RATINGS are then the histories.")
    hidden: float = setting(0.2, "Without --test: share of each user's items to hide and look for.")
    metrics: str = setting(",".join(DEFAULT_METRICS), "Metrics, separated by commas.")
    seed: int = setting(0, "Seed of what is hidden.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Evaluated:
    """Metrics with intervals, who was measured, and what the ledger says."""

    metrics: Mapping[str, Interval]
    who: str
    coverage: float
    ledger: str


def run(job: EvaluateJob) -> Evaluated:
    """Do the job."""
    labels = tuple(comma_list(job.metrics))
    for label in labels:
        parse_metric(label)
    saved = load_model(job.model, job.device)
    interactions = read_interactions(job.ratings, job.reading)
    holdout, who = people(job, saved, interactions)
    with job.tracking.open().run(f"evaluate {saved.model.name}", "evaluate") as tracked:
        log_data(tracked, interactions)
        tracked.set_tags({"recsys.training_run": saved.about.get("run_id") or "", "recsys.model_digest": saved.digest})
        found = evaluate(saved.model.score, holdout, labels, with_users=saved.model.needs_training_users)
        tracked.log_metrics({**found.means(), "coverage": found.coverage})
    return Evaluated(found.intervals(job.seed), who, found.coverage, interactions.ledger.line())


def people(job: EvaluateJob, saved: SavedModel, interactions: Interactions) -> tuple[Holdout, str]:
    """Whom to measure on, and in words who they are.

    With `--test`, the users of that file. On the very data of its training, the users held out then: the split is
    made again from what model.json says. Else all users of RATINGS, a share of whose items is hidden.
    """
    if job.test is not None:
        held_out = read_interactions(job.test, job.reading.beside("test"))
        return splitting.holdout(interactions, held_out, saved.items, saved.users), f"users of {job.test}"
    split, data = saved.about.get("split", {}), saved.about.get("data", {})
    if data.get("fingerprint") == interactions.fingerprint():
        if split.get("protocol") not in ("strong", "weak") or split.get("refit"):
            raise UnsupportedError("The model was fitted on all of these ratings: give people or rows it has not seen.")
        again = splitting.PROTOCOLS[split["protocol"]](
            interactions, share=split["held_out"], seed=saved.about["seed"], test=False
        ).validation
        assert again is not None  # there was one then
        return again, "users held out from its training"
    if saved.model.needs_training_users:
        raise UnsupportedError(f"{saved.model.name} knows only its training users: give --test FILE with their rows.")
    return splitting.hide(interactions, saved.items, job.hidden, job.seed), "all users of these ratings"


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("ratings", type=click.Path(path_type=Path), nargs=-1, required=True)
@options_from(EvaluateJob)
def command(job: EvaluateJob) -> None:
    """Measure the model directory MODEL on held-out items of the users in RATINGS."""
    found = run(job)
    if as_json():
        print_json(asdict(found))
        return
    click.echo(found.ledger)
    click.echo(f"Measured on {found.who}; {found.coverage:.0%} of the catalogue stands in some list.\n")
    click.echo(metrics_table(found.metrics))
