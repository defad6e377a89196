"""Steps that several jobs share: fit a model on a split, search its settings, and track both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from recsys.data.interactions import Interactions
from recsys.errors import ArtifactError
from recsys.evaluation.evaluate import Validator
from recsys.evaluation.metrics import goodness
from recsys.evaluation.results import FittedResult
from recsys.models import Recommender, create_model
from recsys.models.trained import TrainedModel
from recsys.reporting.plotting import calibration_curve, training_curve
from recsys.splitting.holdout import Split
from recsys.system.atomic import refuse_existing, write_text
from recsys.system.disk import storage_errors
from recsys.system.files import new_file
from recsys.tracking.tracker import Run, Tracker
from recsys.training.context import Epoch, TrainingContext
from recsys.training.data_parallel import ALONE, Group
from recsys.training.precision import bf16_warning
from recsys.tuning import Budget, Search, Trial, Tuned, load_optuna, settings_toml, tune

from .output import note
from .progress import fit_progress, trials_progress
from .settings import FittingOptions


def fit_model(
    model: Recommender, split: Split, options: FittingOptions, seed: int, run: Run, group: Group = ALONE, **how: Any
) -> Recommender:
    """Fit with progress, validate after each epoch, track settings and learning curve. how: more of the context."""
    log_settings(run, model, seed)
    context = replace(fit_context(options, seed, group), item_features=split.train.features, **how)
    if split.validation is not None:
        validate = Validator(split.validation, options.metric, model.needs_training_users)
        context = replace(context, validate=validate)
    with shown(model.name, context, options.metric) as watched:
        model.fit(split.train.matrix, watched)
    log_epochs(run, model.epochs, options.metric)
    return model


def refit_model(
    model: Recommender, split: Split, options: FittingOptions, seed: int, group: Group = ALONE, **how: Any
) -> Recommender:
    """Fit a new model of the same kind on `split`, for the number of epochs that validated best."""
    context = replace(fit_context(options, seed, group), item_features=split.train.features, **how)
    with shown(f"{model.name}, refit on all rows", context, options.metric) as watched:
        return model.refit(split.train.matrix, watched)


@contextmanager
def shown(label: str, context: TrainingContext, metric: str) -> Iterator[TrainingContext]:
    """The context of a fit with callbacks that show its progress; one of several processes shows it."""
    if not context.group.is_main:
        yield context
        return
    with fit_progress(label, metric) as progress:
        yield replace(
            context,
            on_step=progress.step,
            on_epoch=progress.epoch,
            on_phase=progress.phase,
            on_resume=progress.resume,
        )


def fit_context(options: FittingOptions, seed: int, group: Group = ALONE) -> TrainingContext:
    """How the fits of a command happen. The process is the command's alone, and may keep freed memory."""
    context = TrainingContext(
        seed, options.device, options.precision, patience=options.patience, group=group, keep_freed_memory=True
    )
    if options.precision == "bf16" and group.is_main:
        comment_on_bf16(context.resolve_device())
    return context


@cache
def comment_on_bf16(device: torch.device) -> None:
    """Say, once, that this chip is slow at what was asked for."""
    if warning := bf16_warning(device):
        note(warning)


def log_settings(run: Run, model: Recommender, seed: int) -> None:
    """Track which model is fitted, with which settings."""
    run.log_params({"model": model.name, "seed": seed, **asdict(model.config)})


def log_epochs(run: Run, epochs: Sequence[Epoch], metric: str) -> None:
    """Track loss and validation metric of every epoch, and a plot of them."""
    for epoch in epochs:
        run.log_metrics(_values(epoch, metric, "validation "), step=epoch.number)
    if epochs:
        curve = [{"epoch": epoch.number, **_values(epoch, metric)} for epoch in epochs]
        run.log_figure(lambda: training_curve(curve, metric), "training_curve")


def _values(epoch: Epoch, metric: str, prefix: str = "") -> dict[str, float]:
    value = {} if epoch.value is None else {f"{prefix}{metric}": goodness(metric, epoch.value)}
    return {"loss": epoch.loss} | value


def log_calibration(run: Run, fit: FittedResult) -> None:
    """Track a plot of predicted against observed ratings."""
    if fit.calibration:
        run.log_figure(lambda: calibration_curve(fit.calibration), "calibration")


def log_data(run: Run, interactions: Interactions, split: Split | None = None) -> dict[str, Any]:
    """Track which data were used, and how they were split; return the facts."""
    facts: Mapping[str, Any] = {**interactions.describe(), "ledger": interactions.ledger.line()}
    run.log_dataset("interactions", interactions.fingerprint(), facts)
    if split is not None:
        run.log_params({"protocol": split.protocol, "split": split.facts})
    return {"fingerprint": interactions.fingerprint(), **facts}


def log_used_model(run: Run, saved: TrainedModel) -> None:
    """Track which saved model is used, and link the run to the model that its training kept."""
    training = saved.about.get("run_id") or ""
    run.set_tags({"recsys.training_run": training, "recsys.model_digest": saved.digest})
    run.use_model(training)


TRIALS = "tuning.db"  # all trials of all models, one Optuna study each


def trials_file(output: Path, resume: bool, overwrite: bool, mark: str = TRIALS) -> Path:
    """The file of trials in `output`: the existing one with `resume`, else a new one. `mark`: see refuse_existing."""
    load_optuna()  # an optional package: refused before the work, not after it
    storage = output / TRIALS
    if resume:
        if not storage.is_file():
            raise ArtifactError(f"Expected trials to resume in {storage}, found none: leave --resume out.")
        return storage
    if storage.is_file() and not overwrite:
        raise ArtifactError(f"{output} already holds trials: add --resume to continue, or --overwrite to start again.")
    refuse_existing(output, TRIALS if storage.is_file() else mark, overwrite)
    if storage.is_file():  # emptied in one step: the folder stays one of ours, whenever the command is killed
        with new_file(storage) as draft:
            draft.touch()
    return storage


def search_settings(
    search: Search, budget: Budget, storage: Path, options: FittingOptions, tracker: Tracker, interactions: Interactions
) -> Tuned:
    """Search with progress; the search is a tracked run, and each trial a run inside it."""
    context = fit_context(options, search.seed)
    plan = {"data": interactions.fingerprint(), "patience": options.patience, "precision": options.precision}
    with tracker.run(f"tune {search.name}", "tune") as tracked, trials_progress(search.name, budget) as show:
        log_data(tracked, interactions, search.split)

        def on_trial(trial: Trial, so_far: Tuned) -> None:
            show(trial, so_far)
            with tracker.run(f"{search.name} trial {trial.number}", "trial") as child:
                child.log_params({"model": search.model, **search.fixed, **trial.settings})
                child.log_metrics(_trial_metrics(trial, search.metric))
                child.set_tags({"recsys.trial_state": trial.state, "recsys.trial_reason": trial.reason})
            if so_far.leader is not None and so_far.leader.value is not None:
                tracked.log_metrics({f"best validation {search.metric}": so_far.leader.value}, step=trial.number)

        with storage_errors(storage):
            tuned = tune(search, budget, storage, plan, context, on_trial)
        tracked.log_params({"model": search.model, "trials": len(tuned.trials), **search.fixed, **tuned.best.settings})
    return tuned


def _trial_metrics(trial: Trial, metric: str) -> dict[str, float]:
    return {"seconds": trial.seconds} | ({} if trial.value is None else {f"validation {metric}": trial.value})


def write_best(file: Path, tuned: Tuned, fixed: Mapping[str, Any]) -> Path:
    """Write all settings of the best trial to a TOML file."""
    write_text(file, settings_toml(create_model(tuned.model, {**fixed, **tuned.best.settings})))
    return file


def resume_hint(output: Path) -> str:
    """How to continue a search, where there are trials to continue from."""
    if not (output / TRIALS).is_file():
        return ""
    return f"The finished trials are in {output}: run the same command with --resume to continue after them."
