"""What tuning changed over a study's prompts, as HTML: how far the measuring is, and the list of prompts.

Covers: both orders in plain words; the numbers stand in the titles. Does not cover: one answer's heat map
(views_changes.py), computing any of it (changes_set.py, changes_measure.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from assets.words import Words, duration
from compare import views
from compare.changes_measure import Measuring
from compare.changes_set import WORSE, Measured
from compare.study import Study, StudyPrompt

SHOWN = 20
LETTERS = 60


def progress(work: Measuring | None, done: int, total: int, words: Words) -> str:
    """How far it is. ``done`` of ``total`` prompts are on disk."""
    if not total:
        return f'<p class="n-sub">{words("changes.no_answers")}</p>'
    running = work is not None and work.running
    if running and work is not None and work.loading is not None and not work.loading.ended:
        return views.loading(work.loading, words)
    line = [words("changes.set.done", done=done, total=total)]
    if running and work is not None:
        line.append(words("studies.stopping") if work.stopping else _left(work.seconds_left, words))
    percent = f"{100 * done / total:.1f}"
    bar = f'<div class="n-bar" role="progressbar" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
    return f'{bar}<p class="n-sub">{" · ".join(line)}</p>{_trouble(work, words)}'


def _left(seconds: float | None, words: Words) -> str:
    if seconds is None:
        return words("compare.changes.measuring")
    return words("compare.left", time=duration(words, seconds))


def _trouble(work: Measuring | None, words: Words) -> str:
    if work is None or work.running:
        return ""
    if work.error is not None:
        return views.bad(views.sentence(work.error, words))
    return f'<p class="n-note warn">{words("changes.set.failed", n=len(work.failed))}</p>' if work.failed else ""


def listed(study: Study, ordered: Sequence[Measured], found: Sequence[Measured], order: str, words: Words) -> str:
    """The first prompts of an order ("reference" or "change") out of all that were ``found``."""
    if not found:
        return ""
    known = sum(one.farther is not None for one in found)
    if order == "reference":
        if not known:
            return f'<p class="n-sub">{words("changes.set.no_reference")}</p>'
        if not ordered:
            return f'<p class="n-sub">{words("changes.set.none_worse", n=known)}</p>'
        summary = words("changes.set.worse", worse=len(ordered), n=known)
    else:
        summary = words("changes.set.changed", n=len(found))
    rows = "".join(_row(study.prompt(one.prompt_id), one, order, words) for one in ordered[:SHOWN])
    more = len(ordered) - SHOWN
    rest = f'<p class="n-sub">{words("changes.set.more", n=more)}</p>' if more > 0 else ""
    return f'<p class="n-sub">{summary}</p><ol class="n-worse">{rows}</ol>{rest}'


def _row(prompt: StudyPrompt, one: Measured, order: str, words: Words) -> str:
    text = f'<span class="n-worse-text">{escape(first_words(prompt))}</span>'
    told = [_reference(one, words), _change(one, words)]
    if order == "change":
        told.reverse()
    chips = "".join(
        f'<span class="n-chip" title="{escape(title)}">{label}</span>' for label, title in filter(None, told)
    )
    return f'<li>{text}<span class="n-worse-chips">{chips}</span></li>'


def _reference(one: Measured, words: Words) -> tuple[str, str] | None:
    if one.farther is None or one.changes.perplexity is None:
        return None
    base, tuned = one.changes.perplexity
    title = words("compare.changes.reference", base=f"{base:.1f}", tuned=f"{tuned:.1f}")
    if one.farther > WORSE:
        return words(
            "changes.set.farther", times=f"{one.farther:.2f}" if one.farther < 10 else f"{one.farther:.0f}"
        ), title
    return words("changes.set.closer" if one.farther < 1 / WORSE else "changes.set.alike"), title


def _change(one: Measured, words: Words) -> tuple[str, str] | None:
    if not one.changes.tokens:
        return None
    title = words("changes.set.distance", distance=f"{one.nats:.2f}")
    return words("changes.set.share", percent=round(100 * one.share)), title


def first_words(prompt: StudyPrompt) -> str:
    text = " ".join(str(prompt.messages[-1]["content"]).split())
    return text if len(text) <= LETTERS else text[:LETTERS].rstrip() + "…"


def detail(prompt: StudyPrompt, base: str, names: Sequence[str], heat: str, words: Words) -> str:
    """One prompt whole: the question, the right answer, the base's answer, the tuned one coloured (``heat``)."""
    parts = [_part(words("changes.set.question"), prompt.messages[-1]["content"])]
    if prompt.reference:
        parts.append(_part(words("compare.reference"), prompt.reference))
    parts.append(_part(names[0], base))
    return f'{"".join(parts)}<div class="n-worse-part"><h5 class="n-sub">{escape(names[1])}</h5>{heat}</div>'


def _part(title: str, text: str) -> str:
    return f'<div class="n-worse-part"><h5 class="n-sub">{escape(title)}</h5><p>{escape(text)}</p></div>'
