"""What the results tab shows, as HTML text made from votes.

Covers: the verdict, counts and win rates by domain with a small interval plot, the left/right line, the latest votes,
unreadable rows. Does not cover: components and downloads (results.py), the statistics (stats.py). Everything that comes
from a model or a person is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from assets.errors import UserError
from assets.words import Words
from compare import markup, stats
from compare.criteria import criteria_for
from compare.rating import Rating, Side
from compare.ratings import Ratings

LATEST = 20
_LETTERS = 90


@dataclass(frozen=True)
class Filter:
    """Which votes to look at. ``pair`` is (model_a, model_b); "" as ``domain`` means all of them."""

    pair: tuple[str, str]
    domain: str = ""
    blind_only: bool = True


@dataclass(frozen=True)
class Picture:
    """What a filter leaves. ``tuned`` is the side with an adapter, when exactly one has one."""

    filter: Filter
    votes: tuple[Rating, ...]
    left_out: Mapping[str, int]
    tuned: Side | None

    @property
    def tally(self) -> stats.Tally:
        return stats.tally(self.votes)


def look(ratings: Ratings, wanted: Filter) -> Picture:
    """The votes that count, and how many were left out by reason."""
    chosen = stats.select(ratings.votes, *wanted.pair, blind_only=wanted.blind_only)
    kept = [vote for vote in chosen.votes if wanted.domain in ("", vote.domain)]
    left_out = dict(chosen.left_out)
    if other := len(chosen.votes) - len(kept):
        left_out["other_domain"] = other
    return Picture(wanted, tuple(kept), left_out, tuned_side(chosen.votes))


def tuned_side(votes: Sequence[Rating]) -> Side | None:
    """The side whose record names an adapter, if the other one's names none."""
    for vote in reversed(votes):
        a, b = (bool((vote.provenance.get(side) or {}).get("adapter_sha256")) for side in ("model_a", "model_b"))
        if a != b and vote.winner:
            return _as_selected(vote, a)
    return None


def _as_selected(vote: Rating, a_is_tuned: bool) -> Side:
    """``select`` turns models, answers and criteria of a vote, but not its provenance: names settle it."""
    recorded = (vote.provenance.get("model_a") or {}).get("model")
    turned = recorded is not None and recorded != vote.model_a
    return "model_a" if a_is_tuned != turned else "model_b"


def verdict(picture: Picture, words: Words) -> str:
    """The sentence on top."""
    names = (_short(picture.filter.pair[0]), _short(picture.filter.pair[1]))
    said = stats.verdict(picture.tally, picture.filter.domain, picture.tuned, names).say(words)
    better = stats.is_difference(picture.tally)
    return f'<div class="n-verdict{" n-sure" if better else ""}">{escape(said)}</div>'


def rates(picture: Picture, words: Words) -> str:
    """One row per domain and one for all: counts, and the second model's win rate with its interval."""
    rows = [_rate(words("results.all"), picture.tally, words, strong=True)]
    domains = stats.by_domain(picture.votes)
    if len(domains) > 1:
        rows += [_rate(_domain(domain, words), tally, words) for domain, tally in domains.items()]
    who = words("results.tuned" if picture.tuned == "model_b" else "results.second")
    names = words("results.names", a=_span(picture.filter.pair[0], "a"), b=_span(picture.filter.pair[1], "b"))
    return (
        f'<div class="n-rates"><p class="n-h">{words("results.rate", who=who)}</p><p class="n-sub">{names}</p>'
        f'{"".join(rows)}<p class="n-axis"><span>0 %</span><span>50 %</span><span>100 %</span></p>'
        f'<p class="n-sub">{words("results.interval")}</p></div>'
    )


def _rate(name: str, tally: stats.Tally, words: Words, strong: bool = False) -> str:
    rate, interval = tally.rate("model_b"), tally.interval("model_b")
    shown = f"{rate * 100:.0f} %" if rate is not None else "–"
    counts = words("results.counts", b=tally.wins_b, a=tally.wins_a, tie=tally.ties, bad=tally.both_bad)
    return (
        f'<div class="n-rate{" n-strong" if strong else ""}"><b>{escape(name)}</b>{plot(rate, interval)}'
        f'<span class="n-percent">{shown}</span><span class="n-counts">{counts}</span></div>'
    )


def plot(rate: float | None, interval: tuple[float, float] | None) -> str:
    """An interval on a line from 0 to 1 with a mark at one half, 200 x 22."""
    base = '<line x2="200" y1="11" y2="11" class="n-rail"/><line x1="100" x2="100" y1="2" y2="20" class="n-half"/>'
    if rate is None or interval is None:
        return f'<svg viewBox="0 0 200 22" preserveAspectRatio="none">{base}</svg>'
    low, high = (200 * end for end in interval)
    kind = "n-over" if interval[0] > 0.5 else "n-under" if interval[1] < 0.5 else "n-open"
    bar = f'<rect x="{low:.1f}" y="6" width="{max(high - low, 1):.1f}" height="10" rx="5" class="n-band"/>'
    dot = f'<rect x="{200 * rate - 2:.1f}" y="3" width="4" height="16" rx="2" class="n-point"/>'
    return f'<svg viewBox="0 0 200 22" preserveAspectRatio="none" class="{kind}" role="img">{base}{bar}{dot}</svg>'


def places(picture: Picture, words: Words) -> str:
    """Whether the left answer wins more often than it should."""
    share = stats.left_share(picture.votes)
    if share.rate is None or share.interval is None:
        return ""
    low, high = (round(100 * end) for end in share.interval)
    biased = not share.interval[0] <= 0.5 <= share.interval[1] and share.n >= stats.MINIMUM_DECIDED
    key = "results.places.biased" if biased else "results.places.fair"
    return f'<p class="n-sub">{words(key, percent=round(100 * share.rate), low=low, high=high, n=share.n)}</p>'


def left_out(picture: Picture, words: Words) -> str:
    """How many votes are not counted here, and why."""
    if not picture.left_out:
        return ""
    known = {key: f"ratings.left_out.{key}" for key in picture.left_out}
    parts = [f"{words(k if k in words else f'results.left_out.{r}')} {picture.left_out[r]}" for r, k in known.items()]
    return f'<p class="n-sub">{words("results.left_out", what=escape(", ".join(parts)))}</p>'


def refused(ratings: Ratings, words: Words) -> str:
    """Rows of the file that are not counted, with line numbers."""
    if not ratings.refused and not ratings.set_aside:
        return ""
    lines = [
        words("ratings.refused_line", line=row.line, reason=words.error(UserError(row.reason_key, **row.values)))
        for row in ratings.refused[:LATEST]
    ]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    aside = "".join(f"<p>{escape(words('ratings.set_aside', file=path.name))}</p>" for path in ratings.set_aside)
    head = words("ratings.refused", count=len(ratings.refused)) if ratings.refused else ""
    return f'<div class="n-note warn">{head}<ul>{listed}</ul>{aside}</div>'


def latest(votes: Sequence[Rating], owner: bool, rater: str, words: Words) -> str:
    """The newest votes first; comments of others only for the owner."""
    newest = sorted(votes, key=lambda vote: vote.created_at, reverse=True)[:LATEST]
    return "".join(_vote(vote, owner or vote.rater == rater, words) for vote in newest)


def _vote(vote: Rating, open_: bool, words: Words) -> str:
    question = next((t["content"] for t in reversed(vote.turns("model_a")) if t["role"] == "user"), "")
    won = {"model_a": vote.model_a, "model_b": vote.model_b}.get(vote.winner)
    result = words("results.won", name=_short(won)) if won else words(f"results.{vote.winner}")
    comment = f'<p class="n-comment">{escape(vote.comment)}</p>' if vote.comment and open_ else ""
    answers = "".join(_answer(vote, side, words) for side in _sides(vote))
    return (
        f'<details class="n-vote-row"><summary><span class="n-badge">{_domain(vote.domain, words)}</span>'
        f'<span class="n-what">{escape(_cut(question))}</span><span class="n-result">{escape(result)}</span>'
        f"<time>{escape(_when(vote.created_at))}</time></summary>"
        f'<div class="n-you">{escape(question)}</div><div class="n-two">{answers}</div>{comment}</details>'
    )


def _sides(vote: Rating) -> tuple[Side, Side]:
    return ("model_a", "model_b") if vote.left_is == "model_a" else ("model_b", "model_a")


def _answer(vote: Rating, side: Side, words: Words) -> str:
    place = "left" if vote.left_is == side else "right"
    name = vote.model_a if side == "model_a" else vote.model_b
    won = f' <span class="n-badge finished">{words("results.chosen")}</span>' if vote.winner == side else ""
    letter = f'<b class="n-letter">{words("compare.side." + place)}</b>'
    marks = _marks(vote.domain, vote.criteria.get(side, {}), words)
    return (
        f'<div class="n-{place}"><header>{letter}<span class="n-who">{escape(_short(name))}</span>{won}</header>'
        f'<div class="n-it">{markup.html(vote.response(side))}</div>{marks}</div>'
    )


def _marks(domain: str, given: Mapping[str, float], words: Words) -> str:
    known = {c.key: c for c in criteria_for(domain)}
    said = [
        f"{words(known[key].label)}: {words(known[key].anchor(int(mark)))}"
        for key, mark in given.items()
        if key in known and mark in known[key].values
    ]
    return f'<p class="n-sub">{escape(" · ".join(said))}</p>' if said else ""


def _domain(domain: str, words: Words) -> str:
    key = f"ratings.domain.{domain}"
    return words(key) if key in words else escape(domain)


def _short(name: str) -> str:
    """A recorded identity as people read it: without the owner of the repository and the digest."""
    return name.rsplit("/", 1)[-1].rsplit("@", 1)[0]


def _span(name: str, kind: str) -> str:
    return f'<b class="n-name-{kind}">{escape(_short(name))}</b>'


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LETTERS else text[:_LETTERS].rstrip() + "…"


def _when(created: str) -> str:
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%m.%d %H:%M")
    except ValueError:
        return created
