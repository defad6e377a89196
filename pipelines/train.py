"""`recsys train`: read ratings, hold some out, fit a model, validate it, save it and track the run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import click

from recsys import splitting
from recsys.artifacts import save_model
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError, UnsupportedError
from recsys.evaluation.averages import Interval
from recsys.evaluation.fitting import validation_split
from recsys.evaluation.results import FittedResult
from recsys.evaluation.tasks import TASKS, Task, find_task
from recsys.models import Recommender, create_model
from recsys.models.autoencoders.network import NetworkRecommender
from recsys.models.default import choose_model
from recsys.models.trained import TrainedModel
from recsys.serving.pyfunc import pyfunc_arguments
from recsys.splitting.holdout import Split
from recsys.system.atomic import refuse_existing
from recsys.system.storage import Location
from recsys.training.context import TrainingContext
from recsys.training.data_parallel import Group, process_group

from .cli.options import SEED, LocationType, options_from, parse_settings, setting
from .cli.output import as_json, cells_text, metrics_table, note, print_json, program, say, wrapped
from .cli.progress import activity
from .cli.reading import read_for, remembered_reading, typed_again
from .cli.settings import FittingOptions, TrackingOptions
from .cli.steps import fit_model, log_calibration, log_data, refit_model


@dataclass(frozen=True)
class TrainJob:
    """Which model to train on which ratings, and where it is saved."""

    ratings: tuple[Location, ...]
    output: Path = setting(Path("model"), "Model directory to write.", "--output", "-o")
    model: str = setting("", "Name of the model; chosen by the size of the data by default.", "--model", "-m")
    settings: tuple[str, ...] = setting(
        (), "Setting of the model, key=value; or preset=NAME.", "--set", "-s", multiple=True
    )
    held_out: float = setting(
        0.1, "Share of users (at most 10,000; for ratings, of rows) held out for validation; 0 for none."
    )
    refit: bool = setting(False, "Before saving, fit again on all users for the best number of epochs.")
    seed: int = setting(0, "Seed of the split, the weights and the batches.", kind=SEED)
    overwrite: bool = setting(False, "Replace an existing model directory.")
    task: Literal["ranking", "rating"] | None = setting(
        None, "Lists, or predicted ratings; the task of the model by default."
    )
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def with_task_defaults(self, task: Task) -> TrainJob:
        """Fill in what was not given with the defaults of the task."""
        fitting = self.fitting.with_task_defaults(task)
        return replace(self, task=task.name, model=self.model or task.model, fitting=fitting)


@dataclass(frozen=True)
class Trained:
    """The result: the model, what its fit decided, its directory, validation metrics and the counts behind them,
    seconds of fitting, the account of the rows, the MLflow run."""

    model: str
    summary: str
    directory: Path
    metrics: Mapping[str, Interval]
    counts: Mapping[str, int]
    fit_seconds: float
    ledger: str
    run_id: str | None


def run(job: TrainJob) -> Trained | None:
    """Train alone or in the group of processes that torchrun started; None in all processes but the main one.

    What can be refused is refused before the data are read.
    """
    job = job.with_task_defaults(find_task(job.task, [job.model]))
    settings = parse_settings(job.settings)
    if settings and not job.model:
        raise ConfigError(f"Expected -m MODEL together with -s {job.settings[0]}: a setting belongs to a model.")
    named = create_model(job.model, settings) if job.model else None
    refuse_existing(job.output, "model.json", job.overwrite)
    with process_group() as group:
        if named is not None:
            refuse_several(named, group)
        return _train(job, named, group)


def _train(job: TrainJob, named: Recommender | None, group: Group) -> Trained | None:
    task = TASKS["ranking" if named is None else named.task]
    interactions = read_for(task, job.ratings, job.reading)
    model = pick(interactions, job, group) if named is None else named
    split = validation_split(interactions, model, job.held_out, job.seed)
    with job.tracking.open(group).run(f"train {model.name}", "train") as tracked:
        data = log_data(tracked, interactions, split)
        if group.is_main:
            state_memory(model, len(split.train.items))
        started = time.perf_counter()
        fit_model(model, split, job.fitting, job.seed, tracked, group)
        seconds = time.perf_counter() - started
        found = validate(model, split, job.fitting.metric) if group.is_main else None
        metrics = {} if found is None else found.evaluation.intervals()
        if job.refit:
            split = splitting.everybody(interactions, task.ratings)
            model = refit_model(model, split, job.fitting, job.seed, group)
        if not group.is_main:
            return None
        about = {
            "metrics": {label: asdict(interval) for label, interval in metrics.items()},
            "seed": job.seed,
            "data": data,
            "reading": remembered_reading(interactions),
            "split": {"protocol": split.protocol, "held_out": job.held_out, "refit": job.refit, **split.facts},
            "run_id": tracked.id,
        }
        train = split.train
        trained = TrainedModel(model, train.items, train.item_counts, train.users, about)
        save_model(job.output, trained, job.overwrite)
        tracked.log_metrics({label: interval.mean for label, interval in metrics.items()} | {"fit_seconds": seconds})
        if found is not None:
            log_calibration(tracked, found)
        tracked.log_model(partial(pyfunc_arguments, job.output))
    counts = {} if found is None else found.counts
    return Trained(
        model.name, model.summary(), job.output, metrics, counts, seconds, interactions.ledger.line(), tracked.id
    )


def pick(interactions: Interactions, job: TrainJob, group: Group) -> Recommender:
    """Choose the model that suits the data; one process says which and why."""
    context = TrainingContext(device=job.fitting.device, group=group)
    users, items = len(interactions.users), len(interactions.items)
    choice = choose_model(users, items, job.held_out > 0, context.resolve_device(), group.size)
    if group.is_main:
        members = "".join(f" of {names}" for names in choice.settings.values())
        note(f"Model {choice.model}{members}: {choice.why}. Use -m to choose another.")
    return create_model(choice.model, choice.settings)


def refuse_several(model: Recommender, group: Group) -> None:
    """Raise UnsupportedError where several processes would each fit the whole model."""
    if group.size > 1 and not isinstance(model, NetworkRecommender):
        raise UnsupportedError(
            f"Expected a model trained by gradients in {group.size} processes, found {model.name}: "
            "run it without torchrun."
        )


def state_memory(model: Recommender, items: int) -> None:
    """Say, before it is used, how much memory the training of a network needs whatever the batch size."""
    if isinstance(model, NetworkRecommender):
        note(f"{model.name}: {model.training_memory(items)}")


def validate(model: Recommender, split: Split, metric: str) -> FittedResult | None:
    """Evaluate the fitted model on the validation part; None where nothing was held out."""
    if split.validation is None:
        return None
    task = TASKS[model.task]
    with activity(f"{model.name}: evaluating on held-out data"):
        found = task.evaluate(model, split.validation, tuple(dict.fromkeys((metric, *task.metrics))))
        return task.describe(model, found, split.validation, split.train.item_counts)


@click.command("train")
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(TrainJob)
def command(job: TrainJob) -> None:
    """Fit a model on RATINGS, validate it on held-out data, save it and track the run."""
    report(run(job), job)


def report(trained: Trained | None, job: TrainJob) -> None:
    """Print the result; only one of several processes has one."""
    if trained is None:
        return
    if as_json():
        print_json(asdict(trained))
        return
    say(trained.ledger)
    decided = f": {trained.summary}" if trained.summary else ""
    say(wrapped(f"{trained.model} fitted in {trained.fit_seconds:.1f} s{decided}"))
    if trained.metrics:
        before = ", before the refit" if job.refit else ""
        say(f"\n{wrapped(f'On held-out users{cells_text(trained.counts)}{before}:')}")
        say(f"\n{metrics_table(trained.metrics)}\n")
    say(f"Model: {trained.directory}")
    all_users = replace(job.reading, min_user_items=0, min_item_users=0)  # lists are for all users
    words = f"{shlex.quote(str(trained.directory))} {typed_again(job.ratings, all_users)}"
    say(f"Next:  {program()} score {words} -o lists -n 100")
