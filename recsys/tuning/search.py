"""Search of a model's best settings on its validation part, by Optuna.

Every trial is a function of the seed, the number of finished trials and their results: a search that was interrupted
continues as if it had not been, and the trial that was running is repeated. The defaults are the first trial.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recsys.data.item_features.features import fingerprint_of
from recsys.errors import ArtifactError, RecsysError, UnsupportedError
from recsys.evaluation.evaluate import Validator
from recsys.evaluation.metrics import goodness
from recsys.models import create_model
from recsys.models.search_space import Categorical, Space
from recsys.splitting.holdout import Split
from recsys.system.packages import missing_package
from recsys.training.context import Epoch, TrainingContext
from recsys.tuning.trials import Budget, Search, Trial, Tuned

# Trials that run to their end before others are compared with their median.
_UNPRUNED = 4
# Share of the planned epochs that every trial gets.
_WARM_UP = 0.2


def tune(
    search: Search,
    budget: Budget,
    storage: Path,
    plan: Mapping[str, Any],
    context: TrainingContext | None = None,
    on_trial: Callable[[Trial, Tuned], None] | None = None,
) -> Tuned:
    """Search settings until the budget is spent, continuing with the trials in `storage`.

    Parameters
    ----------
    search : Search
        What is searched. A model without a search space gets one trial.
    budget : Budget
        When to stop; earlier trials count.
    storage : Path
        SQLite file with the trials, made where it does not exist; it may hold other searches too.
    plan : mapping
        What a trial's value depends on besides the settings and the split, such as the fingerprint of the data.
    context : TrainingContext, optional
        Device, precision and patience of the fits.
    on_trial : callable, optional
        Called after each trial with it and with all trials so far.

    Returns
    -------
    Tuned
        All trials, earlier ones included.

    Raises
    ------
    ArtifactError
        If `storage` holds trials of this model under another plan.
    UnsupportedError
        If the split has no validation part.
    MissingPackageError
        If Optuna is not installed.
    """
    if search.split.validation is None:
        raise UnsupportedError("Expected a validation part to choose settings on, found none in the split.")
    study = _open_study(search, storage, plan)
    trials = _finished(study, search.metric)
    if not search.space():
        budget = Budget(1)
    while not budget.is_spent(trials):
        trial = _ask(study, search, len(trials))
        _run(study, trial, search, context or TrainingContext(search.seed))
        trials = _finished(study, search.metric)
        if on_trial is not None:
            on_trial(trials[-1], Tuned(search.model, search.metric, trials))
    return Tuned(search.model, search.metric, trials)


def _run(study: Any, trial: Any, search: Search, context: TrainingContext) -> None:
    """Fit and validate one proposal, and record the outcome."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    started = time.perf_counter()
    settings = {key: _suggest(trial, key, space) for key, space in search.space().items()}
    try:
        value = _fit_and_validate(search, settings, replace(context, on_epoch=_reporter(trial)))
    except TrialPruned:
        outcome: dict[str, Any] = {"state": TrialState.PRUNED}
    except (RecsysError, MemoryError) as error:
        # These settings do not work; the search goes on. Any other exception is a bug and ends it.
        trial.set_user_attr("reason", str(error))
        outcome = {"state": TrialState.FAIL}
    else:
        outcome = {"values": value}
    # Its own clock: the study's timestamps would count the time during which the search was interrupted.
    trial.set_user_attr("seconds", time.perf_counter() - started)
    study.tell(trial, **outcome)


def _fit_and_validate(search: Search, settings: Mapping[str, Any], context: TrainingContext) -> float:
    assert search.split.validation is not None
    model = create_model(search.model, {**search.fixed, **settings})
    validate = Validator(search.split.validation, search.metric, model.needs_training_users)
    train = search.split.train
    model.fit(train.matrix, replace(context, validate=validate, item_features=train.features))
    return validate(model.score)


def _reporter(trial: Any) -> Callable[[Epoch, int], None]:
    """A callback that stops a trial whose best value is below the median of the others at the same epoch."""
    from optuna import TrialPruned

    def report(epoch: Epoch, epochs: int) -> None:
        if epoch.value is None:
            return
        trial.report(epoch.value, epoch.number)
        if epoch.number > _WARM_UP * epochs and trial.should_prune():
            raise TrialPruned

    return report


def _open_study(search: Search, storage: Path, plan: Mapping[str, Any]) -> Any:
    optuna = load_optuna()
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{storage.absolute()}",
        study_name=search.name,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED),
        load_if_exists=True,
    )
    wanted = json.loads(json.dumps({**plan, **_plan(search)}, default=str))
    found = study.user_attrs.get("plan")
    if found is None:
        study.set_user_attr("plan", wanted)
    elif found != wanted:
        differ = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        raise ArtifactError(
            f"Expected trials of the same search in {storage}, found some with another {', '.join(differ)}: "
            "choose another file, or remove it (overwrite) to start again."
        )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # its process was interrupted; see _finished
    return study


def _plan(search: Search) -> dict[str, Any]:
    """What makes two trials of equal settings comparable."""
    return {
        "model": search.model,
        "fixed": dict(search.fixed),
        "metric": search.metric,
        "seed": search.seed,
        "split": _digest(search.split),
        "space": {key: [type(space).__name__, dataclasses.asdict(space)] for key, space in search.space().items()},
    }


def _digest(split: Split) -> str:
    """A fingerprint of the training and validation parts; the test part does not enter."""
    assert split.validation is not None
    digest = hashlib.blake2b(digest_size=16)
    for matrix in (split.train.matrix, split.validation.history, split.validation.held_out):
        for part in (matrix.indptr, matrix.indices):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
    if split.train.features is not None:
        digest.update(fingerprint_of(split.train.features).encode())
    return digest.hexdigest()


def _ask(study: Any, search: Search, finished: int) -> Any:
    """The next proposal: the defaults first, then TPE's, drawn from the seed and the number of finished trials."""
    optuna = load_optuna()
    seed = int(np.random.SeedSequence([search.seed, finished]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
    waiting = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
    if not finished and not waiting and search.space():
        study.enqueue_trial(search.defaults())
    return study.ask()


def _suggest(trial: Any, key: str, space: Space) -> Any:
    if isinstance(space, Categorical):
        return trial.suggest_categorical(key, space.options)
    if space.is_whole:
        return trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(key, space.low, space.high, log=space.log)


def _finished(study: Any, metric: str) -> list[Trial]:
    """Trials that ended, numbered from 1; those of an interrupted process have no reason and are left out.

    The study stores goodness (higher is better); a Trial has the metric itself.
    """

    def value(trial: Any) -> float | None:
        found = trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=None)
        return None if found is None else goodness(metric, found)

    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in ("COMPLETE", "PRUNED") or "reason" in trial.user_attrs
    ]
    return [
        Trial(
            number,
            dict(trial.params),
            value(trial),
            _STATES[trial.state.name],
            trial.user_attrs["seconds"],
            trial.user_attrs.get("reason", ""),
        )
        for number, trial in enumerate(ended, start=1)
    ]


_STATES: dict[str, Literal["complete", "pruned", "failed"]] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}


def load_optuna() -> Any:
    """Import Optuna and silence its log; MissingPackageError if it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise missing_package("optuna", "tune") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # on_trial reports instead
    return optuna
