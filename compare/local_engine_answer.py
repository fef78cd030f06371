"""The answers of one request while they are being written: their text, their times, their ends.

Covers: from tokens to events, several bases that stream at the same time. Does not cover: where tokens come from
(decode.py), loading (local_engine_group.py).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence

from assets.chat import TextStream
from compare.decode import Step
from compare.engine import Delta, Done, Reason

Events = Generator[list[Delta | Done], None, None]


class Answer:
    """Text and times of one arm's answer while it is being written."""

    def __init__(self, arm: str, text: TextStream, started: float) -> None:
        self.arm = arm
        self._text = text
        self._started = started
        self._first = self._last = started
        self._tokens = 0

    def push(self, token: int) -> list[Delta | Done]:
        self._last = time.monotonic()
        if self._tokens == 0:
            self._first = self._last
        self._tokens += 1
        return self._deltas(self._text.push(token))

    def end(self, reason: Reason, error: str | None = None) -> list[Delta | Done]:
        text = self._text.flush()
        rest = self._deltas(text if reason == "stop" else text.rstrip("\ufffd"))  # a limit may cut a syllable in two
        spent = self._last - self._first
        speed = (self._tokens - 1) / spent if spent > 0 else 0.0
        first = self._first - self._started
        return [*rest, Done(self.arm, reason, self._tokens, first, speed, error)]

    def _deltas(self, text: str) -> list[Delta | Done]:
        return [Delta(self.arm, text)] if text else []


def events_of(step: Step, open_: dict[int, Answer]) -> list[Delta | Done]:
    """What a step adds to the answers by row; those that end leave ``open_``."""
    events = [event for row, token in step.tokens.items() for event in open_[row].push(token)]
    for row, reason in step.ended.items():
        events += open_.pop(row).end(reason)
    return events


def end_all(open_: dict[int, Answer], reason: Reason, error: str | None = None) -> list[Delta | Done]:
    events = [event for answer in open_.values() for event in answer.end(reason, error)]
    open_.clear()
    return events


def alternate(running: Sequence[Events]) -> Iterator[Delta | Done]:
    """One step of each in turn, so that all of them stream at the same time."""
    left = list(running)
    try:
        while left:
            for answers in list(left):
                events = next(answers, None)
                if events is None:
                    left.remove(answers)
                else:
                    yield from events
    finally:
        for answers in running:
            answers.close()


def one_by_one(running: Sequence[Events]) -> Iterator[Delta | Done]:
    """Each to its end before the next one begins."""
    try:
        for answers in running:
            for events in answers:
                yield from events
    finally:
        for answers in running:
            answers.close()
