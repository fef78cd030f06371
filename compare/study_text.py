"""Plain data with any text in it, in a form that UTF-8 files and YAML can carry.

Covers: tuples to lists, lone surrogates and control characters both ways. Does not cover: what the data mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compare.csv_store import escape, unescape


def plain(value: Any) -> Any:
    """The value with lists for tuples and ``escape``d text."""
    return _walk(value, escape)


def restored(value: Any) -> Any:
    """``plain`` undone, but for the tuples."""
    return _walk(value, unescape)


def _walk(value: Any, text: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {key: _walk(part, text) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(part, text) for part in value]
    return value
