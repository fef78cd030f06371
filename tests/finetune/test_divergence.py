"""The rule by which a run has gone wrong: plain numbers."""

from __future__ import annotations

import math
import random

import pytest

from finetune.divergence import OVERFLOWS, PATIENCE, Losses, Trouble, slower

NAN, INF = math.nan, math.inf


def first_trouble(losses: list[float], scaled: bool = False, norms: list[float] | None = None) -> Trouble | None:
    watched = Losses(scaled)
    for step, loss in enumerate(losses, 1):
        trouble = watched.look(step, loss, norms[step - 1] if norms else 1.0)
        if trouble:
            return trouble
    return None


def test_a_run_that_learns_is_left_alone() -> None:
    noise = random.Random(0)
    assert first_trouble([2.5 * math.exp(-step / 60) * noise.uniform(0.4, 1.7) + 0.1 for step in range(400)]) is None


def test_a_loss_that_stays_away_is_a_divergence() -> None:
    falling = [2.5 - 0.05 * step for step in range(30)]
    trouble = first_trouble(falling + [4.0, 6.0, 7.0, 8.0, 9.0, 9.0])
    assert trouble is not None and (trouble.kind, trouble.since, trouble.step) == ("diverged", 31, 30 + PATIENCE)
    assert trouble.loss == 9.0 and 1.0 < trouble.usual < 2.0
    error = trouble.error(1e-4)
    assert (error.key, error.values["rate"]) == ("train.diverged", 1e-4)


def test_from_the_first_steps_on() -> None:
    trouble = first_trouble([2.5, 2.6, 7.0, 9.0, 10.0, 11.0, 11.0])
    assert trouble is not None and trouble.since == 3


@pytest.mark.parametrize(
    "losses",
    [
        [2.0, 1.0, 1.0, *[9.0] * (PATIENCE - 1), 1.0, *[9.0] * (PATIENCE - 1), 1.0],  # it comes back each time
        [2.0, *[0.1] * 20, *[1.9] * 20],  # high beside the usual, but never above where the run began
        [2.0, *[1.2] * 10, *[2.3] * 20],  # above the beginning, but not by much
        [0.5] * 40,
        [7.0],
    ],
)
def test_noise_is_none(losses: list[float]) -> None:
    assert first_trouble(losses) is None


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_no_number_ends_it_at_once(bad: float) -> None:
    trouble = first_trouble([2.0, 1.9, bad])
    assert trouble == Trouble("not_a_number", 3, 3) or trouble is not None and trouble.since == 3
    assert trouble.error(1e-4).values == {"step": 3, "rate": 1e-4}
    trouble = first_trouble([2.0, 1.9], norms=[1.0, bad])
    assert trouble is not None and trouble.step == 2


def test_float16_may_overflow_for_a_while() -> None:
    """The scaler begins at 2^16 and halves; a step whose gradients overflow is left out."""
    norms = [INF, NAN, INF, 1.0, *[INF] * OVERFLOWS, 1.0]
    assert first_trouble([2.0] * len(norms), scaled=True, norms=norms) is None
    assert first_trouble([2.0] * 40, scaled=True, norms=[INF] * 40) is not None
    assert first_trouble([2.0, NAN], scaled=True) is not None


def test_checkpoints_are_kept_while_something_looks_wrong() -> None:
    watched = Losses()
    for step, loss in enumerate([2.0, 1.0, 1.0], 1):
        watched.look(step, loss, 1.0)
    assert not watched.suspicious
    watched.look(4, 9.0, 1.0)
    assert watched.suspicious
    watched.look(5, 1.0, 1.0)
    assert not watched.suspicious


def test_a_held_out_loss_that_is_no_number() -> None:
    trouble = Losses().evaluated(4, NAN)
    assert trouble is not None and trouble.since == 5 and Losses().evaluated(4, 2.0) is None


def test_half_as_fast() -> None:
    assert (slower(2e-4), slower(5e-3), slower(3e-5)) == (1e-4, 2.5e-3, 1.5e-5)
