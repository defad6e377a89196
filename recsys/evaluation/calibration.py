"""Are predicted ratings right on average: what was predicted against what was observed, bin by bin."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BINS = 20


def calibration(predicted: NDArray[np.float32], observed: NDArray[np.float32]) -> list[Mapping[str, float]]:
    """Mean predicted and mean observed rating of the cells of each bin, the lowest predictions first, with their count.

    At most BINS bins of equal shares of the cells; equal predictions are never parted, so that a model which says the
    same of all has one.
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
