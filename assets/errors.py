"""The one exception whose text a person reads.

Covers: a message key in assets/strings and the values to fill in. Does not cover: programming errors, which stay what
they are and reach the log with their traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Something a person can act on. ``key`` names a sentence in assets/strings; ``values`` fill its placeholders."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(f"{key} {values}" if values else key)
        self.key = key
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.key, self.values))


def _rebuild(key: str, values: dict[str, object]) -> UserError:
    return UserError(key, **values)
