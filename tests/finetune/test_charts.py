"""Curves as SVG: well-formed, within the frame, nobody's text unescaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, _ticks, chart


def points(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r'points="([^"]+)"', svg)
    return [(float(x), float(y)) for curve in found for x, y in (p.split(",") for p in curve.split(" "))]


def test_nothing_to_draw() -> None:
    assert chart("t", []) == "" == chart("t", [Line("a", "red", [])])
    assert chart("t", [Line("a", "red", [(1, float("nan")), (2, float("inf"))])]) == ""


def test_a_curve_goes_from_corner_to_corner() -> None:
    svg = chart("손실", [Line("학습", "red", [(0, 1.0), (5, 0.5), (10, 0.0)])])
    xs = [x for x, _ in points(svg)]
    ys = [y for _, y in points(svg)]
    assert xs[0] == LEFT and xs[-1] == WIDTH - RIGHT and ys == sorted(ys)
    assert 'aria-label="손실"' in svg and "<span>" in svg and "학습" in svg
    assert points(chart("t", [Line("a", "red", [(0, 1.0), (5, 0.5)])], last=10))[-1][0] < WIDTH / 1.8


def test_values_that_are_no_numbers_are_left_out() -> None:
    svg = chart("t", [Line("a", "red", [(1, 1.0), (2, float("nan")), (3, 2.0)]), Line("empty", "blue", [])])
    assert len(points(svg)) == 2 and "nan" not in svg and "empty" not in svg


def test_one_point_is_a_dot() -> None:
    assert chart("t", [Line("a", "red", [(1, 1.0)])]).count("<circle") == 1
    assert chart("t", [Line("a", "red", [(1, 1.0), (2, 2.0)])]).count("<circle") == 0
    assert chart("t", [Line("a", "red", [(1, 1.0), (2, 2.0)], dots=True)]).count("<circle") == 2


def test_names_are_escaped() -> None:
    svg = chart('"><script>x</script>', [Line("<b>&", "red", [(1, 1.0)])])
    assert "<script" not in svg and "<b>&<" not in svg and "&lt;b&gt;&amp;" in svg
    ElementTree.fromstring(svg)


numbers = st.floats(-1e12, 1e12, allow_nan=False)
curves = st.lists(st.tuples(st.integers(0, 100_000), numbers), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(curves, curves, st.sampled_from([None, 0, 5, 10_000]))
def test_any_numbers_stay_within_the_frame(
    one: list[tuple[int, float]], other: list[tuple[int, float]], last: int | None
) -> None:
    svg = chart("t", [Line("a", "red", one), Line("b", "blue", other, dots=True)], last)
    ElementTree.fromstring(svg)
    for x, y in points(svg):
        assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1 and TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_ticks_are_few_and_between_the_ends(low: float, width: float) -> None:
    high = low + width
    if width > abs(low) * 1e-6:
        found = _ticks(low, high)
        assert len(found) <= 6
        assert all(low - width * 1e-6 - 1e-9 <= tick <= high + width * 1e-6 + 1e-9 for tick in found)


def test_ticks_are_round() -> None:
    assert _ticks(0, 40) == [0, 10, 20, 30, 40]
    assert _ticks(0.13, 2.9) == [1.0, 2.0]
    assert _ticks(-1, 1) == [-1, -0.5, 0, 0.5, 1]
