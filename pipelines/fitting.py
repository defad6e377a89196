"""Fit one model on a split and tell the tracker: what `train` and `compare` do alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from scipy.sparse import csr_matrix

from recsys.comparing import Fit
from recsys.evaluation import validator
from recsys.interactions import Interactions
from recsys.metrics import goodness
from recsys.models import Recommender
from recsys.plotting import calibration_curve, training_curve
from recsys.processes import ALONE, Group
from recsys.splitting import Split
from recsys.tracking import Run
from recsys.training import Epoch, TrainingContext

from .progress import fit_progress
from .settings import FittingOptions


def fit_model(
    model: Recommender, split: Split, options: FittingOptions, seed: int, run: Run, group: Group = ALONE
) -> Recommender:
    """Fit with a progress bar, validate after each epoch, keep curve and epochs in the run."""
    run.log_params({"model": model.name, "seed": seed, **asdict(model.config)})
    context = TrainingContext(seed, options.device, options.precision, patience=options.patience, group=group)
    if split.validation is not None:
        validate = validator(split.validation, options.metric, model.needs_training_users)
        context = replace(context, validate=validate)
    _fit(model.fit, split, context, model.name, options.metric)
    for epoch in model.history:
        run.log_metrics(_values(epoch, options.metric, "validation "), step=epoch.number)
    if model.history:
        curve = [{"epoch": epoch.number, **_values(epoch, options.metric)} for epoch in model.history]
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


def log_calibration(run: Run, fit: Fit) -> None:
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
