"""A CUDA graph in slow motion, for CPUs: every kernel call of a step is kept and called again on the same tensors.

Python values are those of the recording, as in a graph; reading a tensor on the host is an error, as in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compare.decode_graph import Forward, GraphSteps, Recorded, Shape

_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default, torch.ops.aten.item.default)


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise RuntimeError(f"read on the host: {func}")
        output = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, output))
        return output

    def replay(self) -> None:
        with torch.inference_mode():
            for func, args, kwargs, output in self.calls:
                for old, new in zip(tree_leaves(output), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class TapedSteps(GraphSteps):
    """Steps as on CUDA. ``shapes``: what was recorded, in order; ``replays``: how often a tape ran."""

    def __init__(self) -> None:
        super().__init__()
        self.tapes: list[Tape] = []
        self.replays = 0

    def read(self, shape: Shape, forward: Callable[[], None]) -> None:
        forward()

    def width(self, tokens: int) -> int:
        return tokens

    def _record(self, forward: Forward) -> Recorded:
        forward()
        tape = Tape()
        with tape:
            result = forward()
        self.tapes.append(tape)

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay, result


class TapedReads(TapedSteps):
    """Pieces of prompt too. ``read_replays``: how often one ran from a tape."""

    def __init__(self) -> None:
        super().__init__()
        self.read_replays = 0

    def read(self, shape: Shape, forward: Callable[[], None]) -> None:
        GraphSteps.read(self, shape, forward)

    def width(self, tokens: int) -> int:
        return GraphSteps.width(self, tokens)

    def _record_read(self, forward: Callable[[], None]) -> Callable[[], object]:
        tape = Tape()
        with tape:
            forward()

        def replay() -> None:
            self.read_replays += 1
            tape.replay()

        return replay
