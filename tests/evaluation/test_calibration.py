import numpy as np

from recsys.evaluation.calibration import BINS, calibration


def test_cells_with_one_prediction_make_one_bin():
    assert calibration(np.float32([3, 3, 3]), np.float32([1, 3, 8])) == [{"predicted": 3, "observed": 4, "cells": 3}]


def test_bins_go_from_the_lowest_prediction_to_the_highest_and_hold_every_cell():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(1, 5, 1000).astype(np.float32)
    bins = calibration(predicted, predicted)
    assert len(bins) == BINS
    assert [each["cells"] for each in bins] == [1000 / BINS] * BINS
    levels = [each["predicted"] for each in bins]
    assert levels == sorted(levels) == [each["observed"] for each in bins]


def test_a_model_that_predicts_too_high_is_above_the_line():
    truth = np.repeat(np.float32([1, 5]), 50)
    low, high = calibration(3 + 2 * (truth - 3), truth)
    assert (low["predicted"], low["observed"]) == (-1, 1)
    assert (high["predicted"], high["observed"]) == (7, 5)


def test_no_cells_give_no_bins():
    assert calibration(np.float32([]), np.float32([])) == []
