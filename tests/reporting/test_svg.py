import re
from xml.etree import ElementTree

import pytest

from recsys.reporting import svg
from recsys.reporting.svg import Interval, Series

TWO = [Series("vae", 0, [(1, 0.1), (10, 0.4), (100, 0.5)]), Series("a<b", 1, [(1, 0.2), (10, 0.3), (100, 0.5)])]


@pytest.mark.parametrize(
    "drawn",
    [
        svg.line_chart(TWO, "k", (1, 10, 100), log=True, title="a & b"),
        svg.scatter_chart([Series(one.name, one.color, one.points[:1]) for one in TWO], "x", "y"),
        svg.interval_chart(
            {"few": [Interval("vae", 0, 0.2, 0.1, 0.3)], "many": [Interval("vae", 0, 0.0, 0.0, 0.0)]}, "ndcg"
        ),
        svg.interval_chart({"few": [Interval("biases", 0, 0.9, 0.9, 0.9)]}, "rmse", from_zero=False),
        svg.interval_bar(0.2, 0.1, 0.3, (0.1, 0.3), 3),
        svg.line_chart([Series("one", 0, [(1, 0.5)])], "epoch"),  # a single point has no range
    ],
)
def test_every_chart_is_well_formed_and_names_are_escaped(drawn):
    root = ElementTree.fromstring(drawn)
    assert root.tag == "svg"
    assert "nan" not in drawn


def test_names_at_the_same_height_are_moved_apart():
    heights = [float(y) for y in re.findall(r'class="name s\d" x="[\d.]+" y="([\d.]+)"', svg.line_chart(TWO, "k"))]
    assert abs(heights[0] - heights[1]) >= 12.9


def test_names_of_equal_dots_do_not_overlap():
    drawn = svg.scatter_chart([Series(name, 0, [(1, 1)]) for name in ("one", "two", "three")], "x", "y")
    places = re.findall(r'class="name s0" x="([\d.]+)" y="([\d.]+)"', drawn)
    assert len(set(places)) == 3


def test_a_larger_value_is_drawn_higher():
    drawn = svg.line_chart([Series("up", 0, [(1, 0.1), (2, 0.2)])], "x")
    first, second = re.search(r'points="([^"]+)"', drawn)[1].split()
    assert float(first.split(",")[1]) > float(second.split(",")[1])


def test_an_axis_that_does_not_start_at_zero_starts_near_the_lowest_value():
    rows = {"all": [Interval("one", 0, 0.9, 0.89, 0.91), Interval("two", 1, 1.0, 0.99, 1.01)]}
    far, near = (
        [float(x) for x in re.findall(r'cx="([\d.]+)"', svg.interval_chart(rows, "rmse", from_zero=zero))]
        for zero in (True, False)
    )
    assert near[1] - near[0] > 3 * (far[1] - far[0])


def test_the_diagonal_is_drawn_where_y_equals_x():
    drawn = svg.line_chart([Series("right", 0, [(1, 1), (2, 2), (5, 5)])], "predicted", diagonal=True)
    ends = re.findall(r'class="base" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)[-1]
    x1, y1, x2, y2 = map(float, ends)
    for point in re.search(r'points="([^"]+)"', drawn)[1].split():
        x, y = map(float, point.split(","))
        assert y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=0.2)


def test_a_band_goes_along_the_lower_ends_and_back_along_the_upper_ones():
    drawn = svg.line_chart([Series("one", 0, [(1, 2), (2, 3)], [(1, 3), (2, 4)])], "size")
    corners = [tuple(map(float, pair.split(","))) for pair in re.search(r'band s0" points="([^"]+)"', drawn)[1].split()]
    (x1, y1), (x2, y2), (x3, y3), (x4, y4) = corners
    assert x1 == x4 < x2 == x3
    assert y1 > y4 and y2 > y3  # downwards in SVG
    ElementTree.fromstring(drawn)
