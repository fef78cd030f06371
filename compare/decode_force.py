"""Given texts instead of drawn ones: what every row of a decoder thinks of each token of an answer.

Covers: one joint pass over a prompt and an answer, in chunks, with a cache of its own, so that the conversations a
decoder holds stay as they are. Does not cover: drawing tokens (decode.py), what the figures mean (local_engine_group.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from compare.decode_cache import MaskMaker, RowCache, bucketed
from compare.decode_lora import Adapter, RowAdapters
from compare.decode_stages import first_device, layer_devices

CHUNK = 64


def forced_logprobs(
    model: Any,
    adapters: Sequence[Adapter | None],
    prompt: Sequence[int],
    answer: Sequence[int],
    stopped: Callable[[], bool] = lambda: False,
    chunk: int = CHUNK,
) -> Iterator[torch.Tensor]:
    """Log-probabilities [rows, n, vocabulary] in float32 for the places of ``answer``, ``chunk`` or fewer at a time.

    Row i carries ``adapters[i]``. Place i of the answer is predicted from the prompt and the i tokens before it. The
    rest is left out once ``stopped``, which is asked before every piece.
    """
    tokens = [*prompt, *answer][:-1]
    rows, first = len(adapters), len(prompt) - 1
    device = first_device(model)
    cache, masks = RowCache(rows, layer_devices(model)), MaskMaker(model.config, model.dtype)
    carried = RowAdapters(model, adapters)
    cache.reserve(len(tokens))
    for start in range(0, len(tokens), chunk):
        if stopped():
            return
        end = min(start + chunk, len(tokens))
        span = min(bucketed(end), cache.capacity)
        positions = torch.arange(start, end, device=device).expand(rows, -1)
        cache.aim(0, rows, positions, span)
        wanted = end - max(start, first)
        with torch.inference_mode(), carried.attached(0, rows):
            output = model(
                input_ids=torch.tensor(tokens[start:end], device=device).expand(rows, -1),
                position_ids=positions,
                attention_mask=masks(positions, span),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=max(1, wanted),
            )
            if wanted > 0:
                yield output.logits[:, -wanted:].float().log_softmax(-1)
