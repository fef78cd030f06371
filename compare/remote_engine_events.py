"""Bytes of a server to events, and pieces of text to whole letters.

Covers: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html, the data fields only), halves
of surrogate pairs and single jamo that servers send in two pieces. Does not cover: what the events say
(remote_engine_call.py).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

LIMIT = 4 << 20
# Conjoining jamo make one syllable together (NFD text); half of a surrogate pair is no letter yet.
_HELD = re.compile("(?:[\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]+|[\ud800-\udbff])$")


class TooLong(Exception):
    """An event longer than LIMIT."""


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The data of each event. Lines end in LF or CR LF; an event that the end of the stream cuts off is dropped.

    A first line that begins like HTML is given as it is, so that it can be told from silence.
    """
    rest, data, fresh, size = b"", [], True, 0
    async for chunk in chunks:
        rest += chunk
        *lines, rest = rest.split(b"\n")
        if len(rest) > LIMIT:
            raise TooLong
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if fresh and line.strip():
                fresh = False
                if line.lstrip().startswith((b"<", b"{")):
                    yield line.decode("utf-8", "replace")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
                size += len(line)
                if size > LIMIT:
                    raise TooLong
            elif not line and data:
                yield b"\n".join(data).decode("utf-8", "replace")
                data, size = [], 0
    if fresh and rest.lstrip().startswith((b"<", b"{")):
        yield rest.decode("utf-8", "replace")


class Whole:
    """Pieces in, the same text out, never ending in half a letter. What never becomes one is shown as U+FFFD."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """The text that is whole by now."""
        text = self._held + text
        found = _HELD.search(text)
        self._held = found[0] if found else ""
        return _paired(text[: found.start()] if found else text)

    def flush(self) -> str:
        """What is still held back. Call it once, at the end."""
        text, self._held = self._held, ""
        return _paired(text)


def _paired(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
