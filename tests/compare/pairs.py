"""A loaded pair and a session in front of it, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assets.catalog import prompts
from compare.desk import Candidate, Desk, Loading
from compare.engine import Sampling
from compare.ratings import RatingsFile
from compare.session import Question, Session
from tests.fake_engine import FakeEngine

BASE = Candidate("google/gemma-2-2b-it", "Gemma 2 2B", "google/gemma-2-2b-it", names=("gemma-2-2b-it",))
TUNED = Candidate("공감@a1b2c3d4", "공감 대화", "google/gemma-2-2b-it", adapter="/jobs/x/adapter", system="친구예요.")
SAMPLING = Sampling(max_new_tokens=32, seed=7)
NAMES = ("gemma", "공감 대화", "a1b2c3d4", "model_a", "model_b", "/jobs/x")


def desk(engine: FakeEngine | None = None, first: Candidate = BASE, second: Candidate = TUNED) -> Desk:
    made = Desk(engine or FakeEngine(answers={"a": "차가운 답", "b": "따뜻한 답"}), idle=0)
    made.load(first, second)
    ended(made)
    return made


def ended(desk: Desk) -> Loading:
    *_, last = desk.follow()
    assert last.ended
    return last


def session(rater: str = "r1") -> Session:
    made = Session()
    made.meet(rater, set())
    return made


def question(text: str = "오늘 힘들었어요.") -> Question:
    return Question(text, "emotion")


def built_in(domain: str = "emotion", turns: int = 1) -> Question:
    prompt = next(p for p in prompts(domain) if len(p.messages) == turns)
    opening = tuple(dict(m) for m in prompt.messages[:-1])
    return Question(prompt.messages[-1]["content"], domain, opening, prompt)


def answer(session: Session, desk: Desk, asked: Question | None = None, system: str = "") -> None:
    """Ask and let both answer to the end."""
    session.ask(desk.pair, asked or question(), system, SAMPLING, "0.1")
    for _ in session.run(desk, SAMPLING):
        pass


def store(folder: Path) -> RatingsFile:
    return RatingsFile(folder / "ratings.csv", "0.1")


def no_prompts(path: Path, columns: str) -> tuple[list[dict[str, Any]], str, int]:
    """``CompareServices.read_prompts`` where nobody uploads any."""
    raise AssertionError(path)
