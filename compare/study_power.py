"""How much a study can tell, and how long it takes.

Covers: the smallest true win rate that a number of decided votes tells from one half, minutes per rater. Does not cover:
what the votes given say (stats.py).
"""

from __future__ import annotations

from functools import lru_cache
from statistics import median

from compare.study import Study

ALPHA = 0.05
POWER = 0.8
# About one vote in five is a tie on public arenas (Leaderbot, arXiv 2412.18407).
DECIDED = 0.8
# Until votes were measured: silent reading at 12 characters a second, and the time to choose and to mark.
READING = 12.0
CHOOSING = 8.0
MARKING = 4.0


@lru_cache(maxsize=256)
def detectable(decided: int, power: float = POWER) -> float | None:
    """The smallest true win rate above one half that ``decided`` independent votes tell from it with ``power``.

    Exact two-sided binomial test at 5 % (equal tails; the chance of a significant result on the wrong side is left
    out). None when not even a rate of 1 is told: five votes or fewer.
    """
    from scipy.optimize import brentq
    from scipy.stats import binom

    if decided < 1:
        return None
    least = int(binom.isf(ALPHA / 2, decided, 0.5)) + 1  # wins from which the test is significant
    if least > decided:
        return None
    return float(brentq(lambda rate: binom.sf(least - 1, decided, rate) - power, 0.5, 1.0, xtol=1e-9))


def expected_decided(votes: int) -> int:
    """Decided votes to expect among ``votes``."""
    return int(votes * DECIDED)


def seconds_per_item(study: Study, characters: float) -> float:
    """Seconds for an item with ``characters`` to read, from assumptions that are stated above."""
    questions = median([len(study.questions_for(domain)) for domain in study.domains])
    return CHOOSING + characters / READING + 2 * MARKING * questions
