"""What the server remembers of each open page, and for how long.

Covers: how many pages at most, letting go of closed ones, leaving out what only deep links need. Does not cover: what is
in a page's state (compare/session.py).

Gradio keeps a copy of every component's settings for each page that was ever opened, two megabytes of it here, up to
10,000 pages: whoever opens pages in a loop would fill the memory. Deep links, which need that copy, are closed (gate.py).
"""

from __future__ import annotations

import time
from copy import copy
from typing import Any

from gradio.state_holder import SessionState, StateHolder

PAGES = 500
STAYS = 1800.0  # seconds after which a closed page is forgotten: a laptop may sleep, a tunnel end
_SILENT = 6  # times as long for one that says nothing though nobody saw it close; an open page speaks every few seconds


class PageState(SessionState):  # type: ignore[misc]
    """Gradio's, without the copy of the components' settings; making that took longer than most events, too."""

    def __init__(self, blocks: Any) -> None:
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = STAYS

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values.pop(key, None)

    def _update_config(self, key: int) -> None:
        """Nobody reads it."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Nobody reads it."""


class Sessions(StateHolder):  # type: ignore[misc]
    """``stays``: seconds; the oldest closed pages go first, then those that nothing was heard of for longest."""

    def __init__(self, blocks: Any, pages: int = PAGES, stays: float = STAYS) -> None:
        super().__init__()
        self.set_blocks(blocks)
        self.capacity = pages
        self.stays = stays

    def __getitem__(self, session_id: str) -> Any:
        if session_id not in self.session_data:
            self.session_data[session_id] = PageState(self.blocks)
        found = super().__getitem__(session_id)
        found.is_closed = False
        return found

    def delete_all_expired_state(self) -> None:
        """Gradio calls this every second."""
        super().delete_all_expired_state()
        for session_id, state in list(self.session_data.items()):
            heard = self.time_last_used.get(session_id)
            stays = self.stays if state.is_closed else _SILENT * self.stays
            if heard is not None and time.time() - heard.timestamp() > stays:  # None: begun this very moment
                self.delete_state(session_id)
                self.session_data.pop(session_id, None)
                self.time_last_used.pop(session_id, None)
