"""The one engine and the people who share it: which pair is loaded, who loads, who answers next.

Covers: loading in the background so that a reload of the page costs nothing, waiting for a GPU that trains, one answer
at a time, cancelling one's own only, giving memory back when nobody asks. Does not cover: the engine (engine.py), the
places (line.py), a visitor's comparison (session.py).
"""

from __future__ import annotations

import contextvars
import logging
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from assets.errors import UserError
from compare.engine import (
    REMOTE,
    Arm,
    Changes,
    ChangesAsked,
    Delta,
    Done,
    Engine,
    Loaded,
    LoadSpec,
    Message,
    Phase,
    Sampling,
)
from compare.line import TICK, Line, Ticket, Waiting
from compare.machine import Machine, Taken
from compare.remote_engine_address import is_remote

__all__ = ["IDLE", "KEYS", "TICK", "Candidate", "Desk", "Loading", "Pair", "Ticket", "Waiting"]

log = logging.getLogger(__name__)
KEYS = ("a", "b")
IDLE = 20 * 60.0


@dataclass(frozen=True)
class Candidate:
    """Something that can answer. ``model`` is the identity a rating records, ``name`` what people read.

    ``base`` is a folder or Hub id, ``adapter`` a folder or nothing, ``template`` a Jinja text of its own, ``system``
    the system prompt it was trained with. ``names`` are other names an answer might let slip. ``tuned_from`` is what a
    model was before a run here trained all of it.
    """

    model: str
    name: str
    base: str
    adapter: str | None = None
    system: str = ""
    template: str | None = None
    names: tuple[str, ...] = ()
    tuned_from: str = ""

    @property
    def origin(self) -> str:
        """The untuned model that it comes from, or is."""
        return self.tuned_from or self.base

    @property
    def tuned(self) -> bool:
        return self.adapter is not None or bool(self.tuned_from)


@dataclass(frozen=True)
class Pair:
    """Two candidates as loaded; the first one is always ``model_a``. ``together`` False: one in memory at a time."""

    id: str
    candidates: tuple[Candidate, Candidate]
    loaded: Loaded
    together: bool = True

    @property
    def system(self) -> str:
        """The system prompt to start from: the tuned side's own."""
        return next((c.system for c in reversed(self.candidates) if c.system), "")

    def kind(self, index: int) -> str:
        """ "tuned", "base" for the untuned model under the other side, or ""."""
        this, other = self.candidates[index], self.candidates[1 - index]
        if this.tuned:
            return "tuned"
        return "base" if other.tuned and other.origin == this.origin else ""

    @property
    def same(self) -> bool:
        first, second = self.candidates
        return (first.base, first.adapter) == (second.base, second.adapter)


@dataclass(frozen=True)
class Loading:
    """How far loading is. ``error`` is what ended it, a UserError or anything unexpected; None when it went well.

    ``taken`` is the job whose GPU it waits for; ``cards``: how many GPUs it probably needs.
    """

    candidates: tuple[Candidate, Candidate]
    ticket: Ticket
    together: bool = True
    taken: Taken | None = None
    cards: int = 1
    phase: Phase = Phase("engine.phase.start")
    ended: bool = False
    error: Exception | None = None


@dataclass
class Desk:
    """Thread-safe. ``pair`` is what answers now; ``resting`` while its memory is given back until the next question.

    ``idle``: seconds without a question after which it rests; 0 for never.
    """

    engine: Engine
    machine: Machine | None = None
    idle: float = IDLE
    pair: Pair | None = None
    loading: Loading | None = None
    resting: bool = False
    _line: Line = field(default_factory=Line)
    _timer: threading.Timer | None = None

    def load(self, first: Candidate, second: Candidate, together: bool = True, cards: int = 1) -> None:
        """Begin to load, in the background, once so many GPUs are free. UserError("compare.loading_already") while
        another pair loads."""
        with self._line.moved:
            if self.loading is not None and not self.loading.ended:
                raise UserError("compare.loading_already")
            self.pair, self.resting = None, False
            self.loading = Loading((first, second), Ticket(), together, cards=cards)
        context = contextvars.copy_context()  # who asks: on ZeroGPU it is their time that loading takes
        run = partial(context.run, self._load, self.loading)
        threading.Thread(target=run, name="load-pair", daemon=True).start()

    def follow(self) -> Iterator[Loading]:
        """What loading does, about four times a second, until it has ended."""
        while (now := self.loading) is not None:
            yield now
            if now.ended:
                return
            with self._line.moved:
                self._line.moved.wait(TICK)

    def cancel_loading(self) -> None:
        if self.loading is not None and not self.loading.ended:
            self.cancel(self.loading.ticket)

    def unload(self) -> None:
        """Give the memory back. Running answers end as cancelled."""
        with self._line.moved:
            if self.loading is not None:
                self.loading.ticket.cancelled = True
            self.pair = self.loading = None
            self.resting = False
            self._line.moved.notify_all()
        self.engine.unload()
        self._freed()

    def answers(
        self, pair: Pair, ticket: Ticket, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Generator[Waiting | Delta | Done, None, None]:
        """Wait for one's turn, then the engine's events. A cancelled ticket ends as Done("cancelled") for every arm.

        UserError("compare.pair_changed") when something else than ``pair`` has been loaded meanwhile.
        """
        with self._turn(ticket) as waiting:
            yield from waiting
            self._check(pair)
            if ticket.cancelled:
                yield from (Done(arm, "cancelled") for arm in turns)
            else:
                yield from self.engine.stream(turns, system, sampling)

    def changes(self, pair: Pair, ticket: Ticket, asked: ChangesAsked) -> Changes | None:
        """Wait for one's turn, then what tuning changed in an answer; None when the ticket was cancelled."""
        with self._turn(ticket) as waiting:
            for _ in waiting:
                pass
            self._check(pair)
            return None if ticket.cancelled else next(iter(list(self.engine.changes(asked))), None)

    def cancel(self, ticket: Ticket) -> None:
        """Give up one's place, or end one's own running answer or loading."""
        if self._line.give_up(ticket):
            self.engine.cancel()

    def close(self) -> None:
        """No more timers: for tests and the end of the program."""
        self.idle = 0
        self._restart_clock()

    def _check(self, pair: Pair) -> None:
        if self.pair is not pair:
            raise UserError("compare.pair_changed")
        self.resting = False

    @contextmanager
    def _turn(self, ticket: Ticket) -> Iterator[Iterator[Waiting]]:
        """A turn after which the time without a question begins anew."""
        try:
            with self._line.turn(ticket) as waiting:
                yield waiting
        finally:
            self._restart_clock()

    def _restart_clock(self) -> None:
        with self._line.moved:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self.idle, self._rest) if self.idle else None
            if self._timer is not None:
                self._timer.daemon = True
                self._timer.start()

    def _rest(self) -> None:
        """Nobody has asked for a while. Whoever asks in this moment waits for the end of it and loads again."""
        if not self._line.empty or self.pair is None or self.resting or self.pair.loaded.device == REMOTE:
            return
        with self._line.turn(Ticket()) as waiting:
            for _ in waiting:
                return
            self.resting = True
            self.engine.rest()
        self._freed()

    def _freed(self) -> None:
        if self.machine is not None:
            self.machine.freed()

    def _load(self, loading: Loading) -> None:
        error: Exception | None = None
        pair: Pair | None = None
        try:
            with self._turn(loading.ticket) as waiting:
                for _ in waiting:
                    pass
                pair = self._read_when_free(loading)
        except UserError as known:
            error = known
        except Exception as unexpected:
            log.exception("loading failed")
            error = unexpected
        with self._line.moved:
            if self.loading is not None and self.loading.ticket is loading.ticket:
                self.pair = pair
                self.loading = replace(self.loading, ended=True, error=error)
            self._line.moved.notify_all()

    def _read_when_free(self, loading: Loading) -> Pair:
        """Load as soon as jobs leave GPUs enough; one that takes them in between is waited for as well."""
        here = not all(is_remote(side.base) for side in loading.candidates)
        devices = [card.device for card in self.machine.cards()] if self.machine is not None and here else []
        while True:
            while (taken := self._holding(devices, loading.cards)) and not loading.ticket.cancelled:
                self._show(loading, taken=taken)
                with self._line.moved:
                    self._line.moved.wait(4 * TICK)
            self._show(loading, taken=None)
            try:
                return self._read(loading)
            except UserError as error:
                if error.key != "engine.gpu_busy" or not devices:
                    raise
            time.sleep(TICK)

    def _holding(self, devices: Sequence[str], cards: int) -> Taken | None:
        return self.machine.taken(devices, min(cards, len(devices))) if self.machine is not None else None

    def _read(self, loading: Loading) -> Pair:
        if loading.ticket.cancelled:
            raise UserError("engine.load_cancelled")
        sides = tuple(zip(KEYS, loading.candidates, strict=True))
        arms = tuple(Arm(key, side.base, side.adapter) for key, side in sides)
        templates = {key: side.template for key, side in sides if side.template}
        loaded: Loaded | None = None
        for event in self.engine.load(LoadSpec(arms, templates=templates, together=loading.together)):
            if isinstance(event, Loaded):
                loaded = event  # go on to the end: an engine takes an iterator that is dropped for a cancellation
                continue
            self._show(loading, phase=event)
        if loaded is None:
            raise UserError("engine.load_cancelled")
        return Pair(secrets.token_hex(8), loading.candidates, loaded, loading.together)

    def _show(self, loading: Loading, **news: Any) -> None:
        """Tell those who follow; nothing when another loading has taken the place of this one."""
        with self._line.moved:
            if self.loading is not None and self.loading.ticket is loading.ticket:
                self.loading = replace(self.loading, **news)
            self._line.moved.notify_all()
