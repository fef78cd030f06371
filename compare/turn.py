"""One request at a time to an engine that has one model loaded.

Covers: waiting for the turn, and giving up after ten minutes. Does not cover: the line in front of it (line.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from assets.errors import UserError

PATIENCE = 600.0  # seconds


@contextmanager
def turn(busy: threading.Lock) -> Iterator[None]:
    """Hold ``busy``. UserError("engine.busy") when it does not come free in time."""
    if not busy.acquire(timeout=PATIENCE):
        raise UserError("engine.busy")
    try:
        yield
    finally:
        busy.release()
