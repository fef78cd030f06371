"""What people read, in Korean and English.

Covers: looking a sentence up by key and filling it in, choosing a language from a browser's header. Does not cover:
which page speaks which language (app.py) or gradio's own labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from assets.errors import UserError

LANGUAGES = ("ko", "en")
STRINGS = Path(__file__).parent / "strings"


@cache
def _table(language: str) -> Mapping[str, str]:
    table: dict[str, str] = {}
    for file in sorted((STRINGS / language).glob("*.json")):
        for key, text in json.loads(file.read_text(encoding="utf-8")).items():
            if key in table:
                raise ValueError(f"{file.name} defines {key} a second time")
            table[key] = text
    return table


class Words:
    """One language. ``words("train.start", steps=40)`` gives the sentence; an unknown key raises KeyError."""

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise ValueError(f"no such language: {language}")
        self.language = language
        self._table = _table(language)

    def __call__(self, key: str, **values: object) -> str:
        text = self._table[key]
        return text.format(**values) if values else text

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def error(self, error: UserError) -> str:
        """The sentence of a UserError; one among its values becomes its own sentence."""
        values = {name: self.error(v) if isinstance(v, UserError) else v for name, v in error.values.items()}
        return self(error.key, **values)

    def keys(self) -> frozenset[str]:
        return frozenset(self._table)


def duration(words: Words, seconds: float) -> str:
    """A time span as people say it: "40초", "3분", "2시간 10분"."""
    if seconds < 90:
        return words("time.seconds", n=max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 60:
        return words("time.minutes", n=minutes)
    hours, rest = divmod(minutes, 60)
    if hours >= 48:
        return words("time.days", n=round(hours / 24))
    return words("time.hours_minutes", h=hours, m=rest) if rest else words("time.hours", n=hours)


def size(count: float) -> str:
    """Bytes as GB or MB (powers of 1000 are for disks; memory is counted in 1024s here)."""
    gib = count / 2**30
    return f"{gib:.1f} GB" if gib >= 1 else f"{count / 2**20:.0f} MB"
