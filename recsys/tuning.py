"""The best settings of a model by its validation users: Optuna's search, with the same budget for every model.

Every trial is a proposal of (seed, number of finished trials, their results): a search that was killed goes on as if
it had not been, and the trial it died in is made again. The defaults are the first trial. Only importer of optuna.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recsys.errors import ArtifactError, ConfigError, RecsysError, UnsupportedError
from recsys.evaluation.evaluate import validator
from recsys.evaluation.metrics import goodness
from recsys.models import MODELS, Recommender, create_model
from recsys.models.search_space import Choice, Space, search_space
from recsys.splitting.holdout import Split
from recsys.system.packages import missing_package
from recsys.training.context import Epoch, TrainingContext

# Trials that run to their end before others are measured against their median.
_UNPRUNED = 4
# Share of the planned epochs that no trial is denied.
_WARM_UP = 0.2


@dataclass(frozen=True)
class Budget:
    """When a search ends: after so many trials, or so many minutes of trials if given; one trial is always made."""

    trials: int = 20
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1 or (self.minutes is not None and self.minutes <= 0):
            raise ConfigError(f"Expected at least 1 trial and more than 0 minutes, found {self}.")

    def is_spent(self, trials: list[Trial]) -> bool:
        """Whether nothing more may be tried. With minutes, trials are counted no more."""
        if self.minutes is None:
            return len(trials) >= self.trials
        return bool(trials) and sum(trial.seconds for trial in trials) >= 60 * self.minutes


@dataclass(frozen=True)
class Trial:
    """One proposal and what came of it.

    value: validation metric of the best epoch (of an error, the lowest); None for a trial that failed, `reason` then
    says why. state: "complete", "pruned" (worse than half of the others at the same epoch) or "failed".
    """

    number: int  # from 1
    settings: Mapping[str, Any]
    value: float | None
    state: Literal["complete", "pruned", "failed"]
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Tuned:
    """All trials of a model, in order; the best of them wins."""

    model: str
    metric: str
    trials: list[Trial]

    @property
    def leader(self) -> Trial | None:
        """The complete trial with the best value, the first of equals; None before there is one."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        return max(complete, key=lambda trial: (goodness(self.metric, trial.value or 0), -trial.number), default=None)

    @property
    def best(self) -> Trial:
        """The leader. Raises ConfigError where no trial came to a good end."""
        if self.leader is None:
            reasons = "; ".join(dict.fromkeys(trial.reason for trial in self.trials if trial.reason))
            raise ConfigError(f"Expected a trial of {self.model} that ends well, found none. {reasons}")
        return self.leader

    @property
    def seconds(self) -> float:
        """Time spent in trials."""
        return sum(trial.seconds for trial in self.trials)


@dataclass(frozen=True)
class Search:
    """What is searched: a model, the settings a person fixed, the split it is judged on (which fold) and the metric."""

    model: str
    fixed: Mapping[str, Any]
    split: Split
    metric: str
    seed: int = 0
    fold: str = ""

    @property
    def name(self) -> str:
        """Of the study: one a model and fold."""
        return " ".join(filter(None, (self.model, self.fold)))

    def space(self) -> dict[str, Space]:
        """What can be searched: the model's space without what is fixed."""
        config = MODELS[self.model].Config
        return {key: space for key, space in search_space(config).items() if key not in self.fixed}

    def defaults(self) -> dict[str, Any]:
        """The defaults of what is searched: the first trial, unless they lie outside of their own space."""
        config = create_model(self.model, self.fixed).config
        return {key: getattr(config, key) for key in self.space()}


def tune(
    search: Search,
    budget: Budget,
    storage: Path,
    plan: Mapping[str, Any],
    context: TrainingContext | None = None,
    on_trial: Callable[[Trial, Tuned], None] | None = None,
) -> Tuned:
    """Search until the budget is spent; go on from what the SQLite file `storage` holds of this model already.

    `plan` says what a trial's value depends on besides its settings (data, split, ...). A model without anything to
    search gets one trial. Raises ArtifactError where the file holds trials of another plan, UnsupportedError where
    the split has no validation part.
    """
    if search.split.validation is None:
        raise UnsupportedError("Expected validation users to choose settings on, found none: give --validation FILE.")
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
    """Fit and validate one proposal, and tell the study how it went."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    started = time.perf_counter()
    settings = {key: _suggest(trial, key, space) for key, space in search.space().items()}
    try:
        value = _fit_and_validate(search, settings, replace(context, on_epoch=_reporter(trial)))
    except TrialPruned:
        outcome: dict[str, Any] = {"state": TrialState.PRUNED}
    except (RecsysError, MemoryError) as error:
        # These settings do not work; the search goes on. Anything else is a fault of ours and ends it.
        trial.set_user_attr("reason", str(error))
        outcome = {"state": TrialState.FAIL}
    else:
        outcome = {"values": value}
    # Its own clock: the study's stamps would count the time a killed search lay dead.
    trial.set_user_attr("seconds", time.perf_counter() - started)
    study.tell(trial, **outcome)


def _fit_and_validate(search: Search, settings: Mapping[str, Any], context: TrainingContext) -> float:
    assert search.split.validation is not None
    model = create_model(search.model, {**search.fixed, **settings})
    validate = validator(search.split.validation, search.metric, model.needs_training_users)
    model.fit(search.split.train.matrix, replace(context, validate=validate))
    return validate(model.score)


def _reporter(trial: Any) -> Callable[[Epoch, int], None]:
    """Told of every epoch: stops a trial whose best value is below the median of the others at that epoch."""
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
            f"Expected trials of this very search in {storage}, found some with another {', '.join(differ)}: "
            "choose another place, or add --overwrite to start again."
        )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # it died with its process; see _finished
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
    """A fingerprint of who learns and who validates; the test part has no say here."""
    assert split.validation is not None
    digest = hashlib.blake2b(digest_size=16)
    for matrix in (split.train.matrix, split.validation.history, split.validation.held_out):
        for part in (matrix.indptr, matrix.indices):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
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
    if isinstance(space, Choice):
        return trial.suggest_categorical(key, space.options)
    if space.is_whole:
        return trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(key, space.low, space.high, log=space.log)


def _finished(study: Any, metric: str) -> list[Trial]:
    """Trials that came to an end, numbered 1.. ; those that died with their process have no reason for it.

    The study knows goodness alone; a trial says the metric itself.
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
    """The package, kept silent. Raises MissingPackageError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise missing_package("optuna", "tune") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what happens is told through on_trial
    return optuna


def settings_toml(model: Recommender) -> str:
    """All settings of a model as the TOML that `recsys train --config` takes."""
    lines = [f"{key} = {_toml(value)}" for key, value in dataclasses.asdict(model.config).items() if value is not None]
    return "\n".join([f'model = "{model.name}"', "", "[settings]", *lines, ""])


def _toml(value: Any) -> str:
    """JSON's numbers, booleans and strings are TOML's; 1e-05 is a float in both. None in a table is left out."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items() if each is not None)}}}"
    return json.dumps(value)
