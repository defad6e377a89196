"""Recommendations as a service: the model directory as an MLflow model, served or loaded with no pickle on the way.

Histories go in (`user_id, item_id[, rating]`), ranked lists come out (`user_id, item_id, rank, score`): a user the
model never saw is served like any other. MLflow runs `recsys/serving_model.py` to load one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys.artifacts import SavedModel
from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import DataError
from recsys.inference.topn import TopN, recommend
from recsys.system.hardware import packages

logger = logging.getLogger(__name__)


def recommend_frame(saved: SavedModel, histories: pd.DataFrame, n: int = 10, filter_seen: bool = True) -> pd.DataFrame:
    """Lists for the users of `histories`, in order of first appearance: user_id, item_id (text), rank from 1, score.

    Of a repeated (user, item) row the last counts. Who cannot be scored gets no rows and is counted in a warning: a
    user with no item the model knows, or, for a model that knows only its training users, anybody else. Raises
    DataError for missing columns or ids, and for missing ratings where the model needs them.
    """
    data = UserItemMatrix.from_interactions(_interactions(histories), saved.items, saved.model.task == "rating")
    if data.unknown:
        logger.info("%d interactions are with items the model does not know: not used.", data.unknown)
    able = np.diff(data.matrix.indptr) > 0
    trained = None if saved.users is None else saved.users.positions(data.users.ids).astype(np.int64)
    if trained is not None:
        able &= trained >= 0
    if not able.all():
        logger.warning(
            "%d of %d users get no list: the model knows none of their items, or not them.", (~able).sum(), len(able)
        )
    rows = np.flatnonzero(able)
    lists = recommend(
        saved.model.score,
        data.matrix[rows],
        n,
        filter_seen=filter_seen,
        users=None if trained is None else trained[rows],
    )
    tables = [_table(batch, data.users.take(rows), saved.items) for batch in lists]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(_OUTPUT)).astype(_OUTPUT)


_OUTPUT = {"user_id": "str", "item_id": "str", "rank": "int64", "score": "float64"}


def _interactions(histories: pd.DataFrame) -> Interactions:
    missing = {"user_id", "item_id"} - set(histories.columns)
    if missing:
        raise DataError(f"Expected the columns user_id and item_id, found {list(histories.columns)}.")
    if histories[["user_id", "item_id"]].isna().any(axis=None):
        raise DataError("Expected a user_id and an item_id in every row, found rows without.")
    rows = histories.drop_duplicates(["user_id", "item_id"], keep="last")
    user, users = pd.factorize(rows["user_id"])
    item, items = pd.factorize(rows["item_id"])
    rating = rows["rating"].to_numpy(np.float32) if "rating" in rows and rows["rating"].notna().any() else None
    if rating is not None and np.isnan(rating).any():
        raise DataError("Expected a rating in every row or in none, found both.")
    return Interactions(
        Vocabulary.of(users.astype("str")), Vocabulary.of(items), user.astype(np.int32), item.astype(np.int32), rating
    )


def _table(batch: TopN, users: pa.Array, items: Vocabulary) -> pd.DataFrame:
    row, place = np.nonzero(batch.positions >= 0)
    return pd.DataFrame(
        {
            "user_id": users.take(pa.array(batch.start + row)).to_pandas(),
            "item_id": items.take(batch.positions[row, place]).cast(pa.string()).to_pandas(),
            "rank": place + 1,
            "score": batch.scores[row, place],
        }
    ).astype(_OUTPUT)


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
