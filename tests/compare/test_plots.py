from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from compare import plots
from compare.plots import Dot

EVIL = "<script>\"&'"


def parsed(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(figure)


def test_an_interval_is_drawn_where_it_lies() -> None:
    assert 'x="100.0" y="6" width="80.0"' in plots.interval(0.7, (0.5, 0.9))
    assert [plots.kind(ends) for ends in ((0.6, 0.9), (0.1, 0.4), (0.5, 0.9), None)] == [
        "n-over",
        "n-under",
        "n-open",
        "n-open",
    ]
    assert "n-band" not in plots.interval(None, None) and 'class="n-open"' in plots.interval(
        0.8, (0.6, 0.9), "", "n-open"
    )
    assert parsed(plots.interval(0.5, (0.4, 0.6), EVIL))[0].text == EVIL


def test_counts_as_one_bar() -> None:
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="8"', plots.split(2, 1, 1, EVIL))]
    assert widths == [32.0, 16.0, 16.0] and parsed(plots.split(0, 0, 0, ""))[0].tag == "title"


def test_a_share_over_time() -> None:
    points = [(1, 1.0, (0.2, 1.0)), (50, 0.6, (0.5, 0.7)), (100, 0.7, (0.6, 0.8))]
    drawn = plots.over_time(points, EVIL, EVIL, ("1", EVIL))
    svg = parsed(drawn)[1]
    assert svg.attrib["aria-label"] == EVIL and [child.text for child in svg[:2]] == [EVIL, EVIL]
    assert svg.attrib["class"] == "n-over" and svg.attrib["role"] == "img"
    line = next(child for child in svg if child.tag == "polyline").attrib["points"].split()
    assert line[0] == f"{plots.LEFT}.0,{plots.TOP}.0" and line[-1].startswith(f"{plots.WIDTH - plots.RIGHT}.0,")
    assert plots.over_time(points[:1], "", "", ("", "")) == ""


@pytest.mark.parametrize("n", [1, 10, 400])
def test_dots_stay_in_the_picture(n: int) -> None:
    drawn = plots.dots([Dot(i % 3 / 2, EVIL, "n-prompt-1" if i else "") for i in range(n)], EVIL, EVIL, (EVIL, EVIL))
    svg = parsed(drawn)[1]
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    circles = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in svg.iter("circle")]
    assert len(circles) == n and all(0 < x < width and 0 < y < height for x, y in circles)
    assert len(list(svg.iter("a"))) == n - 1 and svg.attrib["role"] == "group"
    assert plots.dots([], "", "", ("", "")) == ""
