"""Is LoRA enough, as HTML text: the offer before it is queued, and the table with its verdict afterwards.

Covers: texts made from plain data. Does not cover: figures (enough_result.py) or components (tab_enough.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from assets.words import Words, duration, size
from finetune import enough, views_time
from finetune.enough import Offer, Wish
from finetune.enough_result import Row, behind, noise, reference, verdict
from finetune.groups import Group, LeftOut
from finetune.views_rates import number

COLUMNS = ("method", "trained", "memory", "time", "loss", "relative", "forgot")
WIDTH = "44rem"  # below it figures would break in the middle: a phone scrolls
KINDS = {"ahead": "good", "close": "good", "near": "good", "behind": "warn", "few": "warn", "waiting": "", "lowest": ""}


def name_of(role: str, words: Words) -> str:
    return words(f"enough.role.{role}")


def option(wish: Wish, words: Words) -> str:
    """Two lines for the list of runs to tick."""
    rate = number(wish.spec.schedule.learning_rate)
    return f"{name_of(wish.role, words)}\n{words('enough.option', rate=rate, time=spent(wish.span, words))}"


def spent(span: tuple[float, float] | None, words: Words) -> str:
    return words("train.time.unknown") if span is None else views_time.span(*span, words)


def told(found: Offer, words: Words) -> str:
    """What is left out, and whether the runs are long enough to tell anything."""
    parts = [_left_out(one, words) for one in found.left_out]
    if found.short is not None:
        parts.append(f'<div class="n-note warn">{words("enough.short", steps=found.short)}</div>')
    return "".join(parts)


def _left_out(one: LeftOut, words: Words) -> str:
    reason = words(one.key, **one.values)
    return f'<p class="n-sub">{escape(words("enough.left_out", name=name_of(one.role, words), reason=reason))}</p>'


def total(spans: Sequence[tuple[float, float] | None], words: Words) -> str:
    """One line under the ticked runs."""
    if len(spans) < 2:
        return f'<p class="n-sub">{words("enough.few")}</p>'
    whole = enough.total(spans)
    if whole is None:
        return f'<p class="n-sub">{words("enough.total.unknown", count=len(spans))}</p>'
    return f'<p class="n-sub">{words("enough.total", count=len(spans), time=views_time.span(*whole, words))}</p>'


def result(group: Group, found: Sequence[Row], words: Words) -> str:
    """The verdict, the table, what was left out, how far one run can be trusted, and what to do with the ticks below."""
    head = f'<h3 class="n-h">{words("enough.title")}</h3><p class="n-sub">{escape(group.name)}</p>'
    left_out = "".join(_left_out(one, words) for one in group.left_out)
    pick = f'<p class="n-sub">{words("enough.pick")}</p>' if sum(row.result for row in found) > 1 else ""
    return head + _verdict(found, words) + table(found, words) + left_out + _chance(found, words) + pick


def _verdict(found: Sequence[Row], words: Words) -> str:
    told = verdict(found)
    values = {"count": told.left, "percent": percent(abs(told.difference))}
    for field, role in (("name", told.role), ("than", told.than)):
        values |= {field: name_of(role, words)} if role else {}
    text = words(f"enough.verdict.{told.kind}", **values)
    shown = f'<div class="n-note {KINDS[told.kind]}" id="train-enough-verdict" style="margin-top:8px">'
    return f"{shown}{escape(text)}</div>"


def _chance(found: Sequence[Row], words: Words) -> str:
    """The bound on chance, and runs too short to tell much, said once there is something to compare."""
    done = [row for row in found if row.loss is not None]
    if len(done) < 2:
        return ""
    heldout = min((row.heldout for row in done if row.heldout), default=0)
    told = [words("enough.chance", count=heldout, percent=percent(noise(done)))]
    steps = min((row.steps for row in done if row.state == "finished"), default=enough.FEW_STEPS)
    told += [words("enough.short", steps=steps)] if 0 < steps < enough.FEW_STEPS else []
    return f'<p class="n-sub">{" ".join(told)}</p>'


def table(found: Sequence[Row], words: Words) -> str:
    """One row per run; figures fill in while runs go on."""
    against = reference(found)
    whole = against is not None and against.role == "full"
    names = [words("enough.col.lowest" if c == "relative" and not whole else f"enough.col.{c}") for c in COLUMNS]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(_row(row, against, words) for row in found)
    start = f'<table class="n-table" id="train-enough-table" style="min-width:{WIDTH}">'
    around = f'<div class="n-wide" tabindex="0" role="region" aria-label="{escape(words("enough.title"))}">'
    return f"{around}{start}<tr>{head}</tr>{body}</table></div>"


def _row(row: Row, against: Row | None, words: Words) -> str:
    cells = [
        "–" if row.trained is None else f"{row.trained / 1e6:.3g} M",
        size(row.memory) if row.memory else "–",
        duration(words, row.seconds) if row.seconds else "–",
        "–" if row.loss is None else f"{row.loss:.3f}",
        _relative(row, against),
        _forgot(row, words),
    ]
    data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name_of(row.role, words))}{_badge(row, words)}</th>{data}</tr>'


def _badge(row: Row, words: Words) -> str:
    """Where a run is that has not finished."""
    if row.state == "finished":
        return ""
    state = words("enough.gone") if row.state == "gone" else words(f"train.state.{row.state}")
    share = f" {row.share * 100:.0f}%" if row.state == "running" and row.share else ""
    return f' <span class="n-badge {row.state}">{state}{share}</span>'


def _relative(row: Row, against: Row | None) -> str:
    if against is None or row.loss is None or row.state != "finished":
        return "–"
    return "0%" if row is against else signed(behind(row, against))


def _forgot(row: Row, words: Words) -> str:
    told = [f"{words(f'catalog.domain.{domain}')} {signed(change)}" for domain, change in row.forgot.items()]
    return " · ".join(told) or "–"


def signed(share: float) -> str:
    text = f"{share * 100:+.1f}%"
    return "0.0%" if text in ("+0.0%", "-0.0%") else text.replace("-", "−")


def percent(share: float) -> str:
    return f"{share * 100:.1f}"
