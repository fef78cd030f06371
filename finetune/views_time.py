"""What a run will take, as HTML text: when it would end, what it fetches and writes, what a time limit does to it.

Covers: the lines under the plan. Does not cover: the plan's own line (views.py) or the forecast (outlook.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from assets.words import Words, duration, size
from finetune.outlook import Outlook


def lines(look: Outlook, zone: int | None, words: Words) -> str:
    """``zone`` is the person's, in minutes east of Greenwich; None: this machine's."""
    facts = [*_fetch(look, words), _disk(look, words), *_end(look, zone, words)]
    parts = [f'<p class="n-sub" id="train-outlook">{" · ".join(facts)}</p>']
    if look.forecast is not None:
        parts.append(f'<p class="n-sub">{words("outlook.basis." + look.forecast.basis)}</p>')
    if look.until is not None:
        kind, text = _limit(look, zone, words)
        parts.append(f'<div class="n-note {kind}" id="train-limit">{text}</div>')
    if not look.needs.enough:
        text = words("outlook.no_disk", need=size(look.needs.disk), free=size(look.needs.free))
        parts.append(f'<div class="n-note bad">{text}</div>')
    return "".join(parts)


def clock(when: float, zone: int | None) -> str:
    """A time of day as people say it."""
    where = None if zone is None else timezone(timedelta(minutes=zone))
    return datetime.fromtimestamp(when, where).strftime("%H:%M")


def span(low: float, high: float, words: Words) -> str:
    """A range of seconds; one figure where both ends read the same."""
    first, last = duration(words, low), duration(words, high)
    return first if first == last else f"{first}–{last}"


def _fetch(look: Outlook, words: Words) -> list[str]:
    if not look.needs.download:
        return []
    return [words("outlook.download", size=size(look.needs.download), time=span(*look.needs.seconds, words))]


def _disk(look: Outlook, words: Words) -> str:
    return words("outlook.disk", need=size(look.needs.disk), free=size(look.needs.free))


def _end(look: Outlook, zone: int | None, words: Words) -> list[str]:
    if look.span is None:
        return []
    low, high = (s + f for s, f in zip(look.span, look.needs.seconds, strict=True))
    if look.until is not None:
        low, high = (min(s, look.until - look.now) for s in (low, high))
    if high > 20 * 3600:  # a time of day would not say which day
        return []
    ends = [clock(look.now + seconds, zone) for seconds in (low, high)]
    return [words("outlook.end", clock=ends[0] if ends[0] == ends[1] else "–".join(ends))]


def _limit(look: Outlook, zone: int | None, words: Words) -> tuple[str, str]:
    """Kind of note, and its text."""
    assert look.until is not None
    when = clock(look.until, zone)
    if look.forecast is None or look.steps is None:
        return "", words("outlook.limit.unknown", clock=when)
    least, most = look.steps
    asked = look.forecast.steps
    if least >= asked:
        return "good", words("outlook.limit.enough", clock=when, steps=f"{asked:,}")
    if most < 3:
        return "bad", words("outlook.limit.short", clock=when)
    if most >= asked:
        return "warn", words("outlook.limit.maybe", clock=when, asked=f"{asked:,}")
    steps = f"{max(1, least):,}–{most:,}" if max(1, least) < most else f"{most:,}"
    return "warn", words("outlook.limit.fewer", clock=when, asked=f"{asked:,}", steps=steps)
