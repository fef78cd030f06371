"""The fair line in front of the engine.

Covers: places, rounds, giving up a place. Does not cover: what is done at the front of it (desk.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TICK = 0.25


@dataclass(frozen=True)
class Waiting:
    """``place`` others come first."""

    place: int


@dataclass(eq=False)
class Ticket:
    """A place in the line. ``cancelled`` once its owner does not want it any more.

    ``owner`` is the visitor: whoever holds several tickets shares a visitor's one turn per round among them.
    """

    cancelled: bool = False
    owner: str = ""


@dataclass
class Line:
    """Thread-safe. ``moved`` is told whenever somebody comes, goes or gives up; others may tell it more."""

    moved: threading.Condition = field(default_factory=threading.Condition)
    _tickets: list[Ticket] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self._tickets

    @contextmanager
    def turn(self, ticket: Ticket) -> Iterator[Iterator[Waiting]]:
        """A place in the line, left at the end. Inside, go through what it yields; then it is one's turn."""
        with self.moved:
            self._tickets.insert(self._place_for(ticket), ticket)
        try:
            yield self._wait(ticket)
        finally:
            with self.moved:
                self._tickets.remove(ticket)
                self.moved.notify_all()

    def give_up(self, ticket: Ticket) -> bool:
        """Mark the ticket as not wanted. True when it stands in front: what runs for it has to be ended as well."""
        with self.moved:
            ticket.cancelled = True
            self.moved.notify_all()
            return bool(self._tickets) and self._tickets[0] is ticket

    def _place_for(self, ticket: Ticket) -> int:
        """Behind everybody's tickets of the same round: a visitor's second one comes after the others' first ones."""
        own = sum(1 for other in self._tickets if ticket.owner and other.owner == ticket.owner)
        rounds: dict[object, int] = {}
        for place, other in enumerate(self._tickets):
            key = other.owner or id(other)
            if place and rounds.get(key, 0) > own:
                return place
            rounds[key] = rounds.get(key, 0) + 1
        return len(self._tickets)

    def _wait(self, ticket: Ticket) -> Iterator[Waiting]:
        """Until the ticket is the first in the line or cancelled: its place at once, at every move and every TICK."""
        while (place := self._tickets.index(ticket)) and not ticket.cancelled:
            yield Waiting(place)
            with self.moved:
                self.moved.wait(TICK)
