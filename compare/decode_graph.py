"""Ways to run the forward of a decode step: as it comes, or recorded once per shape and replayed.

Covers: CUDA graphs, which spare the thousands of launches of a step; those of pieces of prompt that come in the same
shape again; falling back when a model cannot be recorded. Does not cover: what a step computes (decode.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from compare.decode_streams import side_stream

log = logging.getLogger(__name__)

Forward = Callable[[], torch.Tensor]
Recorded = tuple[Callable[[], object], torch.Tensor]
Shape = tuple[int, ...]
READ = 64  # pieces of prompt are padded to whole multiples, so that shapes come again
MOST_READS = 32


class EagerSteps:
    """Every step is computed as it comes."""

    ahead = False

    def run(self, shape: Shape, forward: Forward) -> torch.Tensor:
        """What ``forward`` returns. ``shape``: first row, end of rows, slots in sight; all that Python knows of it."""
        return forward()

    def read(self, shape: Shape, forward: Callable[[], None]) -> None:
        """Take in a piece of prompt. ``shape``: as for a step, then the tokens per row."""
        forward()

    def width(self, tokens: int) -> int:
        """How many tokens a piece of ``tokens`` is padded to."""
        return tokens

    def forget(self) -> None:
        """The tensors that ``forward`` works on have moved."""


class GraphSteps(EagerSteps):
    """CUDA graphs by shape, all in one memory pool. The tensor returned is overwritten by the next step.

    ``ahead`` is True as long as steps are replayed: they cost no time on the host, so that it may launch a step before
    it looks at the tokens of the one before.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """``device``: where everything that is recorded lies; the current one by default."""
        self._device: torch.device | int = -1 if device is None else device
        self.ahead = True
        self._recorded: dict[Shape, Recorded] = {}
        self._reads: dict[Shape, Callable[[], object]] = {}
        self._met: set[Shape] = set()
        self._records_reads = True
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

    def read(self, shape: Shape, forward: Callable[[], None]) -> None:
        """Recorded when a shape is met for the second time, as recording takes as long as computing."""
        if shape not in self._reads:
            if not self._records_reads or shape not in self._met or len(self._reads) == MOST_READS:
                self._met.add(shape)
                return forward()
            try:
                self._reads[shape] = self._record_read(forward)
            except Exception as error:  # a fault of the model's own comes again from the call below
                log.warning("prompts are not recorded: %s: %s", type(error).__name__, error)
                self._records_reads = False
                return forward()
        self._reads[shape]()
        return None

    def width(self, tokens: int) -> int:
        return -(-tokens // READ) * READ

    def forget(self) -> None:
        self._recorded.clear()
        self._reads.clear()
        self._met.clear()  # a piece that makes the cache's tensors must not be recorded
        self._pool = None  # an identifier whose graphs are all gone must not be used again

    def _record(self, forward: Forward) -> Recorded:
        """Run ``forward`` once to set up kernels and libraries, then record it. Both write the same cache slots."""
        with torch.cuda.device(self._device):
            side = side_stream(torch.device("cuda", torch.cuda.current_device()), "record")
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                forward()
            torch.cuda.current_stream().wait_stream(side)
        result: list[torch.Tensor] = []
        replay = self._record_read(lambda: result.append(forward()))
        return replay, result[0]

    def _record_read(self, forward: Callable[[], None]) -> Callable[[], object]:
        """Record without running: the shape has run before."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            forward()
        self._pool = graph.pool()
        replay: Callable[[], object] = graph.replay
        return replay


def steps_for(device: torch.device) -> EagerSteps:
    return GraphSteps(device) if device.type == "cuda" else EagerSteps()


def fetch(tokens: torch.Tensor) -> Callable[[], list[int]]:
    """Start the copy of ``tokens`` to the host; the returned call waits for it alone, not for later work."""
    if not tokens.is_cuda:
        values: list[int] = tokens.flatten().tolist()
        return lambda: values
    host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
    host.copy_(tokens, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(tokens.device))

    def wait() -> list[int]:
        copied.synchronize()
        result: list[int] = host.flatten().tolist()
        return result

    return wait
