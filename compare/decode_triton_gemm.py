"""A matrix product with few rows and NF4 weights on tensor cores, in Triton.

Covers: bitsandbytes' own packing (element 2i in a byte's high half, 2i + 1 in its low half, blocks of 64), one to three
weights that read the same input in one launch, and LoRA shares added per row. Imports triton: only what checked for it
may import this module (decode_gemm.py). Does not cover: which layers it suits, nor how it is proved there.

The weights of a tile are read once and decoded in registers: eight nibbles of a word become eight bfloat16 by byte
permutation from two tables of bytes, the tensor cores multiply 16 rows of weights by up to 16 rows of input, and each
block's sum is scaled in float32. The blocks of a row are dealt out to the warps of a program, which add up in a fixed
order.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The sixteen values in bfloat16, high bytes and low bytes apart: per plane two look-ups of four nibbles at once in tables
# of eight bytes and a choice between them by the nibbles' top bits; then the bytes of two values come together.
# ``zero``, whose value the assembler cannot know, keeps it from loading the constants anew for every use.
_DECODE = tl.constexpr(
    """
    {
    .reg .b32 s, m, s1, m1, a, b, h, l, r0, r1, r2, r3, zero, h0, h1, l0, l1;
    mov.u32 zero, %lanemask_lt;
    shr.u32 zero, zero, 31;
    xor.b32 h0, zero, 0xbebfbfbf;
    xor.b32 l0, zero, 0xca063280;
    xor.b32 h1, zero, 0x3e3e3e3d;
    xor.b32 l1, zero, 0xad7c25a3;
    and.b32 s, $8, 0x77777777;
    shr.u32 m, $8, 1;
    lop3.b32 m, m, 0x44444444, 0x32103210, 0xEA;
    shr.u32 s1, s, 16;
    shr.u32 m1, m, 16;
    prmt.b32 a, h0, 0x00bdbebe, s;
    prmt.b32 b, h1, 0x3f3f3f3e, s;
    prmt.b32 h, a, b, m;
    prmt.b32 a, l0, 0x00ba3d92, s;
    prmt.b32 b, l1, 0x803910e2, s;
    prmt.b32 l, a, b, m;
    prmt.b32 r0, l, h, 0x4051;
    prmt.b32 r1, l, h, 0x6273;
    prmt.b32 a, h0, 0x00bdbebe, s1;
    prmt.b32 b, h1, 0x3f3f3f3e, s1;
    prmt.b32 h, a, b, m1;
    prmt.b32 a, l0, 0x00ba3d92, s1;
    prmt.b32 b, l1, 0x803910e2, s1;
    prmt.b32 l, a, b, m1;
    prmt.b32 r2, l, h, 0x4051;
    prmt.b32 r3, l, h, 0x6273;
    mov.b32 {$0, $1}, r0;
    mov.b32 {$2, $3}, r1;
    mov.b32 {$4, $5}, r2;
    mov.b32 {$6, $7}, r3;
    }
    """
)


@triton.jit
def _decode(words):
    """Eight values of each word, in the order of the row."""
    return tl.inline_asm_elementwise(
        _DECODE, "=h,=h,=h,=h,=h,=h,=h,=h,r", [words], dtype=(tl.bfloat16,) * 8, is_pure=True, pack=1
    )


@triton.jit
def _block(packed, v, WARPS: tl.constexpr, BN: tl.constexpr, MP: tl.constexpr):
    """[WARPS, BN, MP]: words of one block of 64 per row times [WARPS, MP, 64] of input.

    Four products of 16 elements: two of each word. The input follows in the same order.
    """
    a0, a1, a2, a3, a4, a5, a6, a7 = _decode(packed)
    v = v.reshape(WARPS, MP, 8, 2, 2, 2).permute(0, 2, 5, 1, 3, 4).reshape(WARPS, 16, MP, 2, 2)
    even, odd = tl.split(v)
    v0, v2 = tl.split(even)
    v1, v3 = tl.split(odd)
    d = tl.dot(tl.join(a0, a1).reshape(WARPS, BN, 16), v0)
    d = tl.dot(tl.join(a2, a3).reshape(WARPS, BN, 16), v1, d)
    d = tl.dot(tl.join(a4, a5).reshape(WARPS, BN, 16), v2, d)
    return tl.dot(tl.join(a6, a7).reshape(WARPS, BN, 16), v3, d)


@triton.jit
def _lora_shares(
    part, up, n, m, width, tuned, rows, parts, WIDTH: tl.constexpr, RANK: tl.constexpr, PARTS: tl.constexpr
):
    """[n, m] in float32: what each tuned row's adapter adds; ``part`` holds sums over pieces of the input."""
    r = tl.arange(0, RANK)
    c = tl.arange(0, PARTS)
    shares = n[:, None] * 0.0 + m[None, :] * 0.0
    number = 0
    for row in range(rows):
        if (tuned >> row) & 1:
            pieces = tl.load(part + (c[:, None] * rows + row) * WIDTH + r[None, :], mask=c[:, None] < parts, other=0.0)
            weights = tl.load(up + (number * RANK + r[:, None]) * width + n[None, :])
            share = tl.sum(weights.to(tl.float32) * tl.sum(pieces, 0)[:, None], 0)
            shares = tl.where(m[None, :] == row, share[:, None], shares)
            number += 1
    return shares


@triton.jit
def nf4_linear(
    x, out,
    w0, w1, w2, s0, s1, s2, n0, n1, n_all,
    part, up0, up1, up2, tuned, rows, parts,
    K: tl.constexpr, BN: tl.constexpr, MP: tl.constexpr, WARPS: tl.constexpr, STAGES: tl.constexpr, U: tl.constexpr,
    LORA: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """out[rows, n_all] = x[rows, K] @ [w0; w1; w2]^T, plus the shares of tuned rows.

    ``w*``: int32 words of [n, K] nibbles; ``s*``: float32 scales [n, K / 64]; ``n0``, ``n1``: rows of the first two.
    ``U``: blocks per warp and turn, 1 or 2. ``part``: float32 [parts, rows, WIDTH], input times A in pieces, RANK columns
    per weight; ``up*``: [tuned, RANK, n].
    """
    place = tl.program_id(0) * BN
    w, s, up, first, width, column = w0, s0, up0, 0, n0, 0
    if place >= n0 + n1:
        w, s, up, first, width, column = w2, s2, up2, n0 + n1, n_all - n0 - n1, 2 * RANK
    elif place >= n0:
        w, s, up, first, width, column = w1, s1, up1, n0, n1, RANK
    n = place - first + tl.arange(0, BN)
    m = tl.arange(0, MP)
    warp = tl.arange(0, WARPS)
    words = w + warp[:, None, None] * (8 * U) + n[None, :, None] * (K // 8) + tl.arange(0, 8 * U)[None, None, :]
    scales = s + warp[:, None, None] * U + n[None, :, None] * (K // 64) + tl.arange(0, U)[None, None, :]
    inputs = x + warp[:, None, None] * (64 * U) + m[None, :, None] * K + tl.arange(0, 64 * U)[None, None, :]
    inside = (m < rows)[None, :, None]
    sums = tl.zeros([WARPS, BN, MP], tl.float32)
    for step in tl.range(0, K // 64 // (U * WARPS), num_stages=STAGES):
        packed = tl.load(words + step * (8 * U * WARPS))
        scale = tl.load(scales + step * (U * WARPS))
        v = tl.load(inputs + step * (64 * U * WARPS), mask=inside, other=0.0)
        if U == 1:
            sums += _block(packed, v, WARPS, BN, MP) * scale
        else:
            p0, p1 = tl.split(packed.reshape(WARPS, BN, 2, 8).permute(0, 1, 3, 2))
            v0, v1 = tl.split(v.reshape(WARPS, MP, 2, 64).permute(0, 1, 3, 2))
            c0, c1 = tl.split(scale)
            sums += _block(p0, v0, WARPS, BN, MP) * c0[:, :, None]
            sums += _block(p1, v1, WARPS, BN, MP) * c1[:, :, None]
    result = tl.sum(sums, 0)
    if LORA:
        shares = _lora_shares(part + column, up, n, m, width, tuned, rows, parts, WIDTH, RANK, PARTS)
        result = tl.where(((tuned >> m) & 1)[None, :] != 0, result + shares, result)
    tl.store(out + m[None, :] * n_all + (first + n)[:, None], result.to(tl.bfloat16), mask=(m < rows)[None, :])
