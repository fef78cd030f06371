"""The curve's mark and the sentences beside it."""

from __future__ import annotations

from typing import Any

import pytest

from assets.words import LANGUAGES, Words
from finetune import views_loss
from finetune.progress import Progress

pytestmark = pytest.mark.parametrize("language", LANGUAGES)


def progress(losses: list[float], **more: Any) -> Progress:
    evals = [{"step": 10 * n, "loss": loss} for n, loss in enumerate(losses)]
    return Progress(steps=[{"step": 1, "loss": 2.0}], evals=evals, total=100, **more)


def other(*ends: tuple[int, float], domain: str = "science") -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss, "domain": domain} for step, loss in ends]


def test_where_the_loss_turned_is_marked_and_said(language: str) -> None:
    words = Words(language)
    shown = views_loss.show(progress([3.0, 2.0, 1.5, 1.8]), words)
    assert shown.count("n-turn") == 1 and words("train.overfit", step=20, best="1.500", last="1.800") in shown


@pytest.mark.parametrize("losses", [[3.0, 2.0, 1.5], [3.0, 2.0, 1.5, 1.51], [3.0], []])
def test_nothing_is_said_while_it_falls(losses: list[float], language: str) -> None:
    shown = views_loss.show(progress(losses), Words(language))
    assert "n-turn" not in shown and "n-note" not in shown


def test_a_run_that_kept_its_best_is_not_blamed(language: str) -> None:
    kept = progress([3.0, 2.0, 1.5, 1.8], notes=[{"key": "train.best", "values": {}}])
    assert "n-note" not in views_loss.show(kept, Words(language))
    assert "n-turn" in views_loss.show(kept, Words(language))


@pytest.mark.parametrize(("last", "key"), [(2.5, "worse"), (2.02, "kept"), (1.9, "better")])
def test_what_was_forgotten_is_one_sentence(last: float, key: str, language: str) -> None:
    words = Words(language)
    shown = views_loss.forgetting(progress([], others=other((0, 2.0), (40, last))), words)
    domain, values = words("catalog.domain.science"), {"first": "2.000", "last": f"{last:.3f}"}
    assert words(f"train.forget.{key}", domain=domain, percent=25, **values) in shown and shown.count("<p") == 1


def test_it_waits_for_both_ends_and_takes_the_newest(language: str) -> None:
    words = Words(language)
    assert views_loss.forgetting(progress([], others=other((0, 2.0))), words) == ""
    twice = other((0, 2.0), (20, 9.0), (40, 2.0))
    assert words("train.forget.kept", domain=words("catalog.domain.science"), first="2.000", last="2.000") in (
        views_loss.forgetting(progress([], others=twice), words)
    )
    both = [*other((0, 2.0), (4, 2.0)), *other((0, 1.0), (4, 1.5), domain="emotion")]
    assert views_loss.forgetting(progress([], others=both), words).count("<p") == 2
