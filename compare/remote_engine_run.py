"""Coroutines behind a plain iterator, for callers that know nothing of asyncio.

Covers: a thread with a loop of its own, events in the order in which they are said, ending everything at once. Does not
cover: what the coroutines do.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Job = Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class _End:
    """Nothing more comes; ``error`` is what a job raised."""

    error: BaseException | None = None


class Run(Generic[T]):
    """Jobs side by side, none waits for another. One use; ``cancel`` from any thread and at any time."""

    def __init__(self, jobs: Sequence[Job[T]]) -> None:
        self._jobs = jobs
        self._said: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._cancelled = False

    def events(self) -> Iterator[T]:
        """What the jobs say, until all have ended. What one of them raises is raised here. Closing early cancels."""
        thread = threading.Thread(target=self._work, name="remote-answers", daemon=True)
        thread.start()
        try:
            while not isinstance(event := self._said.get(), _End):
                yield event
            if event.error is not None:
                raise event.error
        finally:
            self.cancel()
            thread.join()

    def cancel(self) -> None:
        """Jobs that have not begun never do; the others get asyncio.CancelledError where they wait."""
        with self._guard:
            self._cancelled = True
            if self._loop is not None:
                for task in self._tasks:
                    self._loop.call_soon_threadsafe(task.cancel)

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                error = runner.run(self._together())
        except BaseException as unexpected:
            error = unexpected
        finally:
            self._said.put(_End(error))

    async def _together(self) -> BaseException | None:
        with self._guard:
            if self._cancelled:
                return None
            self._loop = asyncio.get_running_loop()
            self._tasks = [asyncio.create_task(job(self._said.put)) for job in self._jobs]
        try:
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            with self._guard:
                self._loop = None
        errors = (e for e in ended if isinstance(e, BaseException) and not isinstance(e, asyncio.CancelledError))
        return next(errors, None)
