"""What stands between the matrix products of a decode step, in few Triton kernels.

Covers: residual, norms and the gated activation, each with the first half of the LoRA product of what it writes;
attention of one token per row over the cache, with rotary embedding and the write of the new key and value. Roundings
to bfloat16 are where transformers has them. Imports triton: only what checked for it may import this module. Does not
cover: matrix products (decode_triton_gemm.py), the order of the calls (decode_fused.py).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normed(x, weight, root, SHIFTED: tl.constexpr):
    """Llama rounds before it multiplies by the weight; Gemma multiplies by 1 + weight and then rounds."""
    if SHIFTED:
        return (x * root * (1.0 + weight.to(tl.float32))).to(tl.bfloat16)
    return ((x * root).to(tl.bfloat16).to(tl.float32) * weight.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _lora_piece(values, k, down, part, tuned, row, piece, K, WIDTH: tl.constexpr, ROW: tl.constexpr):
    """part[piece, row] = values @ A[k]: [tuned, K, WIDTH] of A, columns of all weights that read these values."""
    CHUNK: tl.constexpr = ROW if ROW < 64 else 64
    if (tuned >> row) & 1:
        number = 0
        for before in tl.static_range(16):
            number += ((tuned >> before) & 1) * (before < row)
        for first in tl.static_range(0, ROW, CHUNK):
            r = first + tl.arange(0, CHUNK)
            inside = (k < K)[:, None] & (r < WIDTH)[None, :]
            a = tl.load(down + (number * K + k[:, None]) * WIDTH + r[None, :], mask=inside, other=0.0)
            sums = tl.sum(a.to(tl.float32) * values.to(tl.float32)[:, None], 0)
            tl.store(part + (piece * tl.num_programs(1) + row) * WIDTH + r, sums, mask=r < WIDTH)


@triton.jit
def _residual(h, delta, post, root, k, row, K, eps, DELTA: tl.constexpr, POST: tl.constexpr, SHIFTED: tl.constexpr):
    x = tl.load(h + row * K + k, mask=k < K, other=0.0)
    if DELTA:
        d = tl.load(delta + row * K + k, mask=k < K, other=0.0)
        if POST:
            d = _normed(d.to(tl.float32), tl.load(post + k, mask=k < K, other=0.0), root, SHIFTED)
        x = (x.to(tl.float32) + d.to(tl.float32)).to(tl.bfloat16)
    return x


@triton.jit
def norm_down(
    h, delta, post, weight, h_out, out, down, part, tuned, K, eps,
    DELTA: tl.constexpr, POST: tl.constexpr, SHIFTED: tl.constexpr, LORA: tl.constexpr,
    WHOLE: tl.constexpr, PIECE: tl.constexpr, WIDTH: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    """h_out = h + delta (delta through the norm ``post`` first), out = norm(h_out); part = out @ A.

    Program (piece, row) reads its whole row for the norm and writes PIECE values of it.
    """
    piece, row = tl.program_id(0), tl.program_id(1)
    k = tl.arange(0, WHOLE)
    root = 0.0
    if POST:
        d = tl.load(delta + row * K + k, mask=k < K, other=0.0).to(tl.float32)
        root = tl.rsqrt(tl.sum(d * d, 0) / K + eps)
    x = _residual(h, delta, post, root, k, row, K, eps, DELTA, POST, SHIFTED).to(tl.float32)
    own = tl.rsqrt(tl.sum(x * x, 0) / K + eps)
    k = piece * PIECE + tl.arange(0, PIECE)
    x = _residual(h, delta, post, root, k, row, K, eps, DELTA, POST, SHIFTED)
    values = _normed(x.to(tl.float32), tl.load(weight + k, mask=k < K, other=0.0), own, SHIFTED)
    if DELTA:
        tl.store(h_out + row * K + k, x, mask=k < K)
    tl.store(out + row * K + k, values, mask=k < K)
    if LORA:
        _lora_piece(values, k, down, part, tuned, row, piece, K, WIDTH, ROW)


@triton.jit
def gate_down(
    gate_up, out, down, part, tuned, K,
    TANH: tl.constexpr, LORA: tl.constexpr, PIECE: tl.constexpr, WIDTH: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    """out = act(gate) * up, from [rows, 2 K]; part = out @ A. SiLU, or GELU by its tanh form."""
    piece, row = tl.program_id(0), tl.program_id(1)
    k = piece * PIECE + tl.arange(0, PIECE)
    g = tl.load(gate_up + row * 2 * K + k, mask=k < K, other=0.0).to(tl.float32)
    u = tl.load(gate_up + row * 2 * K + K + k, mask=k < K, other=0.0).to(tl.float32)
    inner = 1.5957691216057308 * (g + 0.044715 * g * g * g) if TANH else g
    g = g * tl.sigmoid(inner)
    values = (g.to(tl.bfloat16).to(tl.float32) * u).to(tl.bfloat16)
    tl.store(out + row * K + k, values, mask=k < K)
    if LORA:
        _lora_piece(values, k, down, part, tuned, row, piece, K, WIDTH, ROW)


@triton.jit
def _rotated(base, rows, norm, cos, sin, inside, eps, D: tl.constexpr, NORM: tl.constexpr):
    """[rows, D] heads after their norm, if any, turned by the position's angles."""
    d = tl.arange(0, D)
    other = (d + D // 2) % D
    x = tl.load(base + rows[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
    y = tl.load(base + rows[:, None] * D + other[None, :], mask=inside[:, None], other=0.0)
    if NORM > 0:
        wide = x.to(tl.float32)
        root = tl.rsqrt(tl.sum(wide * wide, 1) / D + eps)[:, None]
        x = _normed(wide, tl.load(norm + d)[None, :], root, NORM == 2)
        y = _normed(y.to(tl.float32), tl.load(norm + other)[None, :], root, NORM == 2)
    straight = (x.to(tl.float32) * tl.load(cos + d)[None, :].to(tl.float32)).to(tl.bfloat16).to(tl.float32)
    turned = (y.to(tl.float32) * tl.load(sin + d)[None, :].to(tl.float32)).to(tl.bfloat16).to(tl.float32)
    return (straight + tl.where(d < D // 2, -1.0, 1.0)[None, :] * turned).to(tl.bfloat16)


@triton.jit
def attend(
    qkv, keys, values, cos, sin, positions, parked, q_norm, k_norm, sums, peaks,
    row_stride, head_stride, heads, kv_heads, window, scale, cap, eps,
    GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, SPAN: tl.constexpr, NORM: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """One token per row over SPAN slots of the cache: sums [rows, heads, splits, D] and peaks [..., 2] (top, weight).

    The program whose slots hold the row's position writes the new key and value there first. Slots beyond the position
    or before the window count for nothing; a program that has no others returns at once.
    """
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    start = split * SPAN
    if (start > position) | (start + SPAN <= position - window + 1):
        return
    d = tl.arange(0, D)
    g = tl.arange(0, GP)
    base = qkv + row * (heads + 2 * kv_heads) * D
    place = keys + row.to(tl.int64) * row_stride + head * head_stride
    value_place = values + row.to(tl.int64) * row_stride + head * head_stride
    if (position < start + SPAN) & (tl.load(parked + row) == 0):
        one = tl.arange(0, 1)
        key = _rotated(base + heads * D, head + one, k_norm, cos + row * D, sin + row * D, one == 0, eps, D, NORM)
        tl.store(place + position * D + one[:, None] + d[None, :], key)
        tl.store(value_place + position * D + d, tl.load(base + (heads + kv_heads + head) * D + d))
    tl.debug_barrier()
    slots = start + tl.arange(0, SPAN)
    seen = (slots <= position) & (slots > position - window)
    k = tl.load(place + slots[None, :] * D + d[:, None], mask=seen[None, :], other=0.0)
    v = tl.load(value_place + slots[:, None] * D + d[None, :], mask=seen[:, None], other=0.0)
    q = _rotated(base, head * GROUP + g, q_norm, cos + row * D, sin + row * D, g < GROUP, eps, D, NORM)
    scores = tl.dot(q, k) * scale
    if CAPPED:
        scores = cap * (2.0 * tl.sigmoid(2.0 * scores / cap) - 1.0)
    scores = tl.where(seen[None, :], scores, float("-inf"))
    top = tl.max(scores, 1)
    chances = tl.exp(scores - top[:, None])
    here = ((row * heads + head * GROUP + g) * tl.num_programs(0)) + split
    tl.store(peaks + here * 2, top, mask=g < GROUP)
    tl.store(peaks + here * 2 + 1, tl.sum(chances, 1), mask=g < GROUP)
    weighed = tl.dot(chances.to(tl.bfloat16), v)
    tl.store(sums + here[:, None] * D + d[None, :], weighed, mask=(g < GROUP)[:, None])


@triton.jit
def combine_down(
    sums, peaks, positions, out, down, part, tuned, splits, window,
    D: tl.constexpr, SPAN: tl.constexpr, SPLITS: tl.constexpr, LORA: tl.constexpr,
    WIDTH: tl.constexpr, ROW: tl.constexpr,
):  # fmt: skip
    """Attention's parts of one head made one, [rows, heads * D]; part = out @ A, a head being a piece."""
    head, row = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(0)
    position = tl.load(positions + row).to(tl.int32)
    low = tl.maximum(position - window + 1, 0) // SPAN
    high = position // SPAN
    here = (row * heads + head) * splits
    s = tl.arange(0, SPLITS)
    top = tl.max(tl.load(peaks + (here + s) * 2, mask=(s >= low) & (s <= high), other=float("-inf")), 0)
    d = tl.arange(0, D)
    total = tl.zeros([D], tl.float32)
    weight = 0.0
    c = tl.arange(0, 8)
    for first in range(low, high + 1, 8):
        own = here + first + c
        inside = first + c <= high
        share = tl.exp(tl.load(peaks + own * 2, mask=inside, other=float("-inf")) - top)
        weight += tl.sum(share * tl.load(peaks + own * 2 + 1, mask=inside, other=0.0), 0)
        rows = tl.load(sums + own[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
        total += tl.sum(rows * share[:, None], 0)
    values = (total / weight).to(tl.bfloat16)
    k = head * D + d
    tl.store(out + row * heads * D + k, values)
    if LORA:
        _lora_piece(values, k, down, part, tuned, row, head, heads * D, WIDTH, ROW)
