"""What tuning changed in an answer, as HTML: the answer coloured by how much each piece of it owes to tuning.

Covers: the heat map, where the two answers part, the reference answer's figures. Does not cover: computing any of it
(local_engine_group.py). Plain words; the numbers stand in the titles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from assets.words import Words
from compare.engine import Changes, TokenChange

# In nats: below the first, either model would have written this much alike; from the last on, hardly the base at all.
STEPS = (0.1, 0.5, 1.5, 3.0)


def changes(found: Changes, words: Words) -> str:
    """The whole panel."""
    if not found.tokens:
        return f'<p class="n-sub">{words("compare.changes.nothing")}</p>'
    heat = "".join(_piece(text, strength, title) for text, strength, title in _pieces(found, words))
    scale = "".join(f'<i class="n-heat-{step}"></i>' for step in range(len(STEPS) + 1))
    legend = words("compare.changes.less"), words("compare.changes.more")
    return (
        f'<p class="n-sub">{_summary(found, words)}</p><div class="n-heat">{heat}</div>'
        f'<p class="n-heat-scale">{legend[0]} {scale} {legend[1]}</p>{_reference(found, words)}'
    )


def strength(nats: float) -> int:
    """0 to 4."""
    return sum(nats >= step for step in STEPS)


def _summary(found: Changes, words: Words) -> str:
    changed = sum(strength(token.nats) >= 2 for token in found.tokens)
    share = words("compare.changes.share", percent=round(100 * changed / len(found.tokens)))
    if found.parted is None:
        return f"{share} {words('compare.changes.same')}"
    if found.parted >= len(found.tokens):
        return f"{share} {words('compare.changes.ends')}"
    start = "compare.changes.begins" if found.parted == 0 else "compare.changes.parts"
    return f"{share} {words(start)}"


def _pieces(found: Changes, words: Words) -> Iterator[tuple[str, int, str]]:
    """Text, strength and title; tokens that are parts of one letter become one piece, as strong as the strongest."""
    waiting: list[TokenChange] = []
    for place, token in enumerate(found.tokens):
        if place == found.parted and place:
            yield "", -1, words("compare.changes.here")
        waiting.append(token)
        if token.text:
            yield token.text, strength(max(t.nats for t in waiting)), _title(waiting, words)
            waiting = []


def _title(tokens: Sequence[TokenChange], words: Words) -> str:
    base = tuned = 1.0
    for token in tokens:
        base, tuned = base * token.base, tuned * token.tuned
    nats = max(token.nats for token in tokens)
    return words("compare.changes.title", base=_percent(base), tuned=_percent(tuned), distance=f"{nats:.2f}")


def _percent(chance: float) -> str:
    return f"{100 * chance:.0f}" if chance >= 0.095 else f"{100 * chance:.1f}" if chance >= 0.001 else "<0.1"


def _piece(text: str, strength: int, title: str) -> str:
    if strength < 0:
        return f'<b class="n-part" title="{escape(title)}" aria-label="{escape(title)}"></b>'
    return f'<span class="n-heat-{strength}" title="{escape(title)}">{escape(text)}</span>'


def _reference(found: Changes, words: Words) -> str:
    if found.perplexity is None:
        return ""
    base, tuned = found.perplexity
    key = "closer" if tuned < 0.98 * base else "farther" if tuned > 1.02 * base else "equal"
    figures = words("compare.changes.reference", base=f"{base:.1f}", tuned=f"{tuned:.1f}")
    return f'<p class="n-sub">{words("compare.changes." + key)} <span title="{escape(figures)}">ⓘ</span></p>'
