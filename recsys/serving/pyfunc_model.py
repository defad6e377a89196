"""The program that MLflow keeps beside a model and runs to load it ("models from code"), instead of a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from recsys.artifacts import load_model
from recsys.errors import RecsysError
from recsys.serving.pyfunc import recommend_frame


class TopNModel(PythonModel):  # type: ignore[misc]
    """Recommends with a model directory."""

    def load_context(self, context: Any) -> None:
        """Read the model directory once."""
        self.saved = load_model(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Recommend to the users of `model_input`; MLflow has checked both arguments against the signature."""
        try:
            return recommend_frame(self.saved, model_input, **(params or {}))
        except RecsysError as error:  # a request that cannot be met: HTTP status 400 with the reason
            raise MlflowException.invalid_parameter_value(str(error)) from error


set_model(TopNModel())
