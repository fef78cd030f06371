"""A run's time: which moment a budget means, and that a run of any speed ends before it."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest

from finetune.budget import Clock, deadline, is_time, moment

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC).timestamp()
HOUR = 3600.0


@pytest.mark.parametrize(("text", "fine"), [("07:00", True), ("7", False), ("25:00", False), ("07:00+09:00", True)])
def test_what_is_a_time_of_day(text: str, fine: bool) -> None:
    assert is_time(text) is fine


def test_a_time_of_day_is_the_next_one_where_the_person_is() -> None:
    assert moment("13:30+00:00", NOON) == NOON + 1.5 * HOUR
    assert moment("12:00+00:00", NOON) == NOON + 24 * HOUR  # it is noon now, so tomorrow's is meant
    assert moment("07:00+09:00", NOON) == NOON + 10 * HOUR  # in Seoul it is 21:00
    assert moment("07:00-05:00", NOON) == NOON + 24 * HOUR


def test_the_earlier_of_both_limits_counts() -> None:
    assert deadline(0, "", NOON, NOON) is None
    assert deadline(30, "", NOON - HOUR, NOON) == NOON + HOUR / 2  # minutes count from the start, not from the click
    assert deadline(30, "12:10+00:00", NOON, NOON) == NOON + 600
    assert deadline(30, "20:00+00:00", NOON, NOON) == NOON + 1800


def play(
    seconds: list[float], limit: float, total: int, evaluation: float = 5.0, save: float = 1.0, every: int = 0
) -> tuple[float, int, list[int]]:
    """A run whose n-th step takes ``seconds[n]`` (the last for ever): seconds until its end is saved, steps, totals."""
    clock = Clock(limit, total, every or max(1, total // 5), not every)
    now, step, look_every, totals = 0.0, 0, every or max(1, total // 5), []
    clock.evaluated(evaluation)
    now += evaluation
    while True:
        took = seconds[min(step, len(seconds) - 1)]
        now, step = now + took, step + 1
        evaluates = step % look_every == 0
        look = clock.step(step, took, now, evaluates)
        total, look_every = look.total, look.every
        totals.append(total)
        if look.end or step >= total:
            return now + evaluation + 2 * save, step, totals
        if evaluates:
            now += evaluation + save
            clock.evaluated(evaluation)
            clock.saved(save)


def test_a_run_with_time_enough_does_all_of_its_steps() -> None:
    took, steps, totals = play([1.0], 10_000, 200)
    assert steps == 200 and set(totals) == {200} and took < 300


@pytest.mark.parametrize("every", [0, 40])
def test_a_run_without_takes_fewer_and_uses_its_time(every: int) -> None:
    took, steps, totals = play([1.0], 600, 5000, every=every)
    assert 500 < took <= 600 and 400 < steps < 600
    assert totals[0] == 5000 and totals[10] < 700  # known after a few steps, while the learning rate still rises


def test_a_slow_first_step_is_not_taken_for_the_usual_one() -> None:
    took, steps, _ = play([30.0, *[1.0] * 2000], 600, 5000)
    assert took <= 600 and steps > 350


def test_a_run_that_gets_slower_still_ends_in_time() -> None:
    took, steps, _ = play([1.0] * 100 + [3.0], 600, 5000)
    assert took <= 600 and 100 < steps < 260


def test_it_never_asks_for_more_than_was_wanted_and_late_it_only_shortens() -> None:
    took, _, totals = play([5.0] * 8 + [0.5], 600, 900)
    assert took <= 600 and max(totals) <= 900
    late = [t for n, t in enumerate(totals) if n > 0.2 * t]
    assert late == sorted(late, reverse=True)


def test_any_run_ends_in_time() -> None:
    chance = Random(6)
    for _ in range(200):
        usual, limit = chance.uniform(0.1, 8), chance.uniform(200, 5000)
        steps = [usual * chance.uniform(0.6, 1.7) for _ in range(3000)]
        evaluation = chance.uniform(0, limit / 20)
        took, _, totals = play(steps, limit, chance.randint(10, 20_000), evaluation, evaluation / 10)
        assert took <= limit and min(totals) >= 1


def test_a_deadline_that_has_passed_ends_at_the_first_step() -> None:
    clock = Clock(-10.0, 100, 20, True)
    assert clock.step(1, 1.0, 5.0, False).end


def test_five_evaluations_are_left_out_when_they_would_take_most_of_the_time() -> None:
    _, _, totals = play([1.0], 200, 5000, evaluation=30.0)
    assert totals[-1] > 60
