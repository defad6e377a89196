"""The benchmark of code sizes: one row measured on the sample, its table and its figure."""

import sys
from xml.etree import ElementTree

import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import code_sizes

SAMPLE = ROOT / "data" / "sample" / "ratings.csv"


@pytest.fixture(scope="module")
def rows():
    study = code_sizes.study_of(SAMPLE, ["svd"], (2, 8))
    tried = [{"item_power": 0.0}, {"item_power": 1.0}]
    return {name: code_sizes.measure(study.fits(name)[0][0], tried) for name in study.models}


def test_a_row_is_measured_with_the_settings_that_were_best_in_validation(rows):
    for row in rows.values():
        values = {0.0: row["tried"]['{"item_power": 0.0}'], 1.0: row["tried"]['{"item_power": 1.0}']}
        assert row["settings"] == {"item_power": max(values, key=values.get)}
    assert [row["size"] for row in rows.values()] == [2, 8]
    low, high = (code_sizes.intervals(row)["reconstruction"] for row in rows.values())
    assert high.mean > low.mean and low.low < low.mean < low.high


def test_the_table_has_a_line_for_each_row_and_the_figure_both_measures(rows):
    assert len(code_sizes.table(rows).splitlines()) == 4
    drawn = code_sizes.figure(rows, "sample")
    ElementTree.fromstring(drawn)
    assert drawn.count('class="band') == 2 and "sample: reconstruction" in drawn
