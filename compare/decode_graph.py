"""Ways to run the forward of a decode step: as it comes, or recorded once per shape and replayed.

Covers: CUDA graphs, which spare the thousands of launches of a step; falling back when a model cannot be recorded.
Does not cover: what a step computes (decode.py), nor prefill, which is never recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)

Forward = Callable[[], torch.Tensor]
Recorded = tuple[Callable[[], object], torch.Tensor]
Shape = tuple[int, int, int]


class EagerSteps:
    """Every step is computed as it comes."""

    ahead = False

    def run(self, shape: Shape, forward: Forward) -> torch.Tensor:
        """What ``forward`` returns. ``shape``: first row, end of rows, slots in sight; all that Python knows of it."""
        return forward()

    def forget(self) -> None:
        """The tensors that ``forward`` works on have moved."""


class GraphSteps(EagerSteps):
    """CUDA graphs by shape, all in one memory pool. The tensor returned is overwritten by the next step.

    ``ahead`` is True as long as steps are replayed: they cost no time on the host, so that it may launch a step before
    it looks at the tokens of the one before.
    """

    def __init__(self) -> None:
        self.ahead = True
        self._recorded: dict[Shape, Recorded] = {}
        self._pool: tuple[int, int] | None = None

    def run(self, shape: Shape, forward: Forward) -> torch.Tensor:
        if not self.ahead:
            return forward()
        if shape not in self._recorded:
            try:
                self._recorded[shape] = self._record(forward)
            except Exception as error:  # a fault of the model's own comes again from the call below
                log.warning("decode steps are not recorded: %s: %s", type(error).__name__, error)
                self.ahead = False
                self.forget()
                return forward()
        replay, result = self._recorded[shape]
        replay()
        return result

    def forget(self) -> None:
        self._recorded.clear()
        self._pool = None  # an identifier whose graphs are all gone must not be used again

    def _record(self, forward: Forward) -> Recorded:
        """Run ``forward`` once to set up kernels and libraries, then record it. Both write the same cache slots."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            forward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = forward()
        self._pool = graph.pool()
        return graph.replay, result


def steps_for(device: torch.device) -> EagerSteps:
    return GraphSteps() if device.type == "cuda" else EagerSteps()


def fetch(tokens: torch.Tensor) -> Callable[[], list[int]]:
    """Start the copy of ``tokens`` to the host; the returned call waits for it alone, not for later work."""
    if not tokens.is_cuda:
        values: list[int] = tokens.flatten().tolist()
        return lambda: values
    host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
    host.copy_(tokens, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> list[int]:
        copied.synchronize()
        result: list[int] = host.flatten().tolist()
        return result

    return wait
