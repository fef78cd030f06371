"""Prompts for comparing that a model may have seen in training.

Covers: equal and nearly equal first and last user turns, by character 5-grams. Does not cover: paraphrases.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.data_table import Example

NEAR = 0.6
_GRAM = 5
_BETWEEN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Similar:
    """A prompt and the training example most like it. ``score``: Jaccard, 0.6 to 1; ``equal``: same normalised text."""

    prompt: str
    example: int
    score: float
    equal: bool
    text: str


def similar(examples: Iterable[Example], prompts: Sequence[Mapping[str, Any]]) -> list[Similar]:
    """The prompts ({"id", "messages", …}) that are equal or nearly equal to a training row, in the order given.

    ``example`` is an index into ``examples``. The index is over the prompts, so memory does not grow with the data.
    """
    index = _Index(prompts)
    best: dict[int, Similar] = {}
    for number, example in enumerate(examples):
        for text in _user_turns(example.messages) or ([example.text] if example.text else []):
            for place, score, equal in index.near(text):
                if place not in best or score > best[place].score:
                    best[place] = Similar(str(prompts[place]["id"]), number, score, equal, text)
    return [best[place] for place in sorted(best)]


class _Index:
    """5-gram -> the turns of prompts that hold it."""

    def __init__(self, prompts: Sequence[Mapping[str, Any]]) -> None:
        self._owner: list[int] = []
        self._normal: list[str] = []
        self._size: list[int] = []
        self._holders: dict[str, list[int]] = defaultdict(list)
        for place, prompt in enumerate(prompts):
            for text in _user_turns(prompt["messages"]):
                self._add(place, normalised(text))

    def _add(self, place: int, text: str) -> None:
        grams = _grams(text)
        for gram in grams:
            self._holders[gram].append(len(self._owner))
        self._owner.append(place)
        self._normal.append(text)
        self._size.append(len(grams))

    def near(self, text: str) -> Iterable[tuple[int, float, bool]]:
        text = normalised(text)
        grams = _grams(text)
        common = Counter(turn for gram in grams & self._holders.keys() for turn in self._holders[gram])
        for turn, count in common.items():
            score = count / (len(grams) + self._size[turn] - count)
            if score >= NEAR:
                yield self._owner[turn], score, text == self._normal[turn]


def normalised(text: str) -> str:
    """Letters and digits only, without case or width."""
    return _BETWEEN.sub("", unicodedata.normalize("NFKC", text).casefold())


def _grams(text: str) -> set[str]:
    if len(text) < _GRAM:
        return {text} if text else set()
    return {text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)}


def _user_turns(messages: Iterable[Mapping[str, str]]) -> list[str]:
    """The first and the last user turn, once if they are the same."""
    said = [message["content"] for message in messages if message["role"] == "user"]
    return said[:1] if len(said) < 2 else [said[0], said[-1]]
