from __future__ import annotations

import math

import numpy as np
import pytest

from compare.study_power import detectable, expected_decided, seconds_per_item
from tests.compare.studies import study


def by_hand(decided: int, rate: float) -> float:
    """Power by adding up the binomial probabilities: a second way to the same number."""
    half = [math.comb(decided, k) / 2**decided for k in range(decided + 1)]
    least = next(k for k in range(decided + 1) if sum(half[k:]) <= 0.025)
    return sum(math.comb(decided, k) * rate**k * (1 - rate) ** (decided - k) for k in range(least, decided + 1))


@pytest.mark.parametrize("decided", [6, 10, 20, 47, 85, 194, 400])
def test_the_rate_has_the_power_it_claims(decided: int) -> None:
    rate = detectable(decided)
    assert rate is not None and by_hand(decided, rate) == pytest.approx(0.8, abs=1e-6)


def test_it_agrees_with_simulation() -> None:
    rate = detectable(160)
    assert rate is not None
    wins = np.random.default_rng(1).binomial(160, rate, 200_000)
    significant = [k for k in range(161) if 2 * sum(math.comb(160, j) for j in range(k, 161)) / 2**160 <= 0.05]
    assert (wins >= min(significant)).mean() == pytest.approx(0.8, abs=0.005)


def test_it_agrees_with_the_normal_approximation_where_that_holds() -> None:
    """Votes for .75, .70, .65, .60, .55 by the sign test's normal approximation; the exact test needs a few more."""
    for votes, rate in ((29, 0.75), (47, 0.70), (85, 0.65), (194, 0.60), (783, 0.55)):
        found = detectable(votes)
        assert found is not None and found == pytest.approx(rate, abs=0.025)


def test_too_few_votes_tell_nothing() -> None:
    assert [detectable(n) for n in (0, 1, 5)] == [None] * 3
    rates = [detectable(n) for n in (20, 50, 100, 500, 5000)]
    assert all(r is not None for r in rates) and rates == sorted(rates, key=lambda r: -(r or 0))


def test_ties_and_reading() -> None:
    assert expected_decided(200) == 160
    assert seconds_per_item(study(), 1200) > seconds_per_item(study(), 600) > 20
