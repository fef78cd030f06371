"""What the owner sees of studies, as HTML text made from plain data.

Covers: the list, the steps, the answers being made, links with QR codes, raters and their pace, the estimate. Does not
cover: components and events (tab_study*.py), the raters' page (rate_view.py). Everything a person wrote is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from html import escape

from assets.errors import UserError
from assets.words import Words, duration
from compare import views
from compare.desk import Loading
from compare.study import Study
from compare.study_items import ItemsReport
from compare.study_links import Address, qr
from compare.study_maker import MakingWork
from compare.study_raters import Link
from compare.study_view import Estimate, Progress, RaterProgress

ACT = "n-study-act"
_LOOKS = {"draft": "", "generating": "running", "open": "finished", "closed": "stopped"}
_STEPS = ("make", "share", "watch", "results")


def act(text: str, look: str = "n-quiet", **what: str) -> str:
    """A button that tells the server what was pressed (acts.js)."""
    told = escape(json.dumps(what, ensure_ascii=False))
    return f'<button type="button" class="{look}" data-to="{ACT}" data-act="{told}">{escape(text)}</button>'


def badge(study: Study, words: Words) -> str:
    return f'<span class="n-badge {_LOOKS[study.state]}">{words(f"studies.state.{study.state}")}</span>'


def listed(
    studies: Sequence[Study], votes: Mapping[str, int], broken: Sequence[tuple[str, UserError]], words: Words
) -> str:
    """A line per study with its state and count; those that cannot be read, with the reason."""
    if not studies and not broken:
        return f'<div class="n-empty">{words("studies.none")}</div>'
    lines = "".join(_line(study, votes.get(study.id), words) for study in studies)
    bad = "".join(
        f'<div class="n-note bad">{words("studies.broken", study=escape(name))} {escape(words.error(error))}</div>'
        for name, error in broken
    )
    return f'<div class="n-studies">{lines}</div>{bad}'


def _line(study: Study, votes: int | None, words: Words) -> str:
    count = "" if votes is None else words("studies.votes", n=votes, target=study.target)
    facts = words("studies.line", models=len(study.arms), prompts=len(study.prompts))
    told = escape(json.dumps({"do": "open", "study": study.id}))
    return (
        f'<button type="button" class="n-study" data-to="{ACT}" data-act="{told}"><span class="n-study-name">'
        f"<b>{escape(study.name)}</b>{badge(study, words)}</span>"
        f'<span class="n-sub">{facts}</span><span class="n-study-count">{count}</span></button>'
    )


def head(study: Study, step: str, words: Words) -> str:
    """Name, state, and where in the four steps this study stands."""
    now = _STEPS.index(step)
    steps = "".join(
        f'<span class="{"past" if i < now else "now" if i == now else ""}">{words(f"studies.step.{name}")}</span>'
        for i, name in enumerate(_STEPS)
    )
    facts = words("studies.line", models=len(study.arms), prompts=len(study.prompts))
    names = "" if study.packed else " · " + escape(" · ".join(arm.name for arm in study.arms))
    packed = f'<div class="n-note">{words("studies.packed")}</div>' if study.packed else ""
    back = act("← " + words("studies.all"), do="home")
    return (
        f'<p class="n-study-back">{back}</p><h3 class="n-h n-study-head">{escape(study.name)} {badge(study, words)}</h3>'
        f'<p class="n-sub">{facts}{names}</p><div class="n-phases">{steps}</div>{packed}'
    )


def making(work: MakingWork | None, report: ItemsReport, seconds_left: float | None, words: Words) -> str:
    """How far the answers are, and what was found in them."""
    if work is not None and work.running and work.loading is not None and not work.loading.ended:
        return _loading(work.loading, words)
    count = words("studies.made", done=report.done, total=report.total)
    line = [count, _time(work, report, seconds_left, words)]
    told = f'<p class="n-sub">{" · ".join(part for part in line if part)}</p>'
    return _bar(report.done, report.total) + told + _trouble(work, words) + found(report, words)


def _time(work: MakingWork | None, report: ItemsReport, seconds_left: float | None, words: Words) -> str:
    if work is not None and work.running:
        if work.stopping:
            return words("studies.stopping")
        now = work.making
        return (
            words("compare.waiting", n=now.place)
            if now and now.place
            else _left(now.seconds_left if now else None, words)
        )
    return "" if report.done == report.total or seconds_left is None else _left(seconds_left, words)


def _trouble(work: MakingWork | None, words: Words) -> str:
    if work is None or work.running:
        return ""
    if work.error is not None:
        return views.bad(views.sentence(work.error, words))
    failed = len(work.making.failed) if work.making is not None else 0
    return f'<div class="n-note warn">{words("studies.failed", n=failed)}</div>' if failed else ""


def _loading(loading: Loading, words: Words) -> str:
    names = escape(" · ".join(c.name for c in loading.candidates))
    return f'<p class="n-sub">{words("studies.loading", names=names)}</p>{views.loading(loading, words)}'


def _bar(done: int, total: int) -> str:
    percent = f"{done / max(1, total) * 100:.1f}"
    return f'<div class="n-bar" role="progressbar" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'


def _left(seconds: float | None, words: Words) -> str:
    return words("studies.measuring") if seconds is None else words("studies.left", time=duration(words, seconds))


def found(report: ItemsReport, words: Words) -> str:
    """What an owner should know of the answers before sharing them."""
    counts = {"named": report.named, "cut": report.cut, "equal": report.equal}
    lines = "".join(f"<li>{words(f'studies.found.{key}', n=n)}</li>" for key, n in counts.items() if n)
    return f'<ul class="n-study-found">{lines}</ul>' if lines else ""


def reach(address: Address, words: Words) -> str:
    """From where the links open."""
    look = " warn" if address.reach == "here" else ""
    return f'<div class="n-note{look}">{words(f"studies.reach.{address.reach}")}</div>'


def links(made: Sequence[Link], address: Address, words: Words) -> str:
    """Each link with copy and QR; they are shown once, for only their hashes are kept."""
    if not made:
        return ""
    rows = "".join(_link(link, address.link(link.code), words) for link in made)
    everything = escape("\n".join(f"{words('studies.rater', n=x.number)}\t{address.link(x.code)}" for x in made))
    copy = (
        f'<button type="button" class="n-plain-button" data-copy="{everything}" data-copied="{words("rate.copied")}">'
        f"{words('studies.copy_all')}</button>"
    )
    top = f'<div class="n-study-once"><p class="n-sub">{words("studies.once")}</p>{copy if len(made) > 1 else ""}</div>'
    return f'{reach(address, words)}{top}<div class="n-study-links">{rows}</div>'


def _link(link: Link, url: str, words: Words) -> str:
    name = words("studies.rater", n=link.number)
    return (
        f'<div class="n-study-link">{qr(url)}<div><b>{name}</b><code>{escape(url)}</code>'
        f'<button type="button" class="n-plain-button" data-copy="{escape(url)}" data-copied="{words("rate.copied")}">'
        f"{words('rate.copy')}</button></div></div>"
    )


def progress(shown: Progress, revoked: Collection[str], words: Words) -> str:
    """The count against the target, and a row per rater. ``revoked`` are pseudonyms."""
    parts = [_figures(shown, words), _bar(min(shown.votes, shown.target), shown.target)]
    if not shown.raters:
        return "".join(parts) + f'<p class="n-sub">{words("studies.no_raters")}</p>'
    heads = "".join(f"<th>{words(f'studies.col.{key}')}</th>" for key in ("rater", "done", "pace", "last", "flags"))
    rows = "".join(_rater(one, one.rater in revoked, words) for one in shown.raters)
    table = (
        f'<table class="n-table n-study-raters"><thead><tr>{heads}<th></th></tr></thead><tbody>{rows}</tbody></table>'
    )
    return "".join(parts) + f'<div class="n-scroll">{table}</div>'


def _figures(shown: Progress, words: Words) -> str:
    paces = [one.median_seconds for one in shown.raters if one.median_seconds]
    figures = [
        (f"{shown.votes} / {shown.target}", "studies.figure.votes"),
        (str(sum(one.done > 0 for one in shown.raters)), "studies.figure.raters"),
        (_pace(sorted(paces)[len(paces) // 2] if paces else None, words), "studies.figure.pace"),
    ]
    if shown.elsewhere:
        figures.append((str(shown.elsewhere), "studies.figure.elsewhere"))
    if shown.undone or shown.withdrawn:
        figures.append((f"{shown.undone} · {shown.withdrawn}", "studies.figure.undone"))
    cells = "".join(f"<div><b>{value}</b><span>{words(key)}</span></div>" for value, key in figures)
    return f'<div class="n-figures">{cells}</div>'


def _pace(seconds: float | None, words: Words) -> str:
    return "–" if seconds is None else words("studies.per_vote", n=round(seconds))


def _rater(one: RaterProgress, revoked: bool, words: Words) -> str:
    flags = " ".join(f'<span class="n-badge queued">{words(flag)}</span>' for flag in one.flags)
    stage = words("studies.stage.revoked" if revoked else f"studies.stage.{one.stage}")
    renew = act(words("studies.renew"), do="renew", rater=one.rater)
    revoke = "" if revoked else act(words("studies.revoke"), do="revoke", rater=one.rater)
    cells = {
        "rater": f'<b>{words("studies.rater", n=one.number)}</b><span class="n-sub">{stage}</span>',
        "done": f"{one.done} / {one.total}{_bar(one.done, one.total)}",
        "pace": _pace(one.median_seconds, words),
        "last": _when(one.last_at),
        "flags": flags or "–",
    }
    row = "".join(
        f'<td{" class=n-none" if cell == "–" else ""} data-label="{words(f"studies.col.{key}")}">{cell}</td>'
        for key, cell in cells.items()
    )
    return f'<tr>{row}<td class="n-study-tools">{renew}{revoke}</td></tr>'


def _when(at: str) -> str:
    """A time of ratings.csv (UTC) on this computer's clock."""
    return f"{datetime.fromisoformat(at).astimezone():%m.%d %H:%M}" if at else "–"


def estimate(found: Estimate, raters: int, target: int, answers: int, words: Words) -> str:
    """Minutes per rater, votes that so many raters give, and the difference those can show."""
    rate = words("studies.estimate.none")
    if found.detectable is not None:
        high = round(found.detectable * 100)
        rate = words("studies.estimate.detectable", high=high, low=100 - high)
    minutes = words("studies.estimate.minutes", n=max(1, round(found.minutes_per_rater)))
    votes = raters * found.votes_per_rater
    lines = [
        f"<b>{minutes}</b>",
        words("studies.estimate.votes", raters=raters, votes=votes, target=target),
        rate,
        words("studies.estimate.answers", n=answers),
    ]
    short = ""
    if votes < target:
        short = f'<div class="n-note warn">{words("studies.estimate.more", n=found.raters_needed)}</div>'
    return f'<div class="n-study-estimate">{"".join(f"<p>{line}</p>" for line in lines)}</div>{short}'
