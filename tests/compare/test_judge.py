from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from compare import judge
from compare.engine import Delta, Done, LoadSpec
from compare.judge import Judged, opinion_on, opinions, question, read
from compare.rating import Message
from compare.stats_rates import wilson
from compare.stats_votes import Filter, from_ratings, select
from tests.compare.rating_files import vote

PAIR = ("base", "tuned")


class Judge:
    """An engine whose judge likes the answer with more of one letter, or always the first place."""

    def __init__(self, likes: str = "", broken: bool = False) -> None:
        self.likes, self.broken, self.asked = likes, broken, 0

    def load(self, spec: LoadSpec) -> Iterator[Any]:
        assert len(spec.arms) == 2
        return iter(())

    def stream(self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Any) -> Iterator[Any]:
        self.asked += 1
        for arm, said in turns.items():
            _, one, two = said[-1]["content"].split("[답변 ")
            better = (
                "1" if not self.likes or one.count(self.likes) > two.split("\n\n마지막")[0].count(self.likes) else "2"
            )
            yield Delta(arm, f"<think>2가 아니라</think>둘을 견주면\n{better}")
            yield Done(arm, "error" if self.broken else "stop")


def rows(n: int = 12) -> list[Any]:
    """B has more of the letter 요 in eight of twelve."""
    return [
        vote(
            str(i), study_id="s", prompt_id=f"p{i}", blind=True, winner="model_b" if i < 6 else "model_a",
            conversation=[{"role": "user", "content": "질문"}], response_a="요요", response_b="요요요" if i < 8 else "요",
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("1", "model_a"),
        ("답변 1은 길어요.\n2", "model_b"),
        ("비김", "tie"),
        ("모르겠어요", ""),
        ("12점", ""),
        ("<think>1</think>", ""),
    ],
)
def test_a_reply_is_read_by_its_last_word(text: str, choice: str) -> None:
    assert read(text, exchanged=False) == choice
    assert read(text, exchanged=True) == {"model_a": "model_b", "model_b": "model_a"}.get(choice, choice)


def test_the_judge_sees_no_model_and_both_places() -> None:
    [row] = rows(1)
    first, second = question(row, False)[0]["content"], question(row, True)[0]["content"]
    assert "base" not in first and "tuned" not in first
    assert first.index("[답변 1]\n요요\n") and second.index("[답변 1]\n요요요\n")


def test_a_judge_with_a_taste_and_how_often_people_share_it(tmp_path: Path) -> None:
    engine, file = Judge("요"), tmp_path / "judge.jsonl"
    progress = list(judge.judge(engine, "http://x/v1#m", rows(), file))
    assert progress[0] == (0, 12) and progress[-1] == (12, 12) and engine.asked == 12
    assert list(judge.judge(engine, "http://x/v1#m", rows(), file)) == [(0, 0)], "nothing is asked twice"
    votes = select(
        from_ratings([*rows(), replace(rows(1)[0], rating_id="lee", rater="lee", winner="model_a")]), Filter(PAIR)
    ).votes
    [found] = opinion_on(votes, opinions(file), PAIR)
    assert (found.n, found.unreadable, found.rate.wins, found.rate.n, found.same.wins) == (12, 0, 8, 12, 12)
    assert found.rate.interval == pytest.approx(wilson(8, 12))
    assert (found.people.wins, found.people.n) == (10, 13), "6 + 4 of the first rater, none of the other's"
    [turned] = opinion_on(select(votes, Filter(PAIR[::-1])).votes, opinions(file), ("tuned", "base"))
    assert (turned.rate.wins, turned.people.wins) == (4, 10)


def test_a_judge_that_likes_a_place_decides_nothing(tmp_path: Path) -> None:
    file = tmp_path / "judge.jsonl"
    list(judge.judge(Judge(), "http://x/v1#m", rows(), file))
    [found] = opinion_on(from_ratings(rows()), opinions(file), PAIR)
    assert (found.n, found.rate.n, found.same.wins, found.people.n) == (12, 0, 0, 0)


def test_what_came_before_a_fault_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "judge.jsonl"
    with pytest.raises(UserError, match=r"results\.judge\.failed"):
        list(judge.judge(Judge(broken=True), "http://x/v1#m", rows(), file))
    assert opinions(file) == []
    list(judge.judge(Judge("요"), "http://x/v1#m", rows(3), file))
    with file.open("a") as handle:
        handle.write('{"version": 99, "judge": "new"}\n{"torn')
    assert len(opinions(file)) == 3


def test_an_unreadable_reply_is_no_opinion() -> None:
    one = Judged("m", "s\tp0", *PAIR, "emotion", "p0", "model_a", "")
    [found] = opinion_on(from_ratings(rows(1)), [one, replace(one, item="other")], PAIR)
    assert (found.n, found.unreadable, found.rate.n) == (0, 1, 0)
    assert opinion_on(from_ratings(rows(1)), [replace(one, model_a="x")], PAIR) == []
