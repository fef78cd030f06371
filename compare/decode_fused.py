"""A decode step of a known architecture in nine kernels per layer, with the adapters of its rows inside them.

Covers: the order of the kernels, the adapters' stacks, the check at load against transformers' own forward. Does not
cover: prefill, models of other architectures and adapters of other layers: those go through transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compare.decode_arch import Architecture, Layer, describe
from compare.decode_cache import RowCache
from compare.decode_gemm import Nf4Weight, Shares, as_words, available, linear, patch, power_of_two, probe
from compare.decode_lora import Adapter
from compare.decode_stack import Stack, stack

log = logging.getLogger(__name__)

NORM_PIECE, GATE_PIECE, SPLIT = 128, 256, 64
# Between this step and transformers' forward of the same tokens, relative to the spread of the logits: roundings of
# half precision in other places. transformers differs from itself by half as much with and without a cache.
TOLERANCE = 0.2
_PROBE = (5, 11, 7, 3, 29, 17, 40, 23, 8)


@dataclass(frozen=True)
class Kernels:
    """What was proved for a model at load: the products it may use, and its architecture if the whole step is ours."""

    weights: Mapping[str, Nf4Weight]
    architecture: Architecture | None


def prepare(model: Any) -> Kernels | None:
    """Prove the kernels on this model and device, and give its layers those for few rows. None: nothing of it works."""
    found = {name: weight for name, module in model.named_modules() if (weight := as_words(module))}
    if not found or not available(model.device) or not probe(found.values()):
        return None
    architecture = describe(model, found)
    if architecture is not None and not _right(model, architecture):
        architecture = None
    patch((model.get_submodule(name), weight) for name, weight in found.items())
    return Kernels(found, architecture)


def _right(model: Any, architecture: Architecture) -> bool:
    """Do steps of ours give what one forward of transformers gives?"""
    ids = torch.tensor([_PROBE], device=model.device) % model.config.vocab_size
    try:
        with torch.inference_mode():
            expected = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
            step, cache = FusedStep(model, architecture, [None]), RowCache(1)
            cache.reserve(len(_PROBE))
            for place, token in enumerate(ids[0]):
                position = torch.full((1, 1), place, device=model.device)
                logits = step.logits(token[None, None], position, position < 0, cache, 0, cache.capacity)
            off = float((logits[0] - expected).norm() / (expected - expected.mean()).norm())
    except Exception as error:  # whatever a compiler may raise: the model works without it
        log.warning("steps stay with transformers: %s: %s", type(error).__name__, error)
        return False
    if not off <= TOLERANCE:
        log.warning("steps stay with transformers: off by %g", off)
    return off <= TOLERANCE


def fused_step(model: Any, adapters: Sequence[Adapter | None]) -> FusedStep | None:
    """The step for these rows, or None where the model or what an adapter tunes is not covered."""
    kernels: Kernels | None = getattr(model, "decode_kernels", None)
    if kernels is None or kernels.architecture is None or len(adapters) > 16:
        return None
    names = {name for layer in kernels.architecture.layers for group in layer.groups.values() for name in group.names}
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), None)
    for adapter in filter(None, adapters):
        if set(adapter.parts) - names - {head} or any(p.up.dtype != torch.bfloat16 for p in adapter.parts.values()):
            return None
        if any(
            part.gain is not None for part in adapter.parts.values()
        ):  # DoRA multiplies what the kernels only add to
            return None
    return FusedStep(model, kernels.architecture, adapters)


class FusedStep:
    """Logits of the next token for rows that each feed one token."""

    def __init__(self, model: Any, architecture: Architecture, adapters: Sequence[Adapter | None]) -> None:
        self._model = model
        self._arch = architecture
        self._stacks: list[dict[str, Stack | None]] = [
            {key: stack(adapters, group.names, group.sizes, group.weights[0].k) for key, group in layer.groups.items()}
            for layer in architecture.layers
        ]

    def logits(
        self, tokens: torch.Tensor, positions: torch.Tensor, parked: torch.Tensor, cache: RowCache, low: int, span: int
    ) -> torch.Tensor:
        """[rows, vocabulary] in float32. ``tokens``, ``positions``, ``parked``: [rows, 1], of the rows from ``low``.

        Keys and values go into ``cache`` at each row's position, except for parked rows; ``span`` slots are in sight.
        """
        base, rows = self._model.base_model, tokens.shape[0]
        embedded = base.embed_tokens(tokens)
        angles = {
            kind: base.rotary_emb(embedded, positions, *([] if kind is None else [kind])) for kind in self._arch.kinds
        }
        run = _Run(self._arch, rows, positions, parked, cache, low, span)
        h, delta, post = embedded.reshape(rows, -1).contiguous(), None, None
        for number, layer in enumerate(self._arch.layers):
            stacks = {key: own.rows(low, low + rows) if own else None for key, own in self._stacks[number].items()}
            h, x, shares = run.norm(h, delta, post, layer.before_attention, stacks["qkv"])
            qkv = linear(x, layer.groups["qkv"].weights, shares)
            x, shares = run.attention(number, layer, qkv, angles[layer.kind], stacks["o"])
            delta = linear(x, layer.groups["o"].weights, shares)
            h, x, shares = run.norm(h, delta, layer.after_attention, layer.before_mlp, stacks["gate_up"])
            x, shares = run.gate(linear(x, layer.groups["gate_up"].weights, shares), stacks["down"])
            delta, post = linear(x, layer.groups["down"].weights, shares), layer.after_mlp
        _, x, _ = run.norm(h, delta, post, self._arch.last_norm, None)
        logits = self._model.get_output_embeddings()(x[:, None])[:, -1]
        if self._arch.last_cap:
            logits = torch.tanh(logits / self._arch.last_cap) * self._arch.last_cap
        result: torch.Tensor = logits.float()
        return result


class _Run:
    """One step: the launches between the products."""

    def __init__(
        self,
        arch: Architecture,
        rows: int,
        positions: torch.Tensor,
        parked: torch.Tensor,
        cache: RowCache,
        low: int,
        span: int,
    ) -> None:
        self.arch, self.rows, self.cache, self.low, self.span = arch, rows, cache, low, span
        self.positions, self.parked = positions.contiguous(), parked.contiguous()

    def norm(
        self,
        h: torch.Tensor,
        delta: torch.Tensor | None,
        post: torch.Tensor | None,
        weight: torch.Tensor,
        own: Stack | None,
    ) -> tuple[torch.Tensor, torch.Tensor, Shares | None]:
        """The residual with ``delta``, its norm, and what adapters need of that."""
        from compare.decode_triton_step import norm_down

        k = h.shape[1]
        pieces = -(-k // NORM_PIECE)
        out = torch.empty_like(h)
        summed = torch.empty_like(h) if delta is not None else h
        shares = self._shares(own, pieces)
        with torch.cuda.device(h.device):
            norm_down[(pieces, self.rows)](
                h, h if delta is None else delta, weight if post is None else post, weight, summed, out,
                *_lora(own, shares, h), k, self.arch.eps,
                DELTA=delta is not None, POST=post is not None, SHIFTED=self.arch.shifted, LORA=own is not None,
                WHOLE=power_of_two(k), PIECE=NORM_PIECE, **_widths(own),
            )  # fmt: skip
        return summed, out, shares

    def gate(self, gate_up: torch.Tensor, own: Stack | None) -> tuple[torch.Tensor, Shares | None]:
        from compare.decode_triton_step import gate_down

        k = gate_up.shape[1] // 2
        pieces = -(-k // GATE_PIECE)
        out = gate_up.new_empty(self.rows, k)
        shares = self._shares(own, pieces)
        with torch.cuda.device(out.device):
            gate_down[(pieces, self.rows)](
                gate_up, out, *_lora(own, shares, out), k,
                TANH=self.arch.tanh, LORA=own is not None, PIECE=GATE_PIECE, **_widths(own),
            )  # fmt: skip
        return out, shares

    def attention(
        self, number: int, layer: Layer, qkv: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], own: Stack | None
    ) -> tuple[torch.Tensor, Shares | None]:
        from compare.decode_triton_step import attend, combine_down

        arch, rows, d = self.arch, self.rows, self.arch.head_dim
        keys, values = self.cache.store(number, arch.kv_heads, d, qkv)
        keys, values = keys[self.low :], values[self.low :]
        splits = -(-self.span // SPLIT)
        sums = torch.empty(rows, arch.heads, splits, d, device=qkv.device)
        peaks = torch.empty(rows, arch.heads, splits, 2, device=qkv.device)
        out = qkv.new_empty(rows, arch.heads * d)
        shares = self._shares(own, arch.heads)
        group = arch.heads // arch.kv_heads
        norms = layer.head_norms or (qkv, qkv)
        cos, sin = (angle.expand(rows, -1, -1).contiguous() for angle in angles)
        with torch.cuda.device(out.device):
            attend[(splits, arch.kv_heads, rows)](
                qkv, keys, values, cos, sin, self.positions, self.parked, *norms, sums, peaks,
                keys.stride(0), keys.stride(1), arch.heads, arch.kv_heads, layer.window, arch.scale, arch.cap, arch.eps,
                GROUP=group, GP=max(16, power_of_two(group)), D=d, SPAN=SPLIT,
                NORM=(2 if arch.shifted else 1) if layer.head_norms else 0, CAPPED=arch.cap > 0,
            )  # fmt: skip
            combine_down[(arch.heads, rows)](
                sums, peaks, self.positions, out, *_lora(own, shares, out), splits, layer.window,
                D=d, SPAN=SPLIT, SPLITS=power_of_two(splits), LORA=own is not None, **_widths(own),
            )  # fmt: skip
        return out, shares

    def _shares(self, own: Stack | None, pieces: int) -> Shares | None:
        if own is None:
            return None
        return Shares(torch.empty(pieces, self.rows, own.width, device=own.down.device), own.ups, own.tuned)


def _lora(own: Stack | None, shares: Shares | None, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    return (own.down, shares.parts, own.tuned) if own and shares else (like, like, 0)


def _widths(own: Stack | None) -> dict[str, int]:
    return {"WIDTH": own.width, "ROW": power_of_two(own.width)} if own else {"WIDTH": 1, "ROW": 1}
