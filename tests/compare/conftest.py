"""Fixtures for tests that build pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture
def one_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """gr.Blocks makes an event loop outside of any and never closes it; here all of them are one that is closed."""
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)
