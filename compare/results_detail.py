"""What is folded away under the verdict: how far to trust it, what else differs, how it was counted.

Covers: reliability, length and form beside the votes, how blind it was, a machine's measurements, more than two models,
votes left out, the method. Does not cover: the verdict and its plots (results_view.py). One list of lines per part, so
that the page, the HTML report and the Markdown say the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from assets.words import Words
from compare import stats_report
from compare.results_data import Picture, short
from compare.results_view import criterion_name, domain_name
from compare.stats_agreement import Alpha
from compare.stats_rates import MINIMUM_DECIDED, Interval
from compare.stats_report import percent
from compare.stats_text import FEATURES, Looks

_SHARES = FEATURES[1:]


@dataclass(frozen=True)
class Part:
    """One folded part: plain sentences, and a table of plain cells (the first row is its head)."""

    key: str
    lines: tuple[str, ...]
    table: tuple[tuple[str, ...], ...] = ()


def parts(picture: Picture, words: Words) -> list[Part]:
    """Those that have something to say."""
    made = (_ranks, _reliability, _effects, _machine, _left_out, _method)
    found = (part(picture, words) for part in made)
    return [part for part in found if part.lines or part.table]


def html(picture: Picture, words: Words, open_: bool = False) -> str:
    """Each part in a <details>."""
    return "".join(_folded(part, words, open_) for part in parts(picture, words))


def _folded(part: Part, words: Words, open_: bool) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in part.lines)
    table = ""
    if part.table:
        head, *rows = part.table
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        table = f'<div class="n-scroll"><table class="n-table"><tr>{cells}</tr>{body}</table></div>'
    return (
        f'<details class="n-fold"{" open" if open_ else ""}><summary>{words(part.key)}</summary>'
        f"<div>{lines}{table}</div></details>"
    )


def _ranks(picture: Picture, words: Words) -> Part:
    ranks = picture.report.ranks
    if len(ranks) < 3:
        return Part("results.part.ranks", ())
    head = tuple(words(f"results.ranks.{name}") for name in ("rank", "model", "chance", "votes"))
    rows = tuple(
        (str(one.rank), _model(one.model, picture), _share(one.chance, one.chance_interval), str(one.votes))
        for one in ranks
    )
    lines = [words("results.ranks.sub")]
    lines += [
        words("results.ranks.undefeated", name=_model(one.model, picture))
        for one in ranks
        if one.undefeated or one.winless
    ]
    return Part("results.part.ranks", tuple(lines), (head, *rows))


def _reliability(picture: Picture, words: Words) -> Part:
    found = picture.report
    lines = [_alpha(found.alpha, words("results.alpha.vote"), words)]
    lines += [
        _alpha(one, criterion_name(picture, name, words), words) for name, one in found.marks.items() if one.units
    ]
    same = found.consistency
    if same.rate is not None and same.interval is not None:
        low, high = _ends(same.interval)
        lines.append(words("results.consistency", percent=percent(same.rate), low=low, high=high, n=same.n))
        if len(same.raters) > 1:
            each = ", ".join(f"{place}) {ok}/{n}" for place, (ok, n) in enumerate(same.raters.values(), start=1))
            lines.append(words("results.consistency.raters", each=each))
    noise = found.noise
    if noise.rate is not None and noise.interval is not None:
        low, high = _ends(noise.interval)
        lines.append(words("results.noise", percent=percent(noise.rate), low=low, high=high, n=noise.n))
    left = found.left
    if left.rate is not None and left.interval is not None:
        low, high = _ends(left.interval)
        biased = left.excludes_half and left.n >= MINIMUM_DECIDED
        key = "results.places.biased" if biased else "results.places.fair"
        lines.append(words(key, percent=percent(left.rate), low=low, high=high, n=left.n))
    return Part("results.part.reliability", tuple(lines))


def _alpha(found: Alpha, what: str, words: Words) -> str:
    if not found.units:
        return words("results.alpha.none", what=what)
    if found.alpha is None or found.interval is None:
        return words("results.alpha.unanimous", what=what, units=found.units)
    low, high = (f"{round(end, 2) + 0:.2f}" for end in found.interval)
    return words(
        "results.alpha", what=what, alpha=f"{round(found.alpha, 2) + 0:.2f}", low=low, high=high, units=found.units
    )


def _effects(picture: Picture, words: Words) -> Part:
    found = picture.report.length
    lines = []
    if found is not None:
        low, high = _ends(found.interval)
        lines.append(
            words(
                "results.length", name=picture.names[1], percent=percent(found.rate), low=low, high=high, n=found.n,
                longer=f"{found.longer:.1f}", won=percent(found.longer_won),
            )
        )  # fmt: skip
    blind = picture.blindness
    if blind is not None:
        low, high = _ends(blind.interval)
        key = "results.blindness.told" if blind.told_apart else "results.blindness.blind"
        by = words(f"results.form.{blind.telling}")
        lines.append(words(key, percent=percent(blind.accuracy), low=low, high=high, n=blind.n, by=by))
    return Part("results.part.effects", tuple(lines), _forms(picture, words))


def _forms(picture: Picture, words: Words) -> tuple[tuple[str, ...], ...]:
    if not picture.looks:
        return ()
    several = len({one.domain for one in picture.looks if one.domain}) > 1
    shown = [one for one in picture.looks if bool(one.domain) == several]
    shown.sort(key=lambda one: (one.domain, one.model != picture.report.filter.pair[0]))
    head = (words("results.ranks.model"), *(words(f"results.form.{name}") for name in FEATURES), "n")
    rows = tuple((_row_name(one, picture, words), *_form(one), str(one.n)) for one in shown)
    return (head, *rows)


def _row_name(one: Looks, picture: Picture, words: Words) -> str:
    name = _model(one.model, picture)
    return f"{domain_name(one.domain, words)} · {name}" if one.domain else name


def _form(one: Looks) -> Sequence[str]:
    shares = [one.means[name] for name in _SHARES]
    return [f"{one.means['characters']:.0f}", *("–" if math.isnan(x) else f"{percent(x)} %" for x in shares)]


def _machine(picture: Picture, words: Words) -> Part:
    lines = [words("results.machine.sub")] if picture.machine else []
    for model, run in picture.machine:
        values = {"name": _model(model, picture), "before": f"{run.before:.3f}", "after": f"{run.after:.3f}"}
        values |= {"n": str(run.examples), "data": run.dataset}
        perplexity = run.perplexity
        key = "results.machine.base" if run.from_base else "results.machine.parent"
        lines.append(words(key, **values))
        if perplexity is not None:
            lines.append(
                words("results.machine.perplexity", before=f"{perplexity[0]:.2f}", after=f"{perplexity[1]:.2f}")
            )
    return Part("results.part.machine", tuple(lines + _opinions(picture, words)))


def _opinions(picture: Picture, words: Words) -> list[str]:
    lines = [words("results.judge.apart")] if picture.opinions else []
    for one in picture.opinions:
        judge = one.judge.rsplit("#", 1)[-1]
        same = percent(one.same.rate or 0.0)
        lines.append(words("results.judge.read", judge=judge, n=one.n, unreadable=one.unreadable, same=same))
        for key, found in (("results.judge.rate", one.rate), ("results.judge.people", one.people)):
            if found.rate is not None and found.interval is not None:
                low, high = _ends(found.interval)
                share = percent(found.rate)
                lines.append(
                    words(key, judge=judge, name=picture.names[1], percent=share, low=low, high=high, n=found.n)
                )
    return lines


def _left_out(picture: Picture, words: Words) -> Part:
    left_out = picture.report.selection.left_out
    keys = {reason: f"ratings.left_out.{reason}" for reason in left_out}
    lines = tuple(f"{words(key)}: {left_out[reason]}" for reason, key in keys.items())
    return Part("results.part.left_out", lines)


def _method(picture: Picture, words: Words) -> Part:
    found = picture.report
    lines = [words("results.method.counted"), stats_report.method(found.overall.rate).say(words)]
    lines += [words(f"results.method.{name}") for name in ("claim", "needed", "alpha", "length")]
    return Part("results.part.method", tuple(lines))


def _model(model: str, picture: Picture) -> str:
    pair = picture.report.filter.pair
    if model in pair:
        return picture.names[pair.index(model)]
    known = {arm.model: arm.name for arm in picture.study.arms} if picture.study else {}
    return known.get(model) or short(model)


def _share(rate: float, ends: Interval) -> str:
    low, high = _ends(ends)
    return f"{percent(rate)} % ({low}–{high} %)"


def _ends(ends: Interval) -> tuple[int, int]:
    return percent(ends[0]), percent(ends[1])
