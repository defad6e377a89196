"""Fit one model on a split and tell the tracker: what `train` and `compare` do alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.data.interactions import Interactions
from recsys.errors import ArtifactError
from recsys.evaluation.comparison import FittedResult
from recsys.evaluation.evaluate import validator
from recsys.evaluation.metrics import goodness
from recsys.evaluation.tasks import TASKS
from recsys.models import Recommender, create_model
from recsys.reporting.plotting import calibration_curve, training_curve
from recsys.splitting.holdout import Split
from recsys.system.atomic import refuse_existing
from recsys.tracking.tracker import Run, Tracker
from recsys.training.context import Epoch, TrainingContext
from recsys.training.data_parallel import ALONE, Group
from recsys.tuning import Budget, Search, Trial, Tuned, load_optuna, settings_toml, tune

from .progress import fit_progress, trials_progress
from .settings import FittingOptions


def fit_model(
    model: Recommender, split: Split, options: FittingOptions, seed: int, run: Run, group: Group = ALONE
) -> Recommender:
    """FittedResult with a progress bar, validate after each epoch, keep curve and epochs in the run."""
    run.log_params({"model": model.name, "seed": seed, **asdict(model.config)})
    context = TrainingContext(seed, options.device, options.precision, patience=options.patience, group=group)
    if split.validation is not None:
        validate = validator(split.validation, options.metric, model.needs_training_users)
        context = replace(context, validate=validate)
    _fit(model.fit, split, context, model.name, options.metric)
    for epoch in model.epochs:
        run.log_metrics(_values(epoch, options.metric, "validation "), step=epoch.number)
    if model.epochs:
        curve = [{"epoch": epoch.number, **_values(epoch, options.metric)} for epoch in model.epochs]
        run.log_figure(lambda: training_curve(curve, options.metric), "training_curve")
    return model


def refit_model(
    model: Recommender, split: Split, options: FittingOptions, seed: int, group: Group = ALONE
) -> Recommender:
    """A fresh model of the same kind fitted on `split`, for as many epochs as served validation best."""
    context = TrainingContext(seed, options.device, options.precision, group=group)
    return _fit(model.refit, split, context, f"{model.name} again, on everybody", options.metric)


def _fit(
    fit: Callable[[csr_matrix, TrainingContext], Recommender],
    split: Split,
    context: TrainingContext,
    label: str,
    metric: str,
) -> Recommender:
    if not context.group.is_main:  # one process tells
        return fit(split.train.matrix, context)
    with fit_progress(label, metric) as progress:
        return fit(split.train.matrix, replace(context, on_step=progress.step, on_epoch=progress.epoch))


def _values(epoch: Epoch, metric: str, prefix: str = "") -> dict[str, float]:
    value = {} if epoch.value is None else {f"{prefix}{metric}": goodness(metric, epoch.value)}
    return {"loss": epoch.loss} | value


def log_calibration(run: Run, fit: FittedResult) -> None:
    """Of predicted ratings: predicted against observed, as a picture in the run."""
    if fit.calibration:
        run.log_figure(lambda: calibration_curve(fit.calibration), "calibration")


def log_data(run: Run, interactions: Interactions, split: Split | None = None) -> dict[str, Any]:
    """Which data went in, and how they were divided: into the run. Returns the facts."""
    facts: Mapping[str, Any] = {**interactions.describe(), "ledger": interactions.ledger.line()}
    run.log_dataset("interactions", interactions.fingerprint(), facts)
    if split is not None:
        run.log_params({"protocol": split.protocol, "split": split.facts})
    return {"fingerprint": interactions.fingerprint(), **facts}


TRIALS = "tuning.db"  # all trials of all models, an Optuna study each


def trials_file(output: Path, resume: bool, overwrite: bool, mark: str = TRIALS) -> Path:
    """The file of trials in `output`: the one that is there to go on with, else a new one. `mark`: see artifacts."""
    load_optuna()  # before the work, not after it
    storage = output / TRIALS
    if resume:
        if not storage.is_file():
            raise ArtifactError(f"Expected trials to go on with in {storage}, found none: leave --resume out.")
        return storage
    if storage.is_file() and not overwrite:
        raise ArtifactError(f"{output} already holds trials: add --resume to go on, or --overwrite to start again.")
    refuse_existing(output, TRIALS if storage.is_file() else mark, overwrite)
    storage.unlink(missing_ok=True)
    return storage


def search_settings(
    search: Search, budget: Budget, storage: Path, options: FittingOptions, tracker: Tracker, interactions: Interactions
) -> Tuned:
    """Search with progress and a tracked run a trial, inside a run of the search."""
    context = TrainingContext(search.seed, options.device, options.precision, patience=options.patience)
    plan = {"data": interactions.fingerprint(), "patience": options.patience, "precision": options.precision}
    with tracker.run(f"tune {search.name}", "tune") as tracked, trials_progress(search.name, budget) as progress:
        log_data(tracked, interactions, search.split)

        def on_trial(trial: Trial, so_far: Tuned) -> None:
            progress(trial, so_far)
            with tracker.run(f"{search.name} trial {trial.number}", "trial") as child:
                child.log_params({"model": search.model, **search.fixed, **trial.settings})
                child.log_metrics(_trial_metrics(trial, search.metric))
                child.set_tags({"recsys.trial_state": trial.state, "recsys.trial_reason": trial.reason})
            if so_far.leader is not None and so_far.leader.value is not None:
                tracked.log_metrics({f"best validation {search.metric}": so_far.leader.value}, step=trial.number)

        tuned = tune(search, budget, storage, plan, context, on_trial)
        tracked.log_params({"model": search.model, "trials": len(tuned.trials), **search.fixed, **tuned.best.settings})
    return tuned


def _trial_metrics(trial: Trial, metric: str) -> dict[str, float]:
    return {"seconds": trial.seconds} | ({} if trial.value is None else {f"validation {metric}": trial.value})


def write_best(folder: Path, tuned: Tuned, fixed: Mapping[str, Any]) -> Path:
    """MODEL.toml with all settings of the best trial."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{tuned.model}.toml"
    file.write_text(settings_toml(create_model(tuned.model, {**fixed, **tuned.best.settings})), encoding="utf-8")
    return file


@contextmanager
def resumable(output: Path) -> Iterator[None]:
    """Ctrl-C tells how to go on, where there are trials to go on after."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not (output / TRIALS).is_file():
            raise
        raise click.ClickException(
            f"Stopped: by you. The trials so far are in {output}; the same command with --resume goes on after them."
        ) from error


def validation_split(interactions: Interactions, model: Recommender, held_out: float, seed: int) -> Split:
    """What the task holds out to choose settings and epochs on; nothing where the share is 0."""
    task = TASKS[model.task]
    if not held_out:
        return splitting.everybody(interactions, task.ratings)
    return task.validation_split(interactions, model, held_out, seed)
