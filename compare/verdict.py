"""What the votes say of one adapter, in sentences for others to print.

Covers: finding the comparison with the most votes in which the adapter took part. Does not cover: the figures
(stats_report.py), pages (results_view.py).
"""

from __future__ import annotations

from dataclasses import replace

from assets.words import Words
from compare.rating import Side
from compare.ratings import RatingsFile
from compare.results_data import names_of, tuned_side, votes_of
from compare.stats_rates import Outcome
from compare.stats_report import counted, notes, percent, report, sentences, where
from compare.stats_votes import Filter

ROWS = 20  # enough to see whether the other side is a base


def verdict(ratings: RatingsFile, sha256: str, words: Words) -> list[str]:
    """The sentence with its interval, which votes it counts, and what to know before believing it; [] without votes.

    ``sha256`` is that of the adapter's weights, whose first letters are part of the recorded name (candidates.py).
    """
    votes = votes_of(ratings)
    mark = f"@{sha256[:8]}"
    pair = next(((a, b) for a, b, _ in votes.pairs() if a.endswith(mark) or b.endswith(mark)), None)
    if pair is None:
        return []
    found = report(votes, Filter(pair))
    if found.overall.tally.n == 0:
        return []
    newest = [str(name) for name in found.selection.votes.frame["rating_id"]][-ROWS:]
    found = replace(found, tuned=tuned_side(ratings.read_some(newest), pair))
    names = names_of(pair, None)
    mine: Side = "model_b" if pair[1].endswith(mark) else "model_a"
    said = [*sentences(found, names), counted(found), *notes(found)]
    domains = found.domains if len(found.domains) > 1 else {}
    shares = [_share(domain, one, mine, names, words) for domain, one in {"": found.overall, **domains}.items()]
    return [f"{names[0]} · {names[1]}", *filter(None, shares), *(one.say(words) for one in said)]


def _share(domain: str, outcome: Outcome, side: Side, names: tuple[str, str], words: Words) -> str:
    """The adapter's share of the decided votes with its interval; "" while there are too few for one."""
    share = outcome.share(side)
    if share.rate is None or share.interval is None:
        return ""
    low, high = (percent(end) for end in share.interval)
    key, values = where(domain)
    name = names[side == "model_b"]
    return words("share.verdict", where=words(key, **values), name=name, rate=percent(share.rate), low=low, high=high)
