"""Recommendations as a service: the model directory as an MLflow model, served or loaded without any pickle.

Histories go in (`user_id, item_id[, rating][, timestamp]`), ranked lists come out (`user_id, item_id, rank, score`).
New users need no training. MLflow loads a model with recsys/serving/pyfunc_model.py.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.data.reading import ReadingOptions
from recsys.errors import DataError, NoRowsLeftError
from recsys.inference.topn import check_length
from recsys.models.trained import TrainedModel
from recsys.system.packages import own_requirement, packages
from recsys.system.text import plural

MAX_REQUEST_ROWS = 1_000_000  # rows of histories in one request
MAX_ANSWER_ROWS = 10_000_000  # rows of lists in one answer

_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_OUTPUT = {"user_id": "str", "item_id": "str", "rank": "int64", "score": "float64"}

logger = logging.getLogger(__name__)


def recommend_frame(
    trained: TrainedModel,
    histories: pd.DataFrame,
    n: int = 10,
    filter_seen: bool = True,
    exclude_items: Sequence[str] = (),
    candidate_items: Sequence[str] = (),
) -> pd.DataFrame:
    """Recommend to the users of a table of histories, read as the ratings of the training were read.

    Parameters
    ----------
    trained : TrainedModel
        The model.
    histories : DataFrame
        Columns user_id and item_id; rating where the model was trained on ratings or with a minimum rating; timestamp
        (numbers, dates or ISO 8601 text) to decide which of several rows of a pair counts. Ids are compared as text.
    n : int
        Length of a list, at least 1; lists are never longer than the catalog.
    filter_seen : bool
        Leave out what the user has had.
    exclude_items, candidate_items : sequence of str
        Items never to list, and, unless it is empty, the only ones. Ids that the model does not know are passed over; a
        warning counts them.

    Returns
    -------
    DataFrame
        user_id and item_id as text, rank from 1, score; users in order of first appearance. Users who cannot be scored
        have no rows; a warning counts them.

    Raises
    ------
    ConfigError
        If `n` is below 1.
    DataError
        If columns or ids are missing, or ratings where the model needs them; if the request or its answer is too
        large.
    """
    frame = _checked(histories)
    check_length(n)
    n = min(n, len(trained.items))
    users = frame["user_id"].nunique()
    if users * n > MAX_ANSWER_ROWS:
        raise DataError(
            f"Expected at most {MAX_ANSWER_ROWS:,} rows of lists in an answer, found {users:,} users with {n:,} items: "
            "ask for shorter lists, or for fewer users at a time."
        )
    excluded = _known(trained, exclude_items, "exclude_items")
    candidates = _known(trained, candidate_items, "candidate_items") if len(candidate_items) else None
    lists = pd.DataFrame(columns=list(_OUTPUT)).astype(_OUTPUT)
    if len(frame):
        with contextlib.suppress(NoRowsLeftError):  # nothing was liked: empty histories, which are no error here
            read = trained.read_histories(frame, _reading(frame))
            asked = frame["user_id"].unique()
            asked = asked[read.users.positions(asked) >= 0]  # the others liked nothing
            chosen = trained.recommend(
                read, n, users=asked, filter_seen=filter_seen, only_items=candidates, exclude_items=excluded
            )
            lists = chosen.astype(_OUTPUT)
    without = users - lists["user_id"].nunique()
    if without:
        get = "gets" if without == 1 else "get"
        logger.warning("%d of %s %s no list: the model cannot score them.", without, plural(users, "user"), get)
    return lists


def _known(trained: TrainedModel, ids: Sequence[str], name: str) -> list[Any]:
    """The ids that the model knows."""
    positions = trained.items.positions([str(item) for item in ids])
    unknown = int((positions < 0).sum())
    if unknown:
        logger.warning("%d of %d ids of %s are unknown to the model.", unknown, len(positions), name)
    return list(trained.items.take(positions[positions >= 0]).to_pylist())


def _checked(histories: pd.DataFrame) -> pd.DataFrame:
    """The known columns of a request, ids as text."""
    missing = {"user_id", "item_id"} - set(histories.columns)
    if missing:
        raise DataError(f"Expected the columns user_id and item_id, found {list(histories.columns)}.")
    if not histories.columns.is_unique:
        raise DataError(f"Expected each column once, found {list(histories.columns)}.")
    if len(histories) > MAX_REQUEST_ROWS:
        raise DataError(
            f"Expected at most {MAX_REQUEST_ROWS:,} rows in a request, found {len(histories):,}: split it by users."
        )
    frame = histories[[name for name in _COLUMNS if name in histories]].reset_index(drop=True)
    if frame[["user_id", "item_id"]].isna().any(axis=None):
        raise DataError("Expected a user_id and an item_id in every row, found rows without.")
    if "rating" in frame and frame["rating"].isna().any() and frame["rating"].notna().any():
        raise DataError("Expected a rating in every row or in none, found both.")
    if "timestamp" in frame and pd.api.types.is_string_dtype(frame["timestamp"].dropna()):  # JSON has no dates
        try:
            frame["timestamp"] = pd.to_datetime(frame["timestamp"], format="ISO8601")
        except (ValueError, TypeError) as error:
            raise DataError(f"Expected timestamps as numbers or ISO 8601 dates, found: {error}.") from error
    return frame.astype({"user_id": "str", "item_id": "str"})


def _reading(frame: pd.DataFrame) -> ReadingOptions:
    """Options that name the columns of the frame; what they leave open the model remembers."""
    present = {name: name in frame and bool(frame[name].notna().any()) for name in ("rating", "timestamp")}
    return ReadingOptions(
        user_column="user_id",
        item_column="item_id",
        rating_column="rating" if present["rating"] else "none",
        timestamp_column="timestamp" if present["timestamp"] else "none",
        order="time" if present["timestamp"] else "rows",
        on_bad_row="fail",
    )


def pyfunc_arguments(directory: Path) -> dict[str, Any]:
    """Return the arguments with which MLflow's pyfunc keeps a model directory.

    Parameters
    ----------
    directory : Path
        A model directory.

    Returns
    -------
    dict
        For `mlflow.pyfunc.save_model` or `log_model`: code, files, signature, requirements. Where pip can install this
        copy of recsys on another machine, it is one of the pinned requirements; otherwise the package travels with the
        model (`code_paths`), so that a server needs only the packages that recsys depends on.
    """
    own = own_requirement()
    return {
        "python_model": str(Path(__file__).with_name("pyfunc_model.py")),
        "artifacts": {"model": str(directory.resolve())},
        "signature": _signature(),
        "pip_requirements": _requirements() + ([] if own is None else [own]),
        **({"code_paths": [str(Path(__file__).parents[1])]} if own is None else {}),
    }


def _signature() -> Any:
    """Columns of requests and answers, and the parameters with their defaults."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    text, number = DataType.string, DataType.double
    ids = [ColSpec(text, "user_id"), ColSpec(text, "item_id")]
    optional = [ColSpec(number, "rating", required=False), ColSpec(AnyType(), "timestamp", required=False)]
    outputs = [ColSpec(text, "user_id"), ColSpec(text, "item_id"), ColSpec(DataType.long, "rank")]
    params = [ParamSpec("n", DataType.long, 10), ParamSpec("filter_seen", DataType.boolean, True)]
    params += [ParamSpec(name, text, [], shape=(-1,)) for name in ("exclude_items", "candidate_items")]
    return ModelSignature(Schema([*ids, *optional]), Schema([*outputs, ColSpec(number, "score")]), ParamSchema(params))


def _requirements() -> list[str]:
    """What recsys depends on, at the versions of this environment: `torch==2.13.0`, never a local build of it."""
    needed = [(name, version) for name, version, extra in packages() if version and extra in (None, "mlflow")]
    return [f"{name}=={version.split('+')[0]}" for name, version in needed]
