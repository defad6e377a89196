"""`recsys train`: read ratings, hold some out, fit a model, validate it, save it and track the run."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from recsys import splitting
from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Interactions
from recsys.data.item_features.features import encoder_of
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError, RegistryError, UnsupportedError
from recsys.evaluation.averages import Interval
from recsys.evaluation.fitting import validation_split
from recsys.evaluation.results import FittedResult
from recsys.evaluation.tasks import TASKS, Task, find_task
from recsys.evaluation.warm_fit import Origin, find_origin, fit_on, place
from recsys.models import Recommender, create_model
from recsys.models.autoencoders.network import NetworkRecommender
from recsys.models.cost import Size
from recsys.models.default import choose_model
from recsys.models.trained import TrainedModel
from recsys.models.warm_start import Earlier
from recsys.serving.pyfunc import pyfunc_arguments
from recsys.splitting.bucket import divide_by_bucket
from recsys.splitting.holdout import Split
from recsys.system.storage import Location
from recsys.system.text import plural, seconds_of
from recsys.tracking.registry import ModelRegistry
from recsys.tracking.tracker import Run
from recsys.training.context import TrainingContext
from recsys.training.data_parallel import Group, process_group

from .cli.features import FeatureFlags
from .cli.interrupts import resumable
from .cli.models import ModelType
from .cli.options import SEED, LocationType, options_from, parse_settings, setting
from .cli.output import as_json, cells_text, metrics_table, note, print_json, program, say, wrapped
from .cli.progress import activity
from .cli.reading import in_order_for, read_for, read_histories, remembered_reading, typed_again
from .cli.resuming import KeepingOptions, open_training, refuse_early, resume_hint, training_facts
from .cli.settings import FittingOptions, TrackingOptions
from .cli.steps import fit_model, log_calibration, log_data, refit_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainJob:
    """Which model to train on which ratings, and where it is saved."""

    ratings: tuple[Location, ...]
    output: Path = setting(Path("model"), "Model directory to write.", "--output", "-o")
    model: str = setting("", "Name of the model; chosen for the data and this machine by default.", "--model", "-m")
    settings: tuple[str, ...] = setting(
        (), "Setting of the model, key=value; or preset=NAME.", "--set", "-s", multiple=True
    )
    time_budget: str = setting("10m", "Without --model: longest fit by estimate, such as 90s, 10m or 2h.")
    held_out: float = setting(
        0.1, "Share of users (at most 10,000; for ratings, of rows) held out for validation; 0 for none."
    )
    refit: bool = setting(False, "Before saving, fit again on all users for the best number of epochs.")
    seed: int = setting(0, "Seed of the split, the weights and the batches.", kind=SEED)
    overwrite: bool = setting(False, "Replace an existing model directory.")
    init_from: Location | None = setting(
        None,
        "Warm start: go on from this model, with its settings; an eighth of the epochs is planned.",
        kind=ModelType(),
    )
    grow: bool = setting(False, "With --init-from: keep all of its items, at their positions; new ones follow.")
    encoder_from: Location | None = setting(
        None,
        "Ratings: begin with the first layers of this vae, dae, ae or sparse-ae, which was trained on a larger log.",
        kind=ModelType(),
    )
    keep_gram: bool = setting(
        False, "ease, edlae: also save the Gram matrix, to which a warm start adds only the rows that are new."
    )
    test_bucket: float | None = setting(
        None, "Share of users, by hashes of their ids, that are kept out of training, to judge models in promote."
    )
    register: str | None = setting(None, "Register the model in MLflow under this name, as the challenger.")
    task: Literal["ranking", "rating"] | None = setting(
        None, "Lists, or predicted ratings; the task of the model by default."
    )
    features: FeatureFlags = field(default_factory=FeatureFlags)
    fitting: FittingOptions = field(default_factory=FittingOptions)
    keeping: KeepingOptions = field(default_factory=KeepingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        seconds_of(self.time_budget)
        if self.register is not None and not self.tracking.track:
            raise ConfigError("Expected tracking together with --register NAME: the registry is MLflow's.")

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
    origin = load_origin(job)
    named = unfitted(job, origin)
    job = job.with_task_defaults(find_task(job.task, [job.model if named is None else named.name]))
    if named is None and job.model:  # that of the task
        named = create_model(job.model)
    if named is not None:
        job.features.require_for([named])
    refuse_early(job.output, job.keeping, job.overwrite)
    with process_group() as group:
        if named is not None:
            refuse_several(named, group)
        return _train(job, named, origin, group)


def load_origin(job: TrainJob) -> Origin | None:
    """The model to begin with, if one was given."""
    given = (job.init_from, job.encoder_from)
    earlier, encoder = (None if one is None else load_model(one, with_gram=True) for one in given)
    return find_origin(earlier, encoder, job.grow)


def unfitted(job: TrainJob, origin: Origin | None) -> Recommender | None:
    """The model to train: as named, or as its beginning wants it; None where the size of the data decides."""
    settings = parse_settings(job.settings)
    if origin is not None:
        return origin.create(job.model, settings)
    if settings and not job.model:
        raise ConfigError(f"Expected -m MODEL together with -s {job.settings[0]}: a setting belongs to a model.")
    return create_model(job.model, settings) if job.model else None


def _train(job: TrainJob, named: Recommender | None, origin: Origin | None, group: Group) -> Trained | None:
    task = TASKS["ranking" if named is None else named.task]
    interactions = read(job, task, origin)
    model = pick(interactions, job, group) if named is None else named
    interactions = job.features.add_to(in_order_for(interactions, [model]), [model])
    facts = training_facts(job, interactions, model)
    if origin is not None:  # not its path, which is another for each download of a registered model
        facts |= {"init_from": origin.trained.digest, "encoder_from": origin.trained.digest}
    training = open_training(job.output, job.keeping, job.overwrite, facts, group)
    if training.complete is not None:
        return already_trained(training.complete, job, interactions) if group.is_main else None
    split = place(origin, validation_split(interactions, model, job.held_out, job.seed))
    with job.tracking.open(group).run(f"train {model.name}", "train", training.run_id) as tracked:
        training.remember(tracked.id)
        data = log_data(tracked, interactions, split)
        if group.is_main:
            state_memory(model, len(split.train.items))
        say_start = note if group.is_main else logger.info
        started = time.perf_counter()
        how: dict[str, Any] = {"options": job.fitting, "seed": job.seed, "group": group, "keep_gram": job.keep_gram}
        how["checkpoints"] = training.checkpoints
        fit: Callable[..., Recommender] = partial(fit_model, split=split, run=tracked, **how)
        fit_on(origin, model, split, interactions, fit, say_start)
        seconds = time.perf_counter() - started + training.checkpoints.seconds
        found = validate(model, split, job.fitting.metric) if group.is_main else None
        metrics = {} if found is None else found.evaluation.intervals()
        if job.refit:
            split = place(origin, splitting.everybody(interactions, task.ratings))
            model = fit_on(origin, model, split, interactions, partial(refit_model, split=split, **how))
        if not group.is_main:
            return None
        about = describe(job, interactions, split, metrics) | {"data": data, "run_id": tracked.id}
        train = split.train
        if origin is not None:
            about |= origin.record(train)
        trained = TrainedModel(
            model, train.items, train.item_counts, train.users, about, features=encoder_of(interactions)
        )
        save_model(job.output, trained, training.overwrite)
        if found is not None:
            log_calibration(tracked, found)
        keep(tracked, job.output, metrics, seconds)
    register(job, tracked.id)
    training.checkpoints.remove()
    counts = {} if found is None else found.counts
    return Trained(
        model.name, model.summary(), job.output, metrics, counts, seconds, interactions.ledger.line(), tracked.id
    )


def read(job: TrainJob, task: Task, origin: Origin | None) -> Interactions:
    """Read the ratings; as those of the earlier model were read, where no flag says otherwise."""
    if isinstance(origin, Earlier):
        interactions = read_histories(origin.trained, job.ratings, job.reading)
    else:
        interactions = read_for(task, job.ratings, job.reading)
    if job.test_bucket is None:
        return interactions
    training, bucket = divide_by_bucket(interactions, job.test_bucket)
    note(f"{plural(len(bucket.users), 'user')} of the test bucket are not trained on.")
    return training


def describe(
    job: TrainJob, interactions: Interactions, split: Split, metrics: Mapping[str, Interval]
) -> dict[str, Any]:
    """What model.json says of how the model was made."""
    return {
        "metrics": {label: asdict(interval) for label, interval in metrics.items()},
        "seed": job.seed,
        "reading": remembered_reading(interactions),
        "split": {
            "protocol": split.protocol,
            "held_out": job.held_out,
            "refit": job.refit,
            "test_bucket": job.test_bucket,
            **split.facts,
        },
    }


def keep(run: Run, model: Path, metrics: Mapping[str, Interval], seconds: float | None = None) -> None:
    """Track the model first, then what it reached: its page in MLflow shows the metrics of runs that name it."""
    run.log_model(partial(pyfunc_arguments, model))
    took = {} if seconds is None else {"fit_seconds": seconds}
    run.log_metrics({label: interval.mean for label, interval in metrics.items()} | took)


def register(job: TrainJob, run_id: str | None) -> None:
    """Register the model that the run has kept, where that was asked for."""
    if job.register is None:
        return
    if run_id is None:
        raise RegistryError(f"Expected a tracked run, to register its model as {job.register}; MLflow kept none.")
    with activity(f"registering {job.register}"):
        version = ModelRegistry().register(job.register, run_id)
    note(
        f"Registered as version {version} of {job.register}, the challenger. Next: {program()} promote {job.register}."
    )


def already_trained(about: Mapping[str, Any], job: TrainJob, interactions: Interactions) -> Trained:
    """The result of an earlier process that was complete; its checkpoints are gone."""
    note(f"{job.output} is complete already: nothing to resume.")
    metrics = {label: Interval(**interval) for label, interval in about["metrics"].items()}
    if about["run_id"] is not None:  # the process may have ended before all was tracked
        with job.tracking.open().run(f"train {about['model']}", "train", about["run_id"]) as tracked:
            log_data(tracked, interactions)
            keep(tracked, job.output, metrics)
        about = {**about, "run_id": tracked.id}
    register(job, about["run_id"])
    return Trained(about["model"], "", job.output, metrics, {}, 0.0, interactions.ledger.line(), about["run_id"])


def pick(interactions: Interactions, job: TrainJob, group: Group) -> Recommender:
    """Choose the model that suits the data and this machine; one process says which and why."""
    device = TrainingContext(device=job.fitting.device, group=group).resolve_device()
    size, budget = Size.of(interactions.user, interactions.item), seconds_of(job.time_budget)
    choice = choose_model(size, job.held_out > 0, device, group.size, budget)
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
    with resumable(lambda: resume_hint(job.output), job.output):
        trained = run(job)
    report(trained, job)


def report(trained: Trained | None, job: TrainJob) -> None:
    """Print the result; only one of several processes has one."""
    if trained is None:
        return
    if as_json():
        print_json(asdict(trained))
        return
    say(trained.ledger)
    decided = f": {trained.summary}" if trained.summary else ""
    if trained.fit_seconds:  # else an earlier process has fitted it
        say(wrapped(f"{trained.model} fitted in {trained.fit_seconds:.1f} s{decided}"))
    if trained.metrics:
        before = ", before the refit" if job.refit else ""
        say(f"\n{wrapped(f'On held-out users{cells_text(trained.counts)}{before}:')}")
        say(f"\n{metrics_table(trained.metrics)}\n")
    say(f"Model: {trained.directory}")
    all_users = replace(job.reading, min_user_items=0, min_item_users=0)  # lists are for all users
    words = f"{shlex.quote(str(trained.directory))} {typed_again(job.ratings, all_users)}"
    say(f"Next:  {program()} score {words} -o lists -n 100")
