"""The joint pass writes what each model writes alone: real weights, a few prompts (the 64 are run by hand)."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.files import Workspace
from finetune import starter
from tests.models import make_adapter
from tests.proof.greedy import compare
from tests.proof.stock import Stock

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ("오늘 하루가 너무 길었어요.", "Why is the sky blue?", "비 오는 날엔 뭘 먹을까요?", "Name three colours.")


@pytest.mark.slow
def test_four_prompts_on_the_starter_and_an_adapter(tmp_path: Path) -> None:
    base = starter.make(Workspace(ROOT / "workspace").prepare())
    adapter = make_adapter(base, tmp_path / "tuned", lora_alpha=16)
    outcome = compare(base, adapter, QUESTIONS, tokens=12, weights="float32")
    assert outcome.answers == 8 and outcome.tokens > 60
    assert not outcome.wrong and len(outcome.differences) <= 1


def test_a_model_doubts_tokens_that_are_not_its_own(tmp_path: Path) -> None:
    from tests.models import make_model

    base = make_model(tmp_path / "base", "llama", seed=4)
    stock = Stock(base, weights="float32")
    prompt, stops = [1, 3, 60, 61, 4], [2, 4]
    answer = stock.greedy(prompt, 12, stops)
    assert stock.doubts(prompt, answer, stops, ended=len(answer) < 12) == ()
    wrong = [*answer[:5], (answer[5] + 7) % 256 + 5, *answer[6:]]
    (first, *_) = stock.doubts(prompt, wrong, stops, ended=False)
    assert (first.place, first.drawn, first.best) == (5, wrong[5], answer[5]) and not first.tie
