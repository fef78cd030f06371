"""Pictures of votes as inline SVG that take their colours from the page, light or dark.

Covers: an interval on a line, a share over time with its band, one dot per prompt. Does not cover: the numbers beside
them. The page and the report use the same pictures; colours are classes of theme.css (n-over for model_b, n-under for
model_a, n-open for undecided). Each picture has a title and a description for those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Interval = tuple[float, float]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 168, 38, 8, 10, 24
_DOT, _ROWS = 4.2, 11


@dataclass(frozen=True)
class Dot:
    """One prompt: ``share`` of model_b, what to say of it, and the element to go to on a click ("" for none)."""

    share: float
    told: str
    link: str = ""


def kind(interval: Interval | None) -> str:
    """The class of an interval: on which side of one half it lies, if it does."""
    if interval is None:
        return "n-open"
    return "n-over" if interval[0] > 0.5 else "n-under" if interval[1] < 0.5 else "n-open"


def interval(rate: float | None, ends: Interval | None, told: str = "", chosen: str = "") -> str:
    """A share on a line from 0 to 1 with a mark at one half, 200 x 22, stretched to its place.

    ``chosen`` is the class where ``kind`` says too much, as for a difference that is not claimed.
    """
    rail = '<line x2="200" y1="11" y2="11" class="n-rail"/><line x1="100" x2="100" y1="2" y2="20" class="n-half"/>'
    drawn = ""
    if rate is not None and ends is not None:
        low, high = (200 * end for end in ends)
        drawn = (
            f'<rect x="{low:.1f}" y="6" width="{max(high - low, 1):.1f}" height="10" rx="5" class="n-band"/>'
            f'<rect x="{200 * rate - 2:.1f}" y="3" width="4" height="16" rx="2" class="n-point"/>'
        )
    return (
        f'<svg viewBox="0 0 200 22" preserveAspectRatio="none" class="{chosen or kind(ends)}" role="img" '
        f'aria-label="{escape(told)}"><title>{escape(told)}</title>{rail}{drawn}</svg>'
    )


def split(first: int, even: int, second: int, told: str) -> str:
    """Three counts as one bar, model_a's on the left."""
    total = max(1, first + even + second)
    parts, x = "", 0.0
    for count, class_ in ((first, "n-under"), (even, "n-open"), (second, "n-over")):
        width = 64 * count / total
        parts += f'<g class="{class_}"><rect x="{x:.1f}" width="{width:.1f}" height="8" class="n-point"/></g>'
        x += width
    return (
        f'<svg viewBox="0 0 64 8" class="n-mini" role="img" aria-label="{escape(told)}">'
        f"<title>{escape(told)}</title>{parts}</svg>"
    )


def over_time(
    points: Sequence[tuple[int, float, Interval]], title: str, told: str, ends: tuple[str, str], last: int | None = None
) -> str:
    """Share and band over the number of decided votes; (votes, rate, interval) each. "" below two points.

    ``ends`` are the labels of the first and the last vote (dates); ``last`` is where the axis ends at least.
    """
    if len(points) < 2:
        return ""
    most = max(points[-1][0], last or 0)

    def across(votes: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (votes - points[0][0]) / max(1, most - points[0][0])

    def down(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    upper = [f"{across(n):.1f},{down(ends_[1]):.1f}" for n, _, ends_ in points]
    lower = [f"{across(n):.1f},{down(ends_[0]):.1f}" for n, _, ends_ in reversed(points)]
    line = " ".join(f"{across(n):.1f},{down(rate):.1f}" for n, rate, _ in points)
    body = "".join(
        _level(down(share), f"{share:.0%}".replace("%", " %"), share == 0.5) for share in (0, 0.25, 0.5, 0.75, 1)
    )
    body += f'<polygon points="{" ".join(upper + lower)}" class="n-band"/><polyline points="{line}" class="n-curve"/>'
    body += f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape(ends[0])}</text>'
    body += f'<text x="{across(points[-1][0]):.1f}" y="{HEIGHT - 6}" text-anchor="end">{escape(ends[1])}</text>'
    return _figure(body, HEIGHT, title, told, kind(points[-1][2]))


def dots(found: Sequence[Dot], title: str, told: str, ends: tuple[str, str]) -> str:
    """One dot per prompt on a line from 0 to 1, stacked where they meet; ``ends`` name the two sides. "" for none."""
    if not found:
        return ""
    columns: dict[int, list[Dot]] = {}
    for dot in found:
        columns.setdefault(round(dot.share * 20), []).append(dot)
    tallest = max(map(len, columns.values()))
    step = 2 * _DOT + 1 if tallest <= _ROWS else (2 * _DOT + 1) * _ROWS / tallest
    base = TOP + 2 * _DOT + step * (tallest - 1) + 4
    width = WIDTH - 2 * _DOT - 8
    body = (
        f'<line x1="4" x2="{WIDTH - 4}" y1="{base + 7:.1f}" y2="{base + 7:.1f}" class="n-rail"/>'
        f'<line x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="{TOP - 6}" y2="{base + 11:.1f}" class="n-half"/>'
    )
    for place, stack in columns.items():
        x = 4 + _DOT + width * place / 20
        body += "".join(_dot(dot, x, base - step * row) for row, dot in enumerate(stack))
    y = base + 24
    body += f'<text x="4" y="{y:.1f}">← {escape(ends[0])}</text>'
    body += f'<text x="{WIDTH - 4}" y="{y:.1f}" text-anchor="end">{escape(ends[1])} →</text>'
    return _figure(body, round(y + 6), title, told, "n-dots")


def _dot(dot: Dot, x: float, y: float) -> str:
    side = "n-over" if dot.share > 0.5 else "n-under" if dot.share < 0.5 else "n-open"
    drawn = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}" class="n-point {side}"><title>{escape(dot.told)}</title></circle>'
    if not dot.link:
        return drawn
    return f'<a href="#{escape(dot.link)}" aria-label="{escape(dot.told)}">{drawn}</a>'


def _level(y: float, label: str, half: bool) -> str:
    line = (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="{"n-half" if half else "n-rule"}"/>'
    )
    return f'{line}<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _figure(body: str, height: int, title: str, told: str, class_: str) -> str:
    role = "group" if class_ == "n-dots" else "img"  # a picture with links in it is no single image
    return (
        f'<figure class="n-chart n-plot"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" class="{class_}" role="{role}" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(told)}</desc>{body}</svg></figure>"
    )
