"""Train one model: read, hold some people out, fit, validate, save, track."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from recsys import splitting
from recsys.artifacts import refuse_existing, save_model
from recsys.errors import UnsupportedError
from recsys.evaluation import DEFAULT_METRICS, Interval, evaluate
from recsys.interactions import Interactions
from recsys.metrics import parse_metric
from recsys.models import Recommender, create_model
from recsys.models.network import NetworkRecommender
from recsys.places import Place
from recsys.processes import Group, joined
from recsys.reading import ReadingOptions, read_interactions
from recsys.splitting import Split

from .cli import as_json
from .fitting import fit_model, log_data, refit_model
from .options import PlaceType, options_from, parse_settings, setting
from .output import metrics_table, print_json
from .settings import FittingOptions, TrackingOptions


@dataclass(frozen=True)
class TrainJob:
    """What to train, on what, and where it goes."""

    ratings: tuple[Place, ...]
    output: Path = setting(Path("model"), "Model directory to write.", "--output", "-o")
    model: str = setting("vae", "Which model: popularity, item-knn, als, bpr, lmf, ease, dae, vae.", "--model", "-m")
    settings: tuple[str, ...] = setting((), "Setting of it, key=value; or preset=NAME.", "--set", "-s", multiple=True)
    held_out: float = setting(0.1, "Share of users held out for validation, 10,000 at most; 0 for none.")
    refit: bool = setting(False, "Before saving, fit again on everybody for the best number of epochs.")
    seed: int = setting(0, "Seed of the split, the weights and the batches.")
    overwrite: bool = setting(False, "Replace a model directory.")
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Trained:
    """What the job made: model directory, validation metrics, seconds of fitting, ledger line, MLflow run."""

    directory: Path
    metrics: Mapping[str, Interval]
    fit_seconds: float
    ledger: str
    run_id: str | None


def run(job: TrainJob) -> Trained | None:
    """Do the job, alone or in the group torchrun started; None in all processes but the main one.

    What can be refused is refused before the data are read.
    """
    parse_metric(job.fitting.metric)
    model = create_model(job.model, parse_settings(job.settings))
    refuse_existing(job.output, "model.json", job.overwrite)
    with joined() as group:
        refuse_several(model, group)
        return _train(job, model, group)


def _train(job: TrainJob, model: Recommender, group: Group) -> Trained | None:
    interactions = read_interactions(job.ratings, job.reading)
    split = validation_split(interactions, model, job.held_out, job.seed)
    with job.tracking.open(group).run(f"train {job.model}", "train") as tracked:
        data = log_data(tracked, interactions, split)
        if group.is_main:
            state_memory(model, len(split.train.items))
        started = time.perf_counter()
        fit_model(model, split, job.fitting, job.seed, tracked, group)
        seconds = time.perf_counter() - started
        metrics = validate(model, split, job.fitting.metric) if group.is_main else {}
        if job.refit:
            split = splitting.everybody(interactions)
            model = refit_model(model, split, job.fitting, job.seed, group)
        if not group.is_main:
            return None
        about = {
            "metrics": {label: asdict(interval) for label, interval in metrics.items()},
            "seed": job.seed,
            "data": data,
            "split": {"protocol": split.protocol, "held_out": job.held_out, "refit": job.refit, **split.facts},
            "run_id": tracked.id,
        }
        train = split.train
        save_model(job.output, model, train.items, train.item_counts, train.users, about, job.overwrite)
        tracked.log_metrics({label: interval.mean for label, interval in metrics.items()} | {"fit_seconds": seconds})
        tracked.log_model(job.output)
    return Trained(job.output, metrics, seconds, interactions.ledger.line(), tracked.id)


def refuse_several(model: Recommender, group: Group) -> None:
    """Raise UnsupportedError where several processes would each fit the whole model."""
    if group.size > 1 and not isinstance(model, NetworkRecommender):
        raise UnsupportedError(
            f"Expected a model trained by gradients in {group.size} processes, found {model.name}: "
            "run it without torchrun."
        )


def state_memory(model: Recommender, items: int) -> None:
    """Say, before it is taken, what a network's training holds in memory whatever the batch."""
    if isinstance(model, NetworkRecommender):
        click.echo(f"{model.name}: {model.training_memory(items)}", err=True)


def validation_split(interactions: Interactions, model: Recommender, held_out: float, seed: int) -> Split:
    """Some users held out; where the model cannot take new users, some rows of every user instead."""
    if not held_out:
        return splitting.everybody(interactions)
    protocol = splitting.weak if model.needs_training_users else splitting.strong
    return protocol(interactions, share=held_out, seed=seed, test=False)


def validate(model: Recommender, split: Split, metric: str) -> Mapping[str, Interval]:
    """Metrics of the fitted model on the validation users; none where nobody was held out."""
    if split.validation is None:
        return {}
    labels = tuple(dict.fromkeys((metric, *DEFAULT_METRICS)))
    return evaluate(model.score, split.validation, labels, with_users=model.needs_training_users).intervals()


@click.command("train")
@click.argument("ratings", type=PlaceType(), nargs=-1, required=True)
@options_from(TrainJob)
def command(job: TrainJob) -> None:
    """Fit a model on RATINGS, validate it on held-out users, save it, track the run."""
    report(run(job), job)


def report(trained: Trained | None, job: TrainJob) -> None:
    """Tell the person what was made; one process of several does."""
    if trained is None:
        return
    if as_json():
        print_json(asdict(trained))
        return
    click.echo(trained.ledger)
    click.echo(f"{job.model} fitted in {trained.fit_seconds:.1f} s")
    if trained.metrics:
        click.echo(
            f"\nOn held-out users{', before the refit' if job.refit else ''}:\n\n{metrics_table(trained.metrics)}\n"
        )
    click.echo(f"Model: {trained.directory}")
    click.echo(f"Next:  recsys score {trained.directory} {job.ratings[0]} -o lists -n 100")
