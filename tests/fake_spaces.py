"""ZeroGPU's `spaces` package without a GPU: calls in forks, arguments and results as pickles.

Written after the source of `spaces` 0.51.3 (zero/wrappers.py, zero/client.py): a generator is run by a fork of this
process, which waits for the next call while the GPU stays lent; a fork that failed is not used again; of an exception its
class's name arrives, in a gradio error; closing early stops the fork at its next value. Does not cover: CUDA, its
emulation, and who has how much quota; ``refuse`` is what scheduling raises.
"""

from __future__ import annotations

import inspect
import multiprocessing
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

fork = multiprocessing.get_context("fork")


def error(title: str, message: str) -> gr.Error:
    """As the package raises them."""
    return gr.Error(message, title=title, print_exception=False)


class _Worker:
    """A fork, and the pipes to it."""

    def __init__(self, task: Callable[..., Any]) -> None:
        self.arguments, self.results = fork.SimpleQueue(), fork.SimpleQueue()
        self.stop = fork.Event()
        self.process = fork.Process(target=self._serve, args=(task,), daemon=True)
        self.process.start()
        threading.Thread(target=self._mourn, daemon=True).start()

    def _mourn(self) -> None:
        self.process.join()
        self.results.put(None)

    def _serve(self, task: Callable[..., Any]) -> None:
        while True:
            arguments = self.arguments.get()
            self.stop.clear()
            thread = threading.Thread(target=self._iterate, args=(task, arguments))
            thread.start()
            thread.join()
            self.results.put(("end", None))

    def _iterate(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        values = task(*arguments)
        while True:
            try:
                value = next(values)
            except StopIteration:
                return
            except Exception as failure:
                self.results.put(("failed", type(failure).__name__))
                return
            if self.stop.is_set():
                values.close()
                return
            self.results.put(("value", value))


@dataclass
class FakeSpaces:
    """``idle``: the GPU stays lent between calls. ``asked``: the seconds of every call."""

    idle: bool = False
    refuse: Exception | None = None
    asked: list[int] = field(default_factory=list)
    forks: int = 0
    decorated: int = 0
    _kept: list[_Worker] = field(default_factory=list)

    def GPU(self, duration: Callable[..., int]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(task: Callable[..., Any]) -> Callable[..., Any]:
            assert inspect.isgeneratorfunction(task)
            self.decorated += 1

            def call(*arguments: Any) -> Generator[Any, None, None]:
                self.asked.append(duration(*arguments))
                if self.refuse is not None:
                    raise self.refuse
                worker = self._kept.pop() if self._kept else None
                if worker is None or not worker.process.is_alive() or not self.idle:
                    worker, self.forks = _Worker(task), self.forks + 1
                worker.arguments.put(arguments)
                yield from self._values(worker)

            return call

        return decorate

    def _values(self, worker: _Worker) -> Generator[Any, None, None]:
        while True:
            result = worker.results.get()
            if result is None:
                raise error("ZeroGPU worker error", "GPU task aborted")
            kind, value = result
            if kind == "end":
                self._kept.append(worker)
                return
            if kind == "failed":
                raise error("ZeroGPU worker error", value)
            try:
                yield value
            except GeneratorExit:
                worker.stop.set()
                self._drain(worker)
                raise

    def _drain(self, worker: _Worker) -> None:
        """The package waits for the fork here, too."""
        while (result := worker.results.get()) is not None and result[0] == "value":
            pass
        if result is not None and result[0] == "end":
            self._kept.append(worker)
