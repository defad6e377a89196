"""Recommendations as a service: the model directory as an MLflow model, served or loaded with no pickle on the way.

Histories go in (`user_id, item_id[, rating]`), ranked lists come out (`user_id, item_id, rank, score`): a user the
model never saw is served like any other. MLflow runs `recsys/serving_model.py` to load one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.data.reading import ReadingOptions
from recsys.errors import DataError
from recsys.models.trained import TrainedModel
from recsys.system.packages import packages

logger = logging.getLogger(__name__)


def recommend_frame(
    saved: TrainedModel, histories: pd.DataFrame, n: int = 10, filter_seen: bool = True
) -> pd.DataFrame:
    """Recommend to the users of a frame of histories, read as the ratings of the training were read.

    Parameters
    ----------
    saved : TrainedModel
        The model.
    histories : DataFrame
        Columns user_id, item_id and perhaps rating.
    n : int
        Length of a list.
    filter_seen : bool
        Leave out what the user has had.

    Returns
    -------
    DataFrame
        user_id and item_id as text, rank from 1, score; users in order of first appearance. Users who cannot be scored
        have no rows and are counted in a warning.

    Raises
    ------
    DataError
        If columns or ids are missing, or ratings where the model needs them.
    """
    missing = {"user_id", "item_id"} - set(histories.columns)
    if missing:
        raise DataError(f"Expected the columns user_id and item_id, found {list(histories.columns)}.")
    rated = "rating" in histories and bool(histories["rating"].notna().any())
    options = ReadingOptions(
        user_column="user_id",
        item_column="item_id",
        rating_column="rating" if rated else "none",
        timestamp_column="none",
        on_bad_row="fail",
    )
    interactions = saved.read_histories(histories, options)
    lists = saved.recommend(interactions, n, filter_seen=filter_seen)
    without = len(interactions.users) - lists["user_id"].nunique()
    if without:
        logger.warning("%d of %d users get no list: the model cannot score them.", without, len(interactions.users))
    return lists.astype(_OUTPUT)


_OUTPUT = {"user_id": "str", "item_id": "str", "rank": "int64", "score": "float64"}


def pyfunc_arguments(directory: Path) -> dict[str, Any]:
    """What MLflow's pyfunc `save_model` and `log_model` need to keep a model directory: code, weights, signature.

    The package travels with the model (`code_paths`), so a server needs only the pinned packages it stands on.
    """
    package = Path(__file__).parents[1]
    return {
        "python_model": str(Path(__file__).with_name("pyfunc_model.py")),
        "artifacts": {"model": str(directory.resolve())},
        "code_paths": [str(package)],
        "signature": _signature(),
        "pip_requirements": _requirements(),
    }


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text, number = DataType.string, DataType.double
    inputs = [ColSpec(text, "user_id"), ColSpec(text, "item_id"), ColSpec(number, "rating", required=False)]
    outputs = [ColSpec(text, "user_id"), ColSpec(text, "item_id"), ColSpec(DataType.long, "rank")]
    params = [ParamSpec("n", DataType.long, 10), ParamSpec("filter_seen", DataType.boolean, True)]
    return ModelSignature(Schema(inputs), Schema([*outputs, ColSpec(number, "score")]), ParamSchema(params))


def _requirements() -> list[str]:
    """What recsys stands on, at the versions of this environment: `torch==2.13.0`, never a local build of it."""
    needed = [(name, version) for name, version, extra in packages() if version and extra in (None, "mlflow")]
    return [f"{name}=={version.split('+')[0]}" for name, version in needed]
