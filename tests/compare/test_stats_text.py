from __future__ import annotations

import json
import math
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from compare import stats_machine, stats_text
from compare.stats_rates import wilson
from compare.stats_text import blindness, different, form, looks
from tests.compare.rating_files import vote


@pytest.mark.parametrize(
    ("text", "polite", "mixed"),
    [
        ("안녕하세요. 많이 힘드셨겠네요! 괜찮으세요?", 1.0, 0.0),
        ("그렇습니다. 가 보십시오.", 1.0, 0.0),
        ("힘들었겠다. 오늘은 쉬어. 뭐 할까?", 0.0, 0.0),
        ("힘드셨겠어요. 오늘은 그냥 쉬어. 그랬군요. 그래.", 0.5, 0.5),
        ("“괜찮아요.” (정말이에요.)", 1.0, 0.0),
    ],
)
def test_speech_level_by_endings(text: str, polite: float, mixed: float) -> None:
    found = form(text)
    assert (found.polite, found.mixed) == (polite, mixed)


def test_what_has_no_ending_has_no_speech_level() -> None:
    for text in ("", "- 사과\n- 바나나", "Hello there.", "산 너머 남촌"):
        assert math.isnan(form(text).polite) and math.isnan(form(text).mixed)


def test_shares_by_hand() -> None:
    found = form("# 제목\n\n- **하나**\n그냥 글이에요.\n1. 둘")
    assert found.markdown == 3 / 4 and found.characters == 28 and found.cut_off == 0
    assert form("가나 abc").foreign == 3 / 5 and form("123 !?").foreign == 0 and form("").foreign == 0
    assert form("가 나 다 가 나 다 가").repeated == pytest.approx(1 - 3 / 5) and form("가 나").repeated == 0


@pytest.mark.parametrize(
    ("text", "reason", "cut"),
    [
        ("끝났어요.", "", 0),
        ("끝났어요", "", 0),
        ("끝나기 전에 잘", "", 1),
        ("끝났어요.", "length", 1),
        ("끝나기 전에 잘", "stop", 0),
        ("힘내요 😊", "", 0),
        ("", "", 0),
    ],
)
def test_answers_that_were_cut_off(text: str, reason: str, cut: int) -> None:
    assert form(text, reason).cut_off == cut


def pairs(n: int, styled: bool) -> list[Any]:
    return [
        vote(
            str(i), prompt_id=f"p{i}", domain="emotion" if i % 2 else "science",
            response_a=f"{'가나다 ' * (i % 7)}이것은 답이에요.",
            response_b=f"{'라마바 ' * ((i * 3) % 7)}" + ("- **이것**은 답이야." if styled and i % 10 else "이것은 답이에요."),
        )
        for i in range(n)
    ]  # fmt: skip


def test_form_that_gives_the_model_away_is_found() -> None:
    found = blindness(pairs(60, True))
    assert found is not None and found.accuracy >= 0.85 and found.told_apart and found.telling in ("markdown", "polite")
    assert found.interval == wilson(round(found.accuracy * found.n), found.n)


def test_form_that_tells_nothing_is_blind() -> None:
    found = blindness(pairs(60, False))
    assert found is not None and not found.told_apart
    assert blindness(pairs(10, True)) is None
    assert blindness([vote(str(i), response_a="같아요.", response_b="같아요.") for i in range(30)]) is None


def test_looks_by_model_and_domain() -> None:
    given = different([*pairs(40, True), *pairs(40, True)])
    assert len(given) <= 40
    found = {(one.model, one.domain): one for one in looks(given)}
    assert set(found) == {(m, d) for m in ("base", "tuned") for d in ("", "emotion", "science")}
    assert found["base", ""].means["markdown"] == 0 < found["tuned", ""].means["markdown"]
    assert found["base", ""].means["polite"] == 1 and found["tuned", "emotion"].n <= found["tuned", ""].n


def test_at_most_so_many_answers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_text, "SAMPLE", 5)
    kept = different(vote(str(i), response_a=str(i)) for i in range(12))
    assert [row.rating_id for row in kept] == ["0", "2", "5", "8", "11"]


RECORD: dict[str, Any] = {
    "name": "emotion-01",
    "dataset": {"id": "emotion.jsonl", "heldout": 40},
    "spec": {"watch": {"examples": 64}},
    "metrics": {"eval_loss": {"first": 2.0, "last": 1.5}},
}


def test_held_out_loss_from_a_runs_record() -> None:
    found = stats_machine.held_out(RECORD)
    assert found is not None and (found.before, found.after, found.examples, found.from_base) == (2.0, 1.5, 40, True)
    assert found.perplexity == pytest.approx((math.exp(2), math.exp(1.5)))
    preference = RECORD | {"spec": {"objective": "dpo"}, "start": {"adapter": "x"}}
    other = stats_machine.held_out(preference)
    assert other is not None and other.perplexity is None and not other.from_base
    for metrics in (
        {},
        {"eval_loss": {}},
        {"eval_loss": {"first": None, "last": 1}},
        {"eval_loss": {"first": math.nan, "last": 1}},
    ):
        assert stats_machine.held_out(RECORD | {"metrics": metrics}) is None


def test_the_run_is_the_one_whose_adapter_answered(tmp_path: Path) -> None:
    for job, weights in (("one", b"1"), ("two", b"2")):
        folder = tmp_path / job / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(weights)
        (folder / "run.json").write_text(json.dumps(RECORD | {"name": job}), encoding="utf-8")
    asked = vote(provenance={"model_b": {"adapter_sha256": sha256(b"2").hexdigest()}})
    found = stats_machine.compared(asked, "model_b", tmp_path)
    assert found is not None and found.run == "two"
    assert stats_machine.compared(asked, "model_a", tmp_path) is None
    assert stats_machine.compared(asked, "model_b", tmp_path / "gone") is None
