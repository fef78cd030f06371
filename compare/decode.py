"""The decode loop: one forward pass gives the next token of every arm of one base.

Covers: prefill in chunks with reuse of what earlier turns left in the cache, rows of different lengths, per-row ends.
A step reads and writes tensors only (tokens, positions, parked rows), so that it can be recorded once per shape (rows,
span) and replayed (decode_graph.py). Does not cover: text and time (local_engine.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from compare.decode_cache import MaskMaker, RowCache, bucketed
from compare.decode_fused import fused_step
from compare.decode_graph import EagerSteps, fetch, steps_for
from compare.decode_lora import Adapter, RowAdapters
from compare.decode_sample import Sampler
from compare.decode_stages import first_device, layer_devices
from compare.engine import Sampling

CHUNK = 512


@dataclass(frozen=True)
class Step:
    """What one unit of work brought: a token per row, and why rows ended. Both empty after a chunk of prompt."""

    tokens: Mapping[int, int] = field(default_factory=dict)
    ended: Mapping[int, Literal["stop", "length"]] = field(default_factory=dict)


class Decoder:
    """All arms of one base; row i carries ``adapters[i]``, or nothing for the base itself.

    ``steps``: how decode steps run; by default recorded and replayed on one CUDA device, as they come elsewhere.
    """

    def __init__(
        self, model: Any, adapters: Sequence[Adapter | None], chunk: int = CHUNK, steps: EagerSteps | None = None
    ) -> None:
        self.model = model
        self.rows = len(adapters)
        self.context: int = model.config.max_position_embeddings
        self._adapters = RowAdapters(model, adapters)
        self._fused = fused_step(model, adapters)
        self._chunk = chunk
        self._device = first_device(model)
        self._places = layer_devices(model)
        self._vocabulary: int = model.get_output_embeddings().weight.shape[0]
        self._masks = MaskMaker(model.config, model.dtype)
        self._tokens = torch.zeros(self.rows, 1, dtype=torch.long, device=self._device)
        self._positions = torch.zeros(self.rows, 1, dtype=torch.long, device=self._device)
        self._parked = torch.ones(self.rows, 1, dtype=torch.bool, device=self._device)
        self._pieces: dict[int, torch.Tensor] = {}  # by width: tokens, positions and slots of a piece of prompt
        self._seen: torch.Tensor | None = None
        self._steps = steps or (EagerSteps() if self._places else steps_for(self._device))
        self.reset()

    def reset(self) -> None:
        """Forget every conversation and give the cache back."""
        self._cache = RowCache(self.rows, self._places)
        self._steps.forget()
        self._held: list[list[int]] = [[] for _ in range(self.rows)]

    @property
    def held(self) -> list[int]:
        """Tokens per row whose keys and values are in the cache."""
        return [len(tokens) for tokens in self._held]

    @property
    def unknown_layers(self) -> list[str]:
        return self._masks.unknown_kinds

    def cache_bytes(self) -> int:
        return self._cache.bytes_held()

    def answer(
        self, prompts: Mapping[int, Sequence[int]], sampling: Sampling, stops: Mapping[int, frozenset[int]]
    ) -> Generator[Step, None, None]:
        """Continue ``prompts`` (row -> token ids, at least one each, shorter than ``context``) until each row ends.

        May be closed at any step; the cache then holds exactly what was written. After an error nothing is held.
        """
        left = {row: min(sampling.max_new_tokens, self.context - len(prompt)) for row, prompt in prompts.items()}
        try:
            yield Step(ended={row: "length" for row, count in left.items() if count <= 0})
            prompts = {row: prompt for row, prompt in prompts.items() if left[row] > 0}
            if prompts:
                yield from self._prefill(prompts, {row: len(prompts[row]) + left[row] for row in prompts})
                yield from self._decode(prompts, left, Sampler(sampling, self._device), stops)
        except GeneratorExit:
            raise
        except BaseException:
            self.reset()
            raise
        finally:
            self._parked.fill_(True)
            self._seen = None

    def last_logits(self, prompt: Sequence[int]) -> torch.Tensor:
        """Logits [rows, vocabulary] in float32 after ``prompt`` in every row, by the path of answers; then forgets."""
        prompts = {row: prompt for row in range(self.rows)}
        try:
            for _ in self._prefill(prompts, dict.fromkeys(prompts, len(prompt))):
                pass
            self._place(prompts)
            with torch.inference_mode():
                return self._forward(0, self.rows, self._span(len(prompt)))
        finally:
            self._parked.fill_(True)
            self.reset()

    def _prefill(self, prompts: Mapping[int, Sequence[int]], lengths: Mapping[int, int]) -> Iterator[Step]:
        """Bring all but the last token of each prompt into the cache; the first step takes that one."""
        for row, prompt in prompts.items():
            del self._held[row][_common(self._held[row], prompt[:-1]) :]
        if self._cache.reserve(max(lengths.values())):
            self._steps.forget()
        while waiting := {row: prompt for row, prompt in prompts.items() if len(self._held[row]) < len(prompt) - 1}:
            self._prefill_chunk(waiting)
            yield Step()

    def _prefill_chunk(self, waiting: Mapping[int, Sequence[int]]) -> None:
        low, high = min(waiting), max(waiting) + 1
        parts = {row: list(prompt[len(self._held[row]) : -1][: self._chunk]) for row, prompt in waiting.items()}
        width = self._steps.width(max(map(len, parts.values())))
        tokens, places, slots = [], [], []
        for row in range(low, high):
            part, start = parts.get(row, []), len(self._held[row])
            padding, own = [0] * (width - len(part)), list(range(start, start + len(part)))
            tokens.append(part + padding)
            places.append(own + padding)
            slots.append(own + [self._cache.capacity] * len(padding))
        span = self._span(int(max(map(max, places))) + 1)
        if width not in self._pieces:
            self._pieces[width] = torch.zeros(3, self.rows, width, dtype=torch.long, device=self._device)
        self._pieces[width][:, low:high] = torch.tensor([tokens, places, slots], device=self._device)
        with torch.inference_mode():
            self._steps.read((low, high, span, width), lambda: self._read(low, high, span, width))
        for row, part in parts.items():
            self._held[row].extend(part)

    def _read(self, low: int, high: int, span: int, width: int) -> None:
        tokens, positions, slots = self._pieces[width][:, low:high]
        self._cache.aim(low, high, slots, span)
        with self._adapters.attached(low, high):
            self.model.base_model(
                input_ids=tokens,
                position_ids=positions,
                attention_mask=self._masks(positions, span),
                past_key_values=self._cache,
                use_cache=True,
            )

    def _decode(
        self,
        prompts: Mapping[int, Sequence[int]],
        left: dict[int, int],
        sampler: Sampler,
        stops: Mapping[int, frozenset[int]],
    ) -> Iterator[Step]:
        self._place(prompts)
        if sampler.penalised:
            self._seen = self._mark(prompts)
        fed = {row: prompt[-1] for row, prompt in prompts.items()}
        low, high = min(fed), max(fed) + 1
        ahead = self._steps.ahead
        while fed:
            if not ahead:
                low, high = min(fed), max(fed) + 1
            coming: Callable[[], list[int]] | None = None
            while fed and (ahead or (min(fed), max(fed) + 1) == (low, high)):
                drawn = coming or self._launch(low, high, fed, 0, sampler)
                more = ahead and max(left[row] for row in fed) > 1
                coming = self._launch(low, high, fed, 1, sampler) if more else None
                yield self._settle(drawn(), low, fed, left, stops)

    def _settle(
        self,
        drawn: Sequence[int],
        low: int,
        fed: dict[int, int],
        left: dict[int, int],
        stops: Mapping[int, frozenset[int]],
    ) -> Step:
        """Take a step's tokens in for each row in ``fed`` (row -> the token that went in); rows that end leave it."""
        tokens, ended = {}, {}
        for row, token in list(fed.items()):
            self._held[row].append(token)
            fed[row] = drawn[row - low]
            left[row] -= 1
            if fed[row] in stops[row]:
                ended[row] = "stop"
            else:
                tokens[row] = fed[row]
                if left[row] == 0:
                    ended[row] = "length"
            if row in ended:
                del fed[row]
                self._parked[row] = True
        return Step(tokens, ended)  # type: ignore[arg-type]

    def _launch(
        self, low: int, high: int, fed: Mapping[int, int], ahead: int, sampler: Sampler
    ) -> Callable[[], list[int]]:
        """Forward, draw, and move on by one, ``ahead`` steps after what is held; the call returned gives the tokens.

        A row that turns out to have ended takes a step too many: it writes one slot that nothing looks at.
        """
        rows = slice(low, high)
        span = self._span(max(len(self._held[row]) for row in fed) + ahead + 1)
        seen = None if self._seen is None else self._seen[rows]
        with torch.inference_mode():
            logits = self._steps.run((low, high, span), lambda: self._forward(low, high, span))
            drawn = sampler.draw(logits, self._positions[rows] + 1, seen)
            if seen is not None:
                seen.scatter_(1, drawn, True)
            self._tokens[rows] = drawn
            self._positions[rows] += ~self._parked[rows]
            return fetch(drawn)

    def _forward(self, low: int, high: int, span: int) -> torch.Tensor:
        positions, parked = self._positions[low:high], self._parked[low:high]
        with self._adapters.attached(low, high):
            if self._fused is not None:
                return self._fused.logits(self._tokens[low:high], positions, parked, self._cache, low, span)
            self._cache.aim(low, high, positions.masked_fill(parked, self._cache.capacity), span)
            output = self.model(
                input_ids=self._tokens[low:high],
                position_ids=positions,
                attention_mask=self._masks(positions, span),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits[:, -1].float().to(self._device)
        return logits

    def _place(self, prompts: Mapping[int, Sequence[int]]) -> None:
        for row, prompt in prompts.items():
            self._tokens[row] = prompt[-1]
            self._positions[row] = len(prompt) - 1
            self._parked[row] = False

    def _mark(self, prompts: Mapping[int, Sequence[int]]) -> torch.Tensor:
        seen = torch.zeros(self.rows, self._vocabulary, dtype=torch.bool, device=self._device)
        for row, prompt in prompts.items():
            seen[row, torch.tensor(prompt, device=self._device)] = True
        return seen

    def _span(self, length: int) -> int:
        return min(bucketed(length), self._cache.capacity)


def _common(held: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(held, prompt, strict=False)
    return next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(held), len(prompt)))
