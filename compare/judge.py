"""Another model's opinion on pairs of answers, asked twice with the places exchanged.

Covers: what the judge is asked, reading its reply, a file of opinions beside the votes, how often it sides with people.
Does not cover: talking to its server (remote_engine.py); and nothing here enters what people chose.

Both orders, and a tie when they disagree, after MT-bench (Zheng et al. 2023): a judge leans to one place, most of all
when answers are close. Opinions are kept apart from the votes, in ratings/judge.jsonl.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assets.errors import UserError
from assets.files import append_line, lock, read_lines
from compare.csv_store import to_json
from compare.engine import Arm, Delta, Done, Engine, LoadSpec, Sampling
from compare.rating import Message, Rating, now
from compare.stats_rates import Rate, share
from compare.stats_votes import Mask, Votes

VERSION = 1
SAMPLING = Sampling(temperature=0.0, max_new_tokens=512)
_ASKED = """아래 대화에 대한 두 답변 가운데 어느 쪽이 더 나은지 판정해 주세요.
길이나 놓인 자리가 아니라, 사람에게 실제로 도움이 되고 맞는 말인지를 보세요.

[대화]
{talk}

[답변 1]
{one}

[답변 2]
{two}

마지막 줄에 판정만 적어 주세요: 1 (답변 1이 낫다), 2 (답변 2가 낫다), 비김 (비슷하다)."""
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_CHOICE = re.compile(r"(?<!\d)([12])(?!\d)|비김|무승부|\btie\b", re.IGNORECASE)
_ORDERS = ("as_is", "exchanged")


@dataclass(frozen=True)
class Judged:
    """One pair of answers. ``first`` with model_a as answer 1, ``second`` exchanged: a model, "tie" or "" (unreadable)."""

    judge: str
    item: str
    model_a: str
    model_b: str
    domain: str
    prompt_id: str
    first: str
    second: str

    @property
    def winner(self) -> str:
        """What both orders say; "tie" when they disagree, "" when one could not be read."""
        if not self.first or not self.second:
            return ""
        return self.first if self.first == self.second else "tie"


@dataclass(frozen=True)
class Opinion:
    """What one judge said of a pair of models. ``rate`` is model_b's share of its decided pairs, ``people`` the share of
    people's decided votes on those pairs that it sides with, ``same`` how often both orders agree, ``n`` readable pairs."""

    judge: str
    n: int
    unreadable: int
    rate: Rate
    same: Rate
    people: Rate


def item_of(row: Rating) -> str:
    """What was seen: a study's answers to a prompt are the same for everybody, free ones are one vote's own."""
    return f"{row.study_id}\t{row.prompt_id}" if row.study_id and row.prompt_id else row.rating_id


def items(votes: Votes) -> list[str]:
    """``item_of`` for every vote."""
    columns = (votes.frame[name].astype(object) for name in ("study_id", "prompt_id", "rating_id"))
    return [f"{study}\t{prompt}" if study and prompt else str(own) for study, prompt, own in zip(*columns, strict=True)]


def question(row: Rating, exchanged: bool) -> list[Message]:
    """What the judge is asked; no model is named."""
    one, two = (row.response_b, row.response_a) if exchanged else (row.response_a, row.response_b)
    talk = "\n".join(f"{turn['role']}: {turn['content']}" for turn in row.turns("model_a"))
    return [{"role": "user", "content": _ASKED.format(talk=talk, one=one, two=two)}]


def read(text: str, exchanged: bool) -> str:
    """The judge's choice, the last one it names; "" when it names none."""
    found = list(_CHOICE.finditer(_THOUGHT.sub("", text)))
    if not found:
        return ""
    number = found[-1][1]
    if number is None:
        return "tie"
    return "model_b" if (number == "1") == exchanged else "model_a"


def judge(engine: Engine, address: str, rows: Sequence[Rating], file: Path) -> Iterator[tuple[int, int]]:
    """Ask about each row that this judge has not seen; (done, of) after each, kept at once.

    UserErrors as the engine gives them; UserError("results.judge.failed") when an answer does not come.
    """
    known = {(one.judge, one.item, one.model_a, one.model_b) for one in opinions(file)}
    asked = {(item_of(row), row.model_a, row.model_b): row for row in rows}
    open_ = [row for key, row in asked.items() if (address, *key) not in known]
    yield 0, len(open_)
    if not open_:
        return
    for _ in engine.load(LoadSpec(tuple(Arm(key, address) for key in _ORDERS))):
        pass
    for done, row in enumerate(open_, start=1):
        said = _both(engine, row)
        record = {"version": VERSION, "at": now(), "judge": address, "item": item_of(row), "model_a": row.model_a}
        record |= {"model_b": row.model_b, "domain": row.domain, "prompt_id": row.prompt_id}
        record |= {"first": read(said["as_is"], False), "second": read(said["exchanged"], True)}
        with lock(file):
            append_line(file, to_json(record))
        yield done, len(open_)


def _both(engine: Engine, row: Rating) -> dict[str, str]:
    said = dict.fromkeys(_ORDERS, "")
    turns = {key: question(row, key == "exchanged") for key in _ORDERS}
    for event in engine.stream(turns, None, SAMPLING):
        if isinstance(event, Delta):
            said[event.arm] += event.text
        elif isinstance(event, Done) and event.reason not in ("stop", "length"):
            raise UserError("results.judge.failed")
    return said


def opinions(file: Path) -> list[Judged]:
    """Every opinion in the file, of this version and older; the first on a pair counts."""
    found: dict[tuple[str, ...], Judged] = {}
    for line in read_lines(file):
        if line.get("version", VERSION) > VERSION:
            continue
        one = Judged(**{name: str(line.get(name, "")) for name in Judged.__dataclass_fields__})
        found.setdefault((one.judge, one.item, one.model_a, one.model_b), one)
    return list(found.values())


def opinion_on(votes: Votes, judged: Sequence[Judged], pair: tuple[str, str]) -> list[Opinion]:
    """Each judge on the items of these votes, turned as ``pair`` is."""
    seen = items(votes)
    found = []
    for name in dict.fromkeys(one.judge for one in judged):
        mine = {
            one.item: _turned(one, pair)
            for one in judged
            if one.judge == name and {one.model_a, one.model_b} == set(pair)
        }
        mine = {item: one for item, one in mine.items() if item in set(seen)}
        if mine:
            found.append(_opinion(name, votes, seen, mine))
    return found


def _turned(one: Judged, pair: tuple[str, str]) -> Judged:
    if (one.model_a, one.model_b) == pair:
        return one
    other: Mapping[str, Any] = {"model_a": "model_b", "model_b": "model_a"}
    first, second = (other.get(choice, choice) for choice in (one.first, one.second))
    return Judged(one.judge, one.item, *pair, one.domain, one.prompt_id, first, second)


def _opinion(name: str, votes: Votes, seen: Sequence[str], mine: Mapping[str, Judged]) -> Opinion:
    readable = [one for one in mine.values() if one.winner]
    decided = [one for one in readable if one.winner != "tie"]
    prompts = {one.item: place for place, one in enumerate(mine.values())}
    says = np.array([mine[item].winner if item in mine else "" for item in seen], dtype=object)
    both: Mask = votes.decided & np.isin(says, ("model_a", "model_b"))
    sides = (says == np.asarray(votes.frame["winner"], dtype=object))[both].astype(float)
    return Opinion(
        judge=name,
        n=len(readable),
        unreadable=len(mine) - len(readable),
        rate=_alone([one.winner == "model_b" for one in decided]),
        same=_alone([one.first == one.second for one in readable]),
        people=share(sides, np.array([prompts.get(item, 0) for item in seen])[both], votes.raters[both]),
    )


def _alone(outcomes: Sequence[bool]) -> Rate:
    place = np.arange(len(outcomes))
    return share(np.array(outcomes, dtype=float), place, place)
