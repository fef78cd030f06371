"""Tile sizes for small NF4 products: every choice on the shapes of Llama 3 8B and Gemma 2 9B, best first.

By hand on a GPU, from the folder of app.py: python -m tests.bench.bench_gemm
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from compare.decode_gemm import BLOCK, Nf4Weight, Tile, linear

SHAPES = {
    "8B qkv": (6144, 4096),
    "8B o": (4096, 4096),
    "8B gate up": (28672, 4096),
    "8B down": (4096, 14336),
    "9B qkv": (8192, 3584),
    "9B o": (3584, 4096),
    "9B gate up": (28672, 3584),
    "9B down": (3584, 14336),
}
CACHE = 120 << 20  # more than any second-level cache holds


def choices(k: int) -> list[Tile]:
    every = itertools.product((16, 32), (2, 4, 8), (1, 2), (2, 3, 4, 5))
    return [Tile(*one) for one in every if k // BLOCK % (one[1] * one[2]) == 0 and one[0] * one[1] <= 256]


def make(n: int, k: int) -> Nf4Weight:
    words = torch.randint(-(1 << 31), (1 << 31) - 1, (n * k // 8,), dtype=torch.int32, device="cuda")
    return Nf4Weight(words, torch.rand(n * k // BLOCK, device="cuda") / 8, n, k)


def seconds(weights: list[Nf4Weight], rows: int, tile: Tile | None) -> float:
    """Per product, in a graph over enough copies of the weight that none of it is in a cache."""
    x = torch.randn(rows, weights[0].k, device="cuda", dtype=torch.bfloat16)
    for weight in weights[:2]:
        linear(x, [weight], tile=tile)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for weight in weights:
            linear(x, [weight], tile=tile)
    times = []
    for _ in range(7):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / len(weights))
    return statistics.median(times[1:])


def compile_one(choice: tuple[int, int, Tile]) -> None:
    """Leaves the kernel in Triton's cache on disk."""
    rows, k, tile = choice
    linear(torch.zeros(rows, k, device="cuda", dtype=torch.bfloat16), [make(tile.rows, k)], tile=tile)
    torch.cuda.synchronize()


def main() -> None:
    if not torch.cuda.is_available():
        print("bench_gemm needs an NVIDIA GPU")
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2)
    rows = parser.parse_args().rows
    wanted = [(rows, k, tile) for k in sorted({k for _, k in SHAPES.values()}) for tile in choices(k)]
    with ProcessPoolExecutor(12, mp_context=get_context("spawn")) as pool:
        list(pool.map(compile_one, wanted))
    for name, (n, k) in SHAPES.items():
        weights = [make(n, k) for _ in range(max(2, CACHE // (n * k // 2)))]
        found = sorted(((seconds(weights, rows, tile), tile) for tile in choices(k)), key=lambda pair: pair[0])
        size = n * k * 0.5625
        best = "; ".join(f"{t.rows}/{t.warps}/{t.blocks}/{t.stages} {s * 1e6:.1f} us" for s, t in found[:5])
        print(
            f"{name:11} {size / found[0][0] / 1e12:.2f} TB/s: {best}; worst {found[-1][0] * 1e6:.1f}; "
            f"default {seconds(weights, rows, None) * 1e6:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
