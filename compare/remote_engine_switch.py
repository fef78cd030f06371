"""One engine out of two: sides that are addresses answer elsewhere, all others here.

Covers: which side goes where, both kinds of answers interleaved as they come, one record of what is loaded. Does not
cover: either engine.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from assets.errors import UserError
from compare.engine import Changes, ChangesAsked, Delta, Done, Engine, Loaded, LoadSpec, Message, Phase, Sampling
from compare.remote_engine_address import is_remote

Event = Delta | Done
TICK = 0.2


class EngineSwitch:
    """``here`` for folders and Hub ids, ``elsewhere`` for addresses. Thread-safe as both of them are."""

    def __init__(self, here: Engine, elsewhere: Engine) -> None:
        self._here, self._elsewhere = here, elsewhere
        self._far: frozenset[str] = frozenset()
        self._loaded: Loaded | None = None
        self._cancelled = threading.Event()

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        """Servers are asked first: they are quick, and what is wrong with them is known before anything is read."""
        self._loaded = None
        self._far = frozenset(arm.key for arm in spec.arms if is_remote(arm.base))
        far, near = self._part(spec, far=True), self._part(spec, far=False)
        there: Loaded | None = None
        here: Loaded | None = None
        if far is None:
            self._elsewhere.unload()
        else:
            there = yield from _loading(self._elsewhere.load(far), quiet=near is not None)
        if near is None:
            self._here.unload()
        else:
            here = yield from _loading(self._here.load(near))
        self._loaded = _joined(here, there, spec)
        yield self._loaded

    def stream(self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling) -> Iterator[Event]:
        """See Engine. A UserError of the side that is here may come when the other one has begun to answer."""
        if self._loaded is None:
            raise UserError("engine.not_loaded")
        self._cancelled = threading.Event()
        far = {arm: said for arm, said in turns.items() if arm in self._far}
        near = {arm: said for arm, said in turns.items() if arm not in self._far}
        if not far or not near:
            return (self._elsewhere if far else self._here).stream(turns, system, sampling)
        sides = [partial(self._here.stream, near), partial(self._elsewhere.stream, far)]
        return _side_by_side([partial(side, system, sampling) for side in sides], self._cancel_both, self._cancelled)

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        """UserError("engine.not_comparable") when a side answers elsewhere."""
        if self._far & {asked.base, asked.tuned}:
            raise UserError("engine.not_comparable")
        return self._here.changes(asked)

    def cancel(self) -> None:
        self._cancelled.set()
        self._cancel_both()

    def rest(self) -> None:
        self._here.rest()

    def unload(self) -> None:
        self._loaded, self._far = None, frozenset()
        self._here.unload()
        self._elsewhere.unload()

    def _part(self, spec: LoadSpec, far: bool) -> LoadSpec | None:
        arms = tuple(arm for arm in spec.arms if (arm.key in self._far) == far)
        return replace(spec, arms=arms) if arms else None

    def _cancel_both(self) -> None:
        self._here.cancel()
        self._elsewhere.cancel()


def _loading(events: Iterator[Phase | Loaded], quiet: bool = False) -> Generator[Phase, None, Loaded | None]:
    """The phases, or only the first of them; returns what was loaded."""
    loaded: Loaded | None = None
    for number, event in enumerate(events):
        if isinstance(event, Loaded):
            loaded = event
        elif not quiet or number == 0:
            yield event
    return loaded


def _joined(here: Loaded | None, there: Loaded | None, spec: LoadSpec) -> Loaded:
    """One record. The pane check is that of the side that is here; the other one stays unproven."""
    first = here or there
    if first is None:
        raise UserError("engine.load_cancelled")
    if here is None or there is None:
        return first
    infos = {**here.arms, **there.arms}
    return replace(here, device=f"{here.device}+{there.device}", arms={arm.key: infos[arm.key] for arm in spec.arms})


@dataclass(frozen=True)
class _Ended:
    """A side says nothing more; ``error`` is what it raised."""

    error: BaseException | None = None


def _side_by_side(
    sides: Sequence[Callable[[], Iterator[Event]]], cancel: Callable[[], None], cancelled: threading.Event
) -> Iterator[Event]:
    """Events as they come, each side in a thread of its own. Closing early, or an error of one, cancels all."""
    said: queue.SimpleQueue[Event | _Ended] = queue.SimpleQueue()
    runs = [partial(contextvars.copy_context().run, _pump, side, said) for side in sides]  # in the name of who asked
    threads = [threading.Thread(target=run, name="side", daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    left = len(threads)
    try:
        while left:
            try:
                event = said.get(timeout=TICK)
            except queue.Empty:
                if cancelled.is_set():
                    cancel()  # once more: a side that had not begun yet has not heard it
                continue
            if not isinstance(event, _Ended):
                yield event
                continue
            left -= 1
            if event.error is not None:
                raise event.error
    finally:
        while any(thread.is_alive() for thread in threads):
            if left:
                cancel()
            for thread in threads:
                thread.join(TICK)


def _pump(side: Callable[[], Iterator[Event]], said: queue.SimpleQueue[Event | _Ended]) -> None:
    try:
        for event in side():
            said.put(event)
    except BaseException as error:
        said.put(_Ended(error))
    else:
        said.put(_Ended())
