"""The one engine and the people who share it: which pair is loaded, who loads, who answers next.

Covers: loading in the background so that a reload of the page costs nothing, a fair line with places, cancelling one's
own answer only. Does not cover: the engine (engine.py), a visitor's comparison (session.py).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from assets.errors import UserError
from compare.engine import Arm, Delta, Done, Engine, Loaded, LoadSpec, Message, Phase, Sampling

log = logging.getLogger(__name__)
KEYS = ("a", "b")
TICK = 0.25


@dataclass(frozen=True)
class Candidate:
    """Something that can answer. ``model`` is the identity a rating records, ``name`` what people read.

    ``base`` is a folder or Hub id, ``adapter`` a folder or nothing, ``template`` a Jinja text of its own, ``system``
    the system prompt it was trained with. ``names`` are other names an answer might let slip.
    """

    model: str
    name: str
    base: str
    adapter: str | None = None
    system: str = ""
    template: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two candidates as loaded; the first one is always ``model_a``."""

    id: str
    candidates: tuple[Candidate, Candidate]
    loaded: Loaded

    @property
    def system(self) -> str:
        """The system prompt to start from: the tuned side's own."""
        return next((c.system for c in reversed(self.candidates) if c.system), "")

    def kind(self, index: int) -> str:
        """ "tuned", "base" for the untuned model under the other side, or ""."""
        this, other = self.candidates[index], self.candidates[1 - index]
        if this.adapter is not None:
            return "tuned"
        return "base" if other.adapter is not None and other.base == this.base else ""

    @property
    def same(self) -> bool:
        first, second = self.candidates
        return (first.base, first.adapter) == (second.base, second.adapter)


@dataclass(frozen=True)
class Waiting:
    """``place`` others come first."""

    place: int


@dataclass(eq=False)
class Ticket:
    """A place in the line. ``cancelled`` once its owner does not want it any more."""

    cancelled: bool = False


@dataclass(frozen=True)
class Loading:
    """How far loading is. ``error`` is what ended it, a UserError or anything unexpected; None when it went well."""

    candidates: tuple[Candidate, Candidate]
    ticket: Ticket
    phase: Phase = Phase("engine.phase.start")
    ended: bool = False
    error: Exception | None = None


@dataclass
class Desk:
    """Thread-safe. ``pair`` is what answers now."""

    engine: Engine
    pair: Pair | None = None
    loading: Loading | None = None
    _line: list[Ticket] = field(default_factory=list)
    _moved: threading.Condition = field(default_factory=threading.Condition)

    def load(self, first: Candidate, second: Candidate) -> None:
        """Begin to load, in the background. UserError("compare.loading_already") while something else loads."""
        with self._moved:
            if self.loading is not None and not self.loading.ended:
                raise UserError("compare.loading_already")
            self.pair = None
            self.loading = Loading((first, second), Ticket())
        threading.Thread(target=self._load, args=(self.loading,), name="load-pair", daemon=True).start()

    def follow(self) -> Iterator[Loading]:
        """What loading does, about four times a second, until it has ended."""
        while (now := self.loading) is not None:
            yield now
            if now.ended:
                return
            with self._moved:
                self._moved.wait(TICK)

    def cancel_loading(self) -> None:
        if self.loading is not None and not self.loading.ended:
            self.cancel(self.loading.ticket)

    def unload(self) -> None:
        """Give the memory back. Running answers end as cancelled."""
        with self._moved:
            self.pair = self.loading = None
        self.engine.unload()

    def answers(
        self, pair: Pair, ticket: Ticket, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Generator[Waiting | Delta | Done, None, None]:
        """Wait for one's turn, then the engine's events. A cancelled ticket ends as Done("cancelled") for every arm.

        UserError("compare.pair_changed") when something else than ``pair`` has been loaded meanwhile.
        """
        with self._turn(ticket) as waiting:
            yield from waiting
            if self.pair is not pair:
                raise UserError("compare.pair_changed")
            if ticket.cancelled:
                yield from (Done(arm, "cancelled") for arm in turns)
            else:
                yield from self.engine.stream(turns, system, sampling)

    def cancel(self, ticket: Ticket) -> None:
        """Give up one's place, or end one's own running answer or loading."""
        with self._moved:
            ticket.cancelled = True
            running = bool(self._line) and self._line[0] is ticket
            self._moved.notify_all()
        if running:
            self.engine.cancel()

    @contextmanager
    def _turn(self, ticket: Ticket) -> Iterator[Iterator[Waiting]]:
        with self._moved:
            self._line.append(ticket)
        try:
            yield self._wait(ticket)
        finally:
            with self._moved:
                self._line.remove(ticket)
                self._moved.notify_all()

    def _wait(self, ticket: Ticket) -> Iterator[Waiting]:
        """Until the ticket is the first in the line or cancelled: its place at once, at every move and every TICK."""
        while (place := self._line.index(ticket)) and not ticket.cancelled:
            yield Waiting(place)
            with self._moved:
                self._moved.wait(TICK)

    def _load(self, loading: Loading) -> None:
        error: Exception | None = None
        pair: Pair | None = None
        try:
            with self._turn(loading.ticket) as waiting:
                for _ in waiting:
                    pass
                pair = self._read(loading)
        except UserError as known:
            error = known
        except Exception as unexpected:
            log.exception("loading failed")
            error = unexpected
        with self._moved:
            if self.loading is not None and self.loading.ticket is loading.ticket:
                self.pair = pair
                self.loading = replace(self.loading, ended=True, error=error)
            self._moved.notify_all()

    def _read(self, loading: Loading) -> Pair:
        if loading.ticket.cancelled:
            raise UserError("engine.load_cancelled")
        sides = tuple(zip(KEYS, loading.candidates, strict=True))
        arms = tuple(Arm(key, side.base, side.adapter) for key, side in sides)
        templates = {key: side.template for key, side in sides if side.template}
        loaded: Loaded | None = None
        for event in self.engine.load(LoadSpec(arms, templates=templates)):
            if isinstance(event, Loaded):
                loaded = event  # go on to the end: an engine takes an iterator that is dropped for a cancellation
                continue
            with self._moved:
                if self.loading is not None and self.loading.ticket is loading.ticket:
                    self.loading = replace(self.loading, phase=event)
                self._moved.notify_all()
        if loaded is None:
            raise UserError("engine.load_cancelled")
        return Pair(secrets.token_hex(8), loading.candidates, loaded)
