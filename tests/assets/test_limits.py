from __future__ import annotations

import pytest

from assets import limits as module
from assets.limits import Limit, Limits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_many_at_once_then_so_many_a_second() -> None:
    clock = Clock()
    limit = Limit(rate=0.5, burst=2, clock=clock)
    assert [limit.take("a"), limit.take("a")] == [0, 0]
    assert limit.take("a") == 2 and limit.wait("a") == 2 and limit.take("b") == 0
    clock.now += 1.5
    assert limit.take("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert limit.wait("a") == 0 and limit.take("a") == 0 and limit.take("a") == 2
    clock.now += 1e6
    assert [limit.take("a"), limit.take("a"), limit.take("a")] == [0, 0, 2]


def test_it_remembers_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEYS", 3)
    limit = Limit(1, 1)
    for key in "abcdef":
        limit.take(key)
    assert list(limit._left) == ["d", "e", "f"]


def test_all_visitors_together_have_a_limit_too() -> None:
    limits = Limits.usual(per_minute=2)
    assert [limits.answer("a"), limits.answer("a")] == [0, 0] and limits.answer("a") > 20
    answered = sum(limits.answer(str(n)) == 0 for n in range(100))
    assert answered == 8
