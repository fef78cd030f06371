from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.words import Words
from compare import views
from compare.ratings import Rating, RatingsFile
from compare.session import Session
from tests.compare.pairs import BASE, NAMES, SAMPLING, TUNED, answer, built_in, desk, question, session, store
from tests.fake_engine import FakeEngine


def shown(who: Session) -> str:
    words = Words("ko")
    return "".join(views.pane(p, place, words) for p, place in zip(who.panes(), ("left", "right"), strict=True))


def test_both_sides_answer_and_nothing_names_a_model_before_the_vote(tmp_path: Path) -> None:
    who, here = session(), desk()
    who.ask(here.pair, question(), "", SAMPLING, "0.1")
    for _ in who.run(here, SAMPLING):
        assert not [name for name in (*NAMES, "원본", "튜닝") if name in shown(who).casefold()]
        assert who.stage == "busy"
    assert who.stage == "answered" and who.can_vote
    assert {p.text for p in who.panes()} == {"차가운 답", "따뜻한 답"}
    assert not [name for name in (*NAMES, "원본", "튜닝") if name in shown(who).casefold()]
    assert all(p.name is None and p.done is None and p.kind == "" for p in who.panes())
    assert who.vote("left", {}, "", store(tmp_path))
    assert {p.name for p in who.panes()} == {"Gemma 2 2B", "공감 대화"}


def test_sides_are_shuffled_and_a_reload_draws_anew() -> None:
    here = desk()

    def lefts(who: Session) -> str:
        drawn = ""
        for _ in range(16):
            who.clear()
            answer(who, here)
            assert who.talk is not None
            drawn += who.talk.left_is[-1]
        return drawn

    first, second = lefts(session()), lefts(session())
    assert first.count("a") == second.count("a") == 8
    assert first != second


def test_a_vote_is_stored_once_however_often_it_is_pressed(tmp_path: Path) -> None:
    who, here, file = session(), desk(), store(tmp_path)
    answer(who, here, built_in(), system="다정하게")
    assert who.vote("right", {"right": {"empathy": 0}}, " 좋아요 ", file, "stacked")
    assert not who.vote("right", {}, "", file)
    assert not who.vote("left", {}, "", file)
    (vote,) = file.read().votes
    assert who.talk is not None and vote.rating_id == who.talk.trial.id
    right = "model_b" if vote.left_is == "model_a" else "model_a"
    assert vote.winner == right and vote.criteria == {right: {"empathy": 0}} and vote.comment == "좋아요"
    assert vote.blind and vote.layout == "stacked" and vote.seed == 7 and vote.rater == "r1"
    assert vote.prompt_id == "emotion-001" and vote.prompt_set == "builtin-emotion" and "emotion-001" in who.rated
    assert isinstance(vote.conversation, list) and vote.conversation[0] == {"role": "system", "content": "다정하게"}
    assert vote.provenance["model_b"]["adapter_sha256"] == "f" * 64
    assert vote.timing["model_a"]["tokens"] == 5


def test_a_vote_that_cannot_be_stored_loses_nothing(tmp_path: Path) -> None:
    class Full(RatingsFile):
        def append(self, rating: Rating) -> None:
            raise UserError("ratings.not_saved", reason="No space left on device")

    who, here = session(), desk()
    answer(who, here)
    with pytest.raises(UserError, match="not_saved"):
        who.vote("left", {}, "", Full(tmp_path / "full.csv"))
    assert who.talk is not None and who.talk.reveal is None and who.panes()[0].name is None
    file = store(tmp_path)
    assert who.vote("left", {}, "", file)
    assert len(file.read().votes) == 1


def test_a_vote_needs_a_choice_and_two_answers(tmp_path: Path) -> None:
    who, here = session(), desk()
    assert not who.vote("left", {}, "", store(tmp_path))
    answer(who, here)
    for wrong in (None, "", "a"):
        with pytest.raises(UserError, match="choose_first"):
            who.vote(wrong, {}, "", store(tmp_path))


def test_undo_takes_the_vote_back_but_does_not_blind_again(tmp_path: Path) -> None:
    who, here, file = session(), desk(), store(tmp_path)
    answer(who, here, built_in())
    who.vote("tie", {}, "", file)
    assert who.undo(file) and not who.undo(file)
    assert file.read().votes == [] and file.read().undone == 1 and who.rated == set()
    assert who.stage == "revealed" and not who.can_vote


def test_each_side_keeps_its_own_conversation(tmp_path: Path) -> None:
    engine = FakeEngine(answers={"a": "하나", "b": "둘"})
    who, here, file = session(), desk(engine), store(tmp_path)
    answer(who, here)
    answer(who, here, question("그래서요?"))
    turns, _, _ = engine.asked[-1]
    assert [m["content"] for m in turns["a"]] == ["오늘 힘들었어요.", "하나", "그래서요?"]
    assert [m["content"] for m in turns["b"]] == ["오늘 힘들었어요.", "둘", "그래서요?"]
    who.vote("left", {}, "", file)
    (vote,) = file.read().votes
    assert isinstance(vote.conversation, dict) and vote.conversation["model_b"][1]["content"] == "둘"


def test_sides_stay_while_a_talk_goes_on_or_is_answered_again() -> None:
    who, here = session(), desk()
    answer(who, here)
    assert who.talk is not None
    side, trial = who.talk.left_is, who.talk.trial.id
    for _ in range(4):
        who.again(here.pair, "", SAMPLING, "0.1")
        for _ in who.run(here, SAMPLING):
            pass
        assert who.talk.left_is == side
    assert who.talk.trial.id != trial


def test_a_built_in_prompt_brings_its_opening_and_loses_its_id_when_changed() -> None:
    engine = FakeEngine()
    who, here = session(), desk(engine)
    asked = built_in(turns=3)
    answer(who, here, asked)
    assert [m["role"] for m in engine.asked[-1][0]["a"]] == ["user", "assistant", "user"]
    assert who.talk is not None and who.talk.trial.setting.prompt_id
    who.clear()
    answer(who, here, replace(asked, text="다른 말"))
    assert who.talk.trial.setting.prompt_id == "" and who.talk.trial.setting.prompt_set == "own"


def test_stopping_ends_both_answers_and_keeps_what_was_said() -> None:
    engine = FakeEngine(answers={"a": "가" * 500, "b": "나" * 500}, pause=0.005)
    who, here = session(), desk(engine)
    who.ask(here.pair, question(), "", SAMPLING, "0.1")
    for count, _ in enumerate(who.run(here, SAMPLING)):
        if count == 40:
            who.stop(here)
    assert who.stage == "stopped" and not who.can_vote
    assert all(0 < len(p.text) < 500 and p.ended == "cancelled" for p in who.panes())
    engine.answers, engine.pause = {"a": "끝", "b": "끝"}, 0
    answer(who, here, question("다시"))
    assert who.stage == "answered" and [t["content"] for t in who.panes()[0].turns] == ["다시"]


def test_leaving_in_mid_answer_frees_the_engine() -> None:
    engine = FakeEngine(answers={"a": "가" * 500, "b": "나" * 500})
    who, here = session(), desk(engine)
    who.ask(here.pair, question(), "", SAMPLING, "0.1")
    running = who.run(here, SAMPLING)
    for _ in range(10):
        next(running)
    assert engine.running == 1
    running.close()
    assert engine.running == 0 and who.stage == "stopped"
    answer(session("r2"), here)


def test_a_failed_answer_is_told_in_its_pane_and_the_next_one_works() -> None:
    engine = FakeEngine(reasons={"a": "error"}, errors={"a": "engine.died"})
    who, here = session(), desk(engine)
    answer(who, here)
    assert who.stage == "stopped" and Words("ko")("engine.died") in shown(who)
    engine.reasons, engine.errors = {}, {}
    who.again(here.pair, "", SAMPLING, "0.1")
    for _ in who.run(here, SAMPLING):
        pass
    assert who.stage == "answered"


def test_a_refused_question_is_not_half_asked() -> None:
    engine = FakeEngine()
    who, here = session(), desk(engine)
    with pytest.raises(UserError, match=r"compare\.empty"):
        who.ask(here.pair, question("  "), "", SAMPLING, "0.1")
    with pytest.raises(UserError, match="not_loaded"):
        who.ask(None, question(), "", SAMPLING, "0.1")
    engine.stream_error = UserError("engine.prompt_too_long", tokens=9000, limit=8192)
    with pytest.raises(UserError, match="too_long"):
        answer(who, here)
    engine.stream_error = None
    assert who.stage == "stopped"
    answer(who, here, question("짧게"))
    assert [t["content"] for t in who.panes()[0].turns] == ["짧게"]


def test_another_pair_begins_a_new_talk(tmp_path: Path) -> None:
    who, here = session(), desk()
    answer(who, here)
    first = who.talk
    here.load(BASE, replace(TUNED, name="다른 것"))
    for _ in here.follow():
        pass
    with pytest.raises(UserError, match="pair_changed"):
        who.again(here.pair, "", SAMPLING, "0.1")
    assert who.vote("left", {}, "", store(tmp_path)), "answers that are there can still be voted on"
    answer(who, here, question("새로"))
    assert who.talk is not first and len(who.panes()[0].turns) == 1


def test_open_talks_name_the_sides_and_take_no_vote() -> None:
    who, here = session(), desk()
    who.blind = False
    answer(who, here)
    left, right = who.panes()
    assert (left.name, left.kind, right.name, right.kind) == ("Gemma 2 2B", "base", "공감 대화", "tuned")
    assert left.done is not None and left.done.tokens == 5 and not who.can_vote


def test_the_same_model_twice_never_enters_a_win_rate(tmp_path: Path) -> None:
    who, here, file = session(), desk(second=BASE), store(tmp_path)
    answer(who, here)
    who.vote("left", {}, "", file)
    assert file.read().votes[0].kind == "aa"


def test_a_fresh_session_can_be_copied_as_gradio_does() -> None:
    assert copy.deepcopy(Session()).stage == "ready"
