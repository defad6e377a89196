"""The best settings of a model by its validation part, with the same budget for every model.

trials: what a search is given and finds. search: the search itself, by Optuna. tuner: the settings of every model of a
comparison, `compare(data, models, tuner=Tuner(trials=15))`.
"""

from recsys.tuning.search import load_optuna, tune
from recsys.tuning.trials import Budget, Search, Trial, Tuned
from recsys.tuning.tuner import Tuner, settings_toml, tuned_settings

__all__ = ["Budget", "Search", "Trial", "Tuned", "Tuner", "load_optuna", "settings_toml", "tune", "tuned_settings"]
