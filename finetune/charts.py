"""Curves as small SVG pictures that take their colours from the page, light or dark.

Covers: lines over steps with two axes' worth of labels. Does not cover: anything interactive; the numbers beside a
curve say what it ends at. Drawn here because a chart component that reloads flickers at every refresh of a running
job.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 210, 46, 12, 14, 26


@dataclass(frozen=True)
class Line:
    """One curve: (step, value) pairs, a CSS colour and a name."""

    name: str
    color: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


def chart(title: str, lines: Sequence[Line], last: float | None = None, mark: float | None = None) -> str:
    """An <svg> with a legend; ``last`` fixes the right end of the axis, ``mark`` draws a broken line across at that place.
    Empty text when no line has a finite point."""
    lines = [Line(ln.name, ln.color, [p for p in ln.points if math.isfinite(p[1])], ln.dots) for ln in lines]
    values = [y for ln in lines for _, y in ln.points]
    if not values:
        return ""
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    begin = min(x for ln in lines for x, _ in ln.points)
    end = max(last or 0, max(x for ln in lines for x, _ in ln.points), begin + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    grid = "".join(_grid_line(place(begin, y)[1], y) for y in _ticks(low, high))
    steps = "".join(_step_label(place(x, low)[0], x) for x in _ticks(begin, end) if x == int(x))
    across = _mark(place(mark, low)[0]) if mark is not None else ""
    drawn = across + "".join(_curve(ln, [place(x, y) for x, y in ln.points]) for ln in lines if ln.points)
    legend = "".join(
        f'<span><i style="background:{ln.color}"></i>{escape(ln.name)}</span>' for ln in lines if ln.points
    )
    return (
        f'<figure class="n-chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{grid}{steps}{drawn}</svg><figcaption class="n-keys">{legend}</figcaption></figure>'
    )


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers between two ends."""
    raw = (high - low) / count
    unit = 10 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, int(math.floor(high / step)) + 1)]


def _grid_line(y: float, value: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--n-line)"/>'
    return f'{line}<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'


def _step_label(x: float, value: float) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{int(value)}</text>'


def _mark(x: float) -> str:
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
    return f'<line class="n-turn" {ends} stroke="var(--n-persimmon)" stroke-dasharray="4 4"/>'


def _curve(line: Line, points: list[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    drawn = f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="2" stroke-linejoin="round"/>'
    if line.dots or len(points) == 1:
        drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{line.color}"/>' for x, y in points)
    return drawn
