"""Autoencoder recommender systems: from a ratings CSV to recommendations for everybody.

```
trained = recsys.fit("ratings.csv", "vae")             a model with the ids of its items
trained.recommend("ratings.csv", n=10)                 a data frame: user_id, item_id, rank, score
recsys.save_model("model", trained)                    a folder without pickle, for load_model and the command line
```
The names below are the public, stable interface; each is imported when it is first used. What lies behind them:

system      the machine: hardware, memory, threads, storage, atomic files
data        interactions, ids, the user-item matrix, reading, prepared stores
splitting   who and what is held out
inference   top-n lists, predicted pairs
training    the gradient loop, batches, several processes
models      every model behind one protocol
latent      embeddings, neighbors, maps, generated users
explain     what a score is made of, what a model doubts
evaluation  metrics, confidence intervals, comparison
tuning      the search of settings          capacity.py   what a size needs, before a start
artifacts.py   models on disk               batch         lists for everybody, in files
tracking    runs in MLflow                  reporting     plots and HTML pages
serving     models that answer requests
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.artifacts import load_model, save_model
    from recsys.data.interactions import Interactions
    from recsys.data.matrix import UserItemMatrix
    from recsys.data.reading import ReadingOptions, read_interactions
    from recsys.errors import RecsysError
    from recsys.evaluation.evaluate import evaluate
    from recsys.evaluation.fitting import fit
    from recsys.evaluation.study import compare
    from recsys.models import MODELS, Recommender, create_model
    from recsys.models.trained import TrainedModel
    from recsys.splitting import split
    from recsys.training.context import TrainingContext

_HOMES = {
    "Interactions": "recsys.data.interactions",
    "MODELS": "recsys.models",
    "ReadingOptions": "recsys.data.reading",
    "Recommender": "recsys.models",
    "RecsysError": "recsys.errors",
    "TrainedModel": "recsys.models.trained",
    "TrainingContext": "recsys.training.context",
    "UserItemMatrix": "recsys.data.matrix",
    "compare": "recsys.evaluation.study",
    "create_model": "recsys.models",
    "evaluate": "recsys.evaluation.evaluate",
    "fit": "recsys.evaluation.fitting",
    "load_model": "recsys.artifacts",
    "read_interactions": "recsys.data.reading",
    "save_model": "recsys.artifacts",
    "split": "recsys.splitting",
}

__all__ = [
    "MODELS",
    "Interactions",
    "ReadingOptions",
    "Recommender",
    "RecsysError",
    "TrainedModel",
    "TrainingContext",
    "UserItemMatrix",
    "__version__",
    "compare",
    "create_model",
    "evaluate",
    "fit",
    "load_model",
    "read_interactions",
    "save_model",
    "split",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("recsys.system.packages").recsys_version()
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'recsys' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
