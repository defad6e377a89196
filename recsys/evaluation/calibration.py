"""Whether predicted ratings are right on average: predicted against observed ratings, bin by bin."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

BINS = 20


class CalibrationBin(TypedDict):
    """Held-out cells with similar predictions: their mean prediction, mean observed rating, and number."""

    predicted: float
    observed: float
    cells: int


def calibration(predicted: NDArray[np.float32], observed: NDArray[np.float32]) -> list[CalibrationBin]:
    """Compare predicted with observed ratings in bins of the predictions.

    Parameters
    ----------
    predicted, observed : ndarray of float32, shape (cells,)
        In the same order, on the users' scale.

    Returns
    -------
    list of CalibrationBin
        At most BINS bins with equal shares of the cells, lowest predictions first. Equal predictions stay in one bin,
        so a constant prediction gives a single bin; no cells give no bins.
    """
    if not len(predicted):
        return []
    inner = np.unique(np.quantile(predicted, np.arange(1, BINS) / BINS, method="lower"))
    place = np.searchsorted(inner, predicted, side="left")
    cells = np.bincount(place, minlength=len(inner) + 1)
    sums = [np.bincount(place, part.astype(np.float64), len(inner) + 1) for part in (predicted, observed)]
    return [
        {
            "predicted": float(sums[0][at] / cells[at]),
            "observed": float(sums[1][at] / cells[at]),
            "cells": int(cells[at]),
        }
        for at in np.flatnonzero(cells)
    ]
