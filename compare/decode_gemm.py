"""Products of few rows with NF4 weights: when our own kernel does them, and the proof that it does them rightly.

Covers: bitsandbytes' packed layout, which layers and devices the Triton kernel takes (decode_triton_gemm.py), tile sizes
by shape, a probe against bitsandbytes' own values at load. Whatever does not fit stays with bitsandbytes. Does not cover:
the order of a step (decode_fused.py).
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

log = logging.getLogger(__name__)

BLOCK = 64
MAX_ROWS = 16
# The sixteen values of NF4 (Dettmers et al. 2023, QLoRA, appendix E), as bitsandbytes has them.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# Against a product in float64 of bitsandbytes' float32 weights, relative to the result's spread. The kernel rounds the
# sixteen values to bfloat16 where bitsandbytes rounds every weight: errors of the same size, 2 ** -9 / sqrt(3) at most.
TOLERANCE = 4e-3


@dataclass(frozen=True)
class Nf4Weight:
    """A weight [n, k] as the kernel reads it: ``words`` int32, eight elements each; ``scales`` float32, one per 64."""

    words: torch.Tensor
    scales: torch.Tensor
    n: int
    k: int


@dataclass(frozen=True)
class Shares:
    """What adapters add to a product: ``parts`` [pieces, rows, width] float32, the input times A in pieces of the input;
    ``ups`` per weight [tuned rows, rank, n]; ``tuned``: bit per row."""

    parts: torch.Tensor
    ups: Sequence[torch.Tensor]
    tuned: int


@dataclass(frozen=True)
class Tile:
    """Rows of weights per program, warps that share out their blocks, blocks per turn (1 or 2), turns on their way."""

    rows: int
    warps: int
    blocks: int
    stages: int


def available(device: torch.device) -> bool:
    """Is there a Triton, and a GPU whose tensor cores know bfloat16?"""
    if device.type != "cuda" or torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return False
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def as_words(module: nn.Module) -> Nf4Weight | None:
    """The layer's weight for the kernel, or None where bitsandbytes has to do it."""
    from bitsandbytes.functional import dequantize_blockwise
    from bitsandbytes.nn import Linear4bit

    if not isinstance(module, Linear4bit) or module.bias is not None or module.compute_dtype != torch.bfloat16:
        return None
    state = getattr(module.weight, "quant_state", None)
    if state is None or state.quant_type != "nf4" or state.blocksize != BLOCK:
        return None
    if getattr(state, "packing_format_for_cpu", False) or len(state.shape) != 2:
        return None
    n, k = state.shape
    packed = module.weight.data
    if not takes(n, k) or packed.nbytes != n * k // 2 or packed.data_ptr() % 16 or not packed.is_contiguous():
        return None
    scales = state.absmax
    if state.nested:
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
    return Nf4Weight(packed.reshape(-1).view(torch.int32), scales.float().reshape(-1).contiguous(), n, k)


def takes(n: int, k: int) -> bool:
    return n % 16 == 0 and k % BLOCK == 0


def unpack(weight: Nf4Weight) -> torch.Tensor:
    """The values [n, k] in float32, computed plainly: what the kernel is measured by."""
    octets = weight.words.view(torch.uint8).int()
    indices = torch.stack((octets >> 4, octets & 15), -1).reshape(weight.n, -1, BLOCK)
    values = torch.tensor(NF4, device=octets.device)[indices]
    return (values * weight.scales.reshape(weight.n, -1, 1)).reshape(weight.n, weight.k)


def tile_for(n: int, k: int) -> Tile:
    """By measurement on an H200: within a few per cent of the best for every shape of Llama 3 8B and Gemma 2 9B."""
    if n >= 16384 and k % 256 == 0:
        return Tile(16, 2, 2, 3)
    pairs = ((4, 2), (2, 2), (4, 1), (2, 1), (1, 1))
    warps, blocks = next((warps, blocks) for warps, blocks in pairs if k // BLOCK % (warps * blocks) == 0)
    return Tile(16, warps, blocks, 4)


def linear(
    x: torch.Tensor, weights: Sequence[Nf4Weight], shares: Shares | None = None, tile: Tile | None = None
) -> torch.Tensor:
    """``x`` [rows <= 16, k] in bfloat16 times one to three weights, side by side: [rows, sum of n]."""
    from compare.decode_triton_gemm import nf4_linear

    rows, k = x.shape
    total = sum(weight.n for weight in weights)
    tile = tile or tile_for(total, k)
    out = torch.empty(rows, total, dtype=torch.bfloat16, device=x.device)
    first, second, third = (*weights, weights[-1], weights[-1])[:3]
    sizes = (first.n, second.n if len(weights) > 1 else 0)
    ups = (*shares.ups, shares.ups[-1], shares.ups[-1])[:3] if shares else (x, x, x)
    parts = shares.parts if shares else x
    with torch.cuda.device(x.device):
        nf4_linear[(total // tile.rows,)](
            x, out,
            first.words, second.words, third.words, first.scales, second.scales, third.scales, *sizes, total,
            parts, *ups, shares.tuned if shares else 0, rows, parts.shape[0],
            K=k, BN=tile.rows, MP=8 if rows <= 8 else 16, WARPS=tile.warps, STAGES=tile.stages, U=tile.blocks,
            LORA=shares is not None, WIDTH=parts.shape[-1] if shares else 1, RANK=ups[0].shape[1] if shares else 1,
            PARTS=power_of_two(parts.shape[0]) if shares else 1, num_warps=tile.warps,
        )  # fmt: skip
    return out


def power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def deviation(x: torch.Tensor, weight: Nf4Weight) -> float:
    """The kernel's error on ``x``, relative to the spread of the exact result."""
    exact = x.double() @ unpack(weight).double().T
    return float((linear(x, [weight]).double() - exact).norm() / exact.norm())


def probe(weights: Iterable[Nf4Weight]) -> bool:
    """Does the kernel compile here, and is it right for every shape among ``weights``, for 1 to 16 rows?"""
    shapes = {(weight.n, weight.k, weight.words.device): weight for weight in weights}
    try:
        for weight in shapes.values():
            for rows in (1, 2, MAX_ROWS):
                noise = torch.Generator("cpu").manual_seed(rows)
                x = torch.randn(rows, weight.k, generator=noise).to(weight.words.device, torch.bfloat16)
                if not (error := deviation(x, weight)) <= TOLERANCE:
                    log.warning("small products stay with bitsandbytes: [%d, %d] off by %g", weight.n, weight.k, error)
                    return False
    except Exception as error:  # whatever a compiler may raise: the layers work without it
        log.warning("small products stay with bitsandbytes: %s: %s", type(error).__name__, error)
        return False
    return True


def patch(layers: Iterable[tuple[nn.Module, Nf4Weight]]) -> None:
    """Give layers the kernel for up to 16 rows of bfloat16; more rows go to bitsandbytes as before.

    The scales in float32 take the place of those that were quantised themselves: 3 bytes more per 64 weights, 6 % of a
    model of 8 billion, and one look-up less for either.
    """
    for module, weight in layers:
        state: Any = module.weight.quant_state
        state.absmax, state.nested, state.state2, state.offset = weight.scales, False, None, None
        module.forward = _small_or(module.forward, weight)


def _small_or(original: Any, weight: Nf4Weight) -> Any:
    def forward(x: torch.Tensor) -> torch.Tensor:
        few = 0 < x.numel() <= MAX_ROWS * weight.k
        if not few or x.dtype != torch.bfloat16 or x.device != weight.words.device:
            result: torch.Tensor = original(x)
            return result
        return linear(x.reshape(-1, weight.k), [weight]).reshape(*x.shape[:-1], weight.n)

    return forward


def reference(x: torch.Tensor, weight: Nf4Weight) -> torch.Tensor:
    """What dequantising and multiplying in bfloat16 gives: weights rounded one by one."""
    return functional.linear(x, unpack(weight).to(x.dtype))
