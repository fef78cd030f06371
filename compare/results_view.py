"""What the results tab and the report show, as HTML text made from figures.

Covers: the sentence on top with its notes, intervals by domain and criterion, votes over time, one dot per prompt with
the answers one click away, where tuning made it worse, the latest votes, unreadable rows. Does not cover: what is folded
away (results_detail.py), components and downloads (results.py). Everything that comes from a model or a person is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape

import pandas as pd

from assets.errors import UserError
from assets.words import Words
from compare import markup, plots, stats_report
from compare.criteria import criteria_for
from compare.rating import Rating, Side
from compare.ratings_table import RatingsTable
from compare.results_data import EXAMPLES, Picture, shown_prompts
from compare.stats_rates import Outcome
from compare.stats_report import PromptLine, percent

REFUSED = 20
_LETTERS = 90


def verdict(picture: Picture, words: Words) -> str:
    """The sentence on top, what it counts, and what one has to know before believing it."""
    found = picture.report
    said_of = stats_report.sentences(found, picture.names)
    said = [one.say(words) for one in said_of]
    sure = any(found.different.values()) and not any(
        one.words.get("who") == ("ratings.who.base", {}) for one in said_of
    )
    told = f'<p class="n-sub">{escape(stats_report.counted(found).say(words))}</p>' if found.overall.tally.n else ""
    notes = "".join(f'<div class="n-note warn">{escape(note.say(words))}</div>' for note in stats_report.notes(found))
    return f'<div class="n-verdict{" n-sure" if sure else ""}">{escape(" ".join(said))}</div>{told}{notes}'


def collecting(n: int, target: int, words: Words) -> str:
    """All that a study shows before its target is reached."""
    share = min(100, 100 * n // max(target, 1))
    return (
        f'<div class="n-verdict">{words("results.collecting", n=n, target=target)}</div>'
        f'<div class="n-bar" role="progressbar" aria-valuenow="{share}" aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{share}%"></i></div><p class="n-sub">{words("results.collecting.sub")}</p>'
    )


def rates(picture: Picture, words: Words) -> str:
    """One row for all votes, one per domain, one per criterion: model_b's share, its interval, the counts."""
    found = picture.report
    rows = [_rate(words("results.all"), found.overall, found.different[""], words, "n-strong")]
    if len(found.domains) > 1:
        rows += [
            _rate(domain_name(domain, words), one, found.different[domain], words)
            for domain, one in found.domains.items()
        ]
    marked = [
        _rate(criterion_name(picture, name, words), one, one.rate.excludes_half and one.rate.p < 0.05, words)
        for name, one in found.criteria.items()
    ]
    if marked:
        rows.append(f'<p class="n-sub n-split">{words("results.by_criterion")}</p>')
    who = words("results.tuned") if found.tuned == "model_b" else escape(picture.names[1])
    names = words("results.names", a=_span(picture.names[0], "a"), b=_span(picture.names[1], "b"))
    return (
        f'<div class="n-rates"><h3 class="n-h">{words("results.rate", who=who)}</h3><p class="n-sub">{names}</p>'
        f'{"".join(rows + marked)}<p class="n-axis"><span>0 %</span><span>50 %</span><span>100 %</span></p>'
        f'<p class="n-sub">{words("results.interval")}</p></div>'
    )


def _rate(name: str, one: Outcome, different: bool, words: Words, class_: str = "") -> str:
    share, tally = one.rate, one.tally
    shown = f"{percent(share.rate)} %" if share.rate is not None else "–"
    ends = f"{percent(share.interval[0])}–{percent(share.interval[1])} %" if share.interval else ""
    told = words("results.told", name=name, percent=shown, ends=ends, n=share.n) if ends else name
    counts = words("results.counts", b=tally.wins_b, a=tally.wins_a, tie=tally.ties, bad=tally.both_bad)
    drawn = plots.interval(share.rate, share.interval, told, "" if different else "n-open")
    return (
        f'<div class="n-rate {class_}"><b>{escape(name)}</b>{drawn}<span class="n-percent">{shown}'
        f'<small>{ends}</small></span><span class="n-counts">{counts}</span></div>'
    )


def pictures(picture: Picture, words: Words) -> str:
    """Votes over time, and one dot per prompt."""
    found, name = picture.report, picture.names[1]
    points = [(moment.votes, moment.rate, moment.interval) for moment in found.moments]
    drawn = ""
    if len(points) > 1:
        ends = _day(found.moments[0].time), _day(found.moments[-1].time)
        told = words("results.over_time.told", name=name, n=points[-1][0], percent=percent(points[-1][1]))
        drawn += plots.over_time(points, words("results.over_time", name=name), told, ends)
    opened = {line.prompt_id: place for place, line in enumerate(shown_prompts(found))}
    dots = [
        plots.Dot(
            line.share,
            _told(line, picture, words),
            f"n-prompt-{opened[line.prompt_id]}" if line.prompt_id in opened else "",
        )
        for line in found.prompts
        if line.share is not None
    ]
    told = words("results.dots.told", n=len(dots))
    drawn += plots.dots(dots, words("results.dots"), told, picture.names)
    return f'<div class="n-grid n-plots">{drawn}</div>' if drawn else ""


def prompts(picture: Picture, words: Words) -> str:
    """The prompts behind the dots, each with its answers, folded."""
    lines = shown_prompts(picture.report)
    if not lines:
        return ""
    rows = "".join(
        _prompt(line, picture, words, f"n-prompt-{place}", line.balance < 0) for place, line in enumerate(lines)
    )
    more = len(picture.report.prompts) - len(lines)
    rest = f'<p class="n-sub">{words("results.prompts.more", n=more)}</p>' if more else ""
    return f'<details class="n-fold"><summary>{words("results.prompts", n=len(lines))}</summary>{rows}{rest}</details>'


def examples(picture: Picture, words: Words) -> str:
    """Where model_b lost, first, then where it won: the prompts with the clearest votes."""
    lines = picture.report.prompts
    worse = [line for line in lines if line.balance < 0][:EXAMPLES]
    better = [line for line in reversed(lines) if line.balance > 0][:EXAMPLES]
    tuned = picture.tuned
    titles = {
        "model_b": ("results.worse", "results.better"),
        "model_a": ("results.better", "results.worse"),
        None: ("results.lost", "results.won_by"),
    }[tuned]
    parts = [(titles[0], worse, True), (titles[1], better, False)]
    parts.sort(key=lambda part: part[0] != "results.worse")
    drawn = ""
    for title, found, lost in parts:
        rows = "".join(_prompt(line, picture, words, "", lost) for line in found)
        shown = rows or f'<p class="n-sub">{words("results.no_such")}</p>'
        drawn += f'<section><h3 class="n-h">{words(title, name=escape(picture.names[1]))}</h3>{shown}</section>'
    return f'<div class="n-examples">{drawn}</div>'


def _prompt(line: PromptLine, picture: Picture, words: Words, anchor: str, lost: bool) -> str:
    row = picture.rows.get((line.lost if lost else line.won) or line.any)
    if row is None:
        return ""
    counts = words(
        "results.prompt.counts",
        b=line.counts.wins_b,
        a=line.counts.wins_a,
        even=line.counts.ties + line.counts.both_bad,
    )
    bar = plots.split(line.counts.wins_a, line.counts.ties + line.counts.both_bad, line.counts.wins_b, counts)
    inside = f'<div id="{anchor}">' if anchor else "<div>"
    return (
        f'<details class="n-vote-row"><summary>{bar}'
        f'<span class="n-what">{escape(_cut(question(row)))}</span><span class="n-result">{counts}</span></summary>'
        f"{inside}{_answers(row, picture, words)}</div></details>"
    )


def latest(picture: Picture, owner: bool, rater: str, words: Words) -> str:
    """The newest votes first; comments of others only for the owner."""
    rows = (picture.rows.get(name) for name in picture.latest)
    return "".join(_vote(row, owner or row.rater == rater, picture, words) for row in rows if row is not None)


def _vote(row: Rating, open_: bool, picture: Picture, words: Words) -> str:
    won = {"model_a": picture.names[0], "model_b": picture.names[1]}.get(row.winner)
    result = words("results.won", name=won) if won else words(f"results.{row.winner}")
    comment = f'<p class="n-comment">{escape(row.comment)}</p>' if row.comment and open_ else ""
    return (
        f'<details class="n-vote-row"><summary><span class="n-badge">{domain_name(row.domain, words)}</span>'
        f'<span class="n-what">{escape(_cut(question(row)))}</span><span class="n-result">{escape(result)}</span>'
        f"<time>{escape(_when(row.created_at))}</time></summary>{_answers(row, picture, words)}{comment}</details>"
    )


def _answers(row: Rating, picture: Picture, words: Words) -> str:
    sides: Iterable[Side] = ("model_a", "model_b") if row.left_is == "model_a" else ("model_b", "model_a")
    answers = "".join(_answer(row, side, picture, words) for side in sides)
    return f'<div class="n-you">{escape(question(row))}</div><div class="n-two">{answers}</div>'


def _answer(row: Rating, side: Side, picture: Picture, words: Words) -> str:
    place = "left" if row.left_is == side else "right"
    won = f' <span class="n-badge finished">{words("results.chosen")}</span>' if row.winner == side else ""
    letter = f'<b class="n-letter">{words("compare.side." + place)}</b>'
    name = escape(picture.names[side == "model_b"])
    marks = _marks(picture, row.domain, row.criteria.get(side, {}), words)
    return (
        f'<div class="n-{place}"><header>{letter}<span class="n-who">{name}</span>{won}</header>'
        f'<div class="n-it">{markup.html(row.response(side))}</div>{marks}</div>'
    )


def _marks(picture: Picture, domain: str, given: Mapping[str, float], words: Words) -> str:
    said = []
    asked = {q.key: q for q in picture.study.questions_for(domain)} if picture.study else {}
    known = {c.key: c for c in criteria_for(domain)}
    for key, mark in given.items():
        if key in asked and mark in asked[key].values:
            said.append(f"{asked[key].label}: {asked[key].anchors[int(mark) - asked[key].low]}")
        elif key in known and mark in known[key].values:
            said.append(f"{words(known[key].label)}: {words(known[key].anchor(int(mark)))}")
    return f'<p class="n-sub">{escape(" · ".join(said))}</p>' if said else ""


def refused(table: RatingsTable, words: Words) -> str:
    """Rows of the file that are not counted, with line numbers."""
    if not table.refused and not table.set_aside:
        return ""
    lines = [
        words("ratings.refused_line", line=row.line, reason=words.error(UserError(row.reason_key, **row.values)))
        for row in table.refused[:REFUSED]
    ]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    aside = "".join(f"<p>{escape(words('ratings.set_aside', file=path.name))}</p>" for path in table.set_aside)
    head = words("ratings.refused", count=len(table.refused)) if table.refused else ""
    return f'<div class="n-note warn">{head}<ul>{listed}</ul>{aside}</div>'


def question(row: Rating) -> str:
    """What was asked last."""
    turns: Sequence[Mapping[str, str]] = row.turns("model_a")
    return next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "")


def domain_name(domain: str, words: Words) -> str:
    key = f"ratings.domain.{domain}"
    return words(key) if key in words else escape(domain) or words("results.no_domain")


def criterion_name(picture: Picture, name: str, words: Words) -> str:
    """The study's own label, else ours, else the key."""
    asked = {q.key: q.label for q in picture.study.questions} if picture.study else {}
    key = f"ratings.criteria.{name}"
    return asked.get(name) or (words(key) if key in words else name)


def _told(line: PromptLine, picture: Picture, words: Words) -> str:
    row = picture.rows.get(line.any)
    return words(
        "results.dot",
        what=_cut(question(row)) if row is not None else line.prompt_id,
        b=line.counts.wins_b,
        a=line.counts.wins_a,
    )


def _span(name: str, kind: str) -> str:
    return f'<b class="n-name-{kind}">{escape(name)}</b>'


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LETTERS else text[:_LETTERS].rstrip() + "…"


def _day(time: pd.Timestamp) -> str:
    return str(time.strftime("%Y.%m.%d"))


def _when(created: str) -> str:
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%m.%d %H:%M")
    except ValueError:
        return created
