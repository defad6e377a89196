"""Tuned settings of every model of a comparison, and settings as a file."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recsys.evaluation.code_sizes import size_of
from recsys.evaluation.plan import TunedSettings
from recsys.evaluation.results import TuningFacts
from recsys.evaluation.study import Study
from recsys.models import Recommender
from recsys.tuning.search import tune
from recsys.tuning.trials import Budget, Search, Tuned


@dataclass(frozen=True)
class Tuner:
    """Finds the settings of every model of a comparison: `compare(data, models, tuner=Tuner(trials=15))`.

    Attributes
    ----------
    trials : int
        Settings to try for each model and fold, the defaults first.
    minutes : float, optional
        Minutes of trials, in place of their number.
    storage : Path, optional
        SQLite file that keeps the trials, to continue with; a temporary one without it.
    """

    trials: int = 20
    minutes: float | None = None
    storage: Path | None = None

    def __call__(self, study: Study, name: str) -> TunedSettings:
        """Search the settings of a model on every fold; those that differ from the defaults are kept fixed.

        Where sizes of the code are compared, the size is fixed too.
        """
        model = study.models[name]
        defaults = dataclasses.asdict(type(model.config)())
        fixed = {key: value for key, value in dataclasses.asdict(model.config).items() if value != defaults[key]}
        fixed |= size_of(model) if study.plan.latent_sizes else {}
        plan, budget = study.plan, Budget(self.trials, self.minutes)
        with tempfile.TemporaryDirectory() as folder:
            storage = self.storage or Path(folder) / "trials.db"
            found = {
                fold: tune(
                    Search(model.name, fixed, split, plan.metric, plan.seed, fold, name),
                    budget,
                    storage,
                    {"patience": plan.context.patience, "precision": plan.context.precision},
                    replace(plan.context, seed=plan.seed),
                )
                for fold, split in study.splits.items()
            }
        return tuned_settings(found)


def tuned_settings(found: Mapping[str, Tuned]) -> TunedSettings:
    """Collect the best settings of a model on each fold, and how they were found, for a comparison.

    Parameters
    ----------
    found : mapping of str to Tuned
        The searches of one model, by fold.

    Returns
    -------
    TunedSettings
        Counts and seconds are over all folds, the rest of the first one.
    """
    first = next(iter(found.values()))
    trials = [trial for tuned in found.values() for trial in tuned.trials]
    facts: TuningFacts = {
        "trials": len(trials),
        "pruned": sum(trial.state == "pruned" for trial in trials),
        "failed": sum(trial.state == "failed" for trial in trials),
        "seconds": sum(trial.seconds for trial in trials),
        "defaults": first.trials[0].value,
        "best": first.best.value,
        "best_trial": first.best.number,
        "values": [trial.value if trial.state == "complete" else None for trial in first.trials],
        "settings": dict(first.best.settings),
    }
    return TunedSettings({fold: dict(tuned.best.settings) for fold, tuned in found.items()}, facts)


def settings_toml(model: Recommender) -> str:
    """Write all settings of a model as the TOML that `recsys train --config` reads."""
    lines = [f"{key} = {_toml(value)}" for key, value in dataclasses.asdict(model.config).items() if value is not None]
    return "\n".join([f'model = "{model.name}"', "", "[settings]", *lines, ""])


def _toml(value: Any) -> str:
    """A value as TOML: numbers, booleans and strings are as in JSON; None in a table is left out."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items() if each is not None)}}}"
    return json.dumps(value)
