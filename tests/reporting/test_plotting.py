import matplotlib
import numpy as np
import pandas as pd
import pytest

from recsys.errors import DataError
from recsys.reporting.plotting import ACCENT, calibration_curve, exposure, leaderboard, training_curve

HISTORY = [
    {"epoch": 1, "loss": 3.0, "ndcg@100": 0.1},
    {"epoch": 2, "loss": 2.0, "ndcg@100": 0.3},
    {"epoch": 3, "loss": 1.0, "ndcg@100": 0.2},
]
TABLE = pd.DataFrame(
    {"model": ["als", "vae"], "ndcg@100": [0.2, 0.4], "ndcg@100_low": [0.1, np.nan], "ndcg@100_high": [0.3, np.nan]}
)


def title(axes):
    return axes.get_title(loc="left")


def models_from_the_top(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def color_of(figure, place):
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    return next(line.get_color() for line in dots if line.get_ydata()[0] == place)


def test_the_best_epoch_is_the_highest_of_a_gain_and_the_lowest_of_an_error():
    assert "best 0.3000 at epoch 2" in title(training_curve(HISTORY, "ndcg@100").axes[0])
    errors = [{"loss": 3.0, "rmse": 0.9}, {"loss": 2.0, "rmse": 0.8}, {"loss": 1.0, "rmse": 1.0}]
    assert "best 0.8000 at epoch 2" in title(training_curve(errors, "rmse").axes[0])


def test_metric_and_loss_share_the_axis_of_epochs():
    metric, loss = training_curve(HISTORY, "ndcg@100").axes
    assert metric.get_xlim() == loss.get_xlim() == (0.5, 3.5)
    assert list(loss.lines[0].get_ydata()) == [3, 2, 1]


def test_epochs_without_a_finite_value_are_not_drawn():
    history = [{"loss": 3.0}, {"loss": 2.0, "ndcg@100": float("nan")}, {"loss": 1.0, "ndcg@100": 0.2}]
    metric, loss = training_curve(history, "ndcg@100").axes
    assert list(metric.lines[0].get_xdata()) == [3]
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3]


def test_a_model_without_validation_shows_its_loss_alone():
    (loss,) = training_curve([{"loss": 2.0}, {"loss": 1.0}], "ndcg@100").axes
    assert title(loss) == "training loss"


def test_a_training_without_epochs_is_refused():
    with pytest.raises(DataError, match="at least one epoch"):
        training_curve([], "ndcg@100")


def test_the_leaderboard_has_the_best_model_on_top_in_the_accent_color():
    figure = leaderboard(TABLE, "ndcg@100")
    assert models_from_the_top(figure) == ["vae", "als"]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top  # place 0 is drawn highest
    assert color_of(figure, 0) == ACCENT
    assert color_of(figure, 1) != ACCENT


def test_a_lower_error_is_better():
    table = TABLE.rename(columns=lambda name: name.replace("ndcg@100", "rmse"))
    assert models_from_the_top(leaderboard(table, "rmse")) == ["als", "vae"]


def test_a_leaderboard_without_its_columns_is_refused_by_name():
    with pytest.raises(DataError, match="ndcg@100_high"):
        leaderboard(TABLE.drop(columns="ndcg@100_high"), "ndcg@100")


def test_drawing_does_not_change_matplotlib_settings_and_needs_no_display(tmp_path):
    before = dict(matplotlib.rcParams)
    training_curve(HISTORY, "ndcg@100").savefig(tmp_path / "curve.png")
    leaderboard(TABLE, "ndcg@100").savefig(tmp_path / "board.png")
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "board.png").read_bytes().startswith(b"\x89PNG")


def test_exposure_counts_the_items_that_are_in_a_list():
    (axes,) = exposure(np.array([0, 5, 1])).axes
    assert axes.get_title(loc="left") == "2 of 3 items are in a list"
    assert axes.lines[0].get_ydata().tolist() == [5, 1]


def test_calibration_draws_a_dot_per_bin_and_the_line_where_both_are_equal():
    bins = [{"predicted": 2.0, "observed": 3.0, "cells": 5}, {"predicted": 4.0, "observed": 3.5, "cells": 7}]
    (axes,) = calibration_curve(bins).axes
    straight, dots = axes.lines
    assert straight.get_xydata().tolist() == [[2, 2], [4, 4]]
    assert dots.get_xydata().tolist() == [[2, 3], [4, 3.5]]
    assert "12 ratings" in title(axes)


def test_calibration_without_bins_is_refused():
    with pytest.raises(DataError, match="at least one bin"):
        calibration_curve([])
