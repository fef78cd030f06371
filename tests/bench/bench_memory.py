"""Where the memory of both answers goes: what is allocated after every stage, the peaks between, the largest blocks.

By hand on a GPU, from the folder of app.py: python -m tests.bench.bench_memory llama8b

The stages are those of a comparison: weights, kernels, adapter, decoder, prompt, steps. Blocks of 32 MiB that belong to
nothing are cuBLAS' work spaces, one per stream (decode_streams.py). A prompt is read three times: in a shape that is
new, again (recorded), again (replayed); the first is what a person meets who asks something of a new length.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from compare.decode import Decoder
from compare.decode_fused import prepare
from compare.decode_lora import read_adapter
from compare.engine import Sampling
from tests.bench.bench_decode import NEVER, Bench, _tune
from tests.gpu.loop import write_base

MIB = 2**20


class Stages:
    """Prints what a stage left, and how far above that it went."""

    def __init__(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def after(self, name: str) -> None:
        torch.cuda.synchronize()
        held, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        print(f"{name:36} {held / MIB:10.1f} MiB held, {(peak - held) / MIB:8.1f} MiB more at its peak", flush=True)
        torch.cuda.reset_peak_memory_stats()


def blocks(segments: Iterable[Mapping[str, Any]], least: int = MIB) -> Counter[int]:
    """How many blocks of each size (bytes) are in use, of ``least`` bytes or more."""
    used = (block for segment in segments for block in segment["blocks"] if block["state"] == "active_allocated")
    return Counter(int(block["size"]) for block in used if block["size"] >= least)


def run(bench: Bench, decoder: Decoder, tokens: int) -> tuple[float, float]:
    """Seconds to the first token and in all."""
    for row in range(decoder.rows):
        decoder._held[row].clear()
    prompts = dict.fromkeys(range(decoder.rows), bench.prompt)
    torch.cuda.synchronize()
    began, first = time.perf_counter(), 0.0
    for step in decoder.answer(prompts, Sampling(temperature=0, max_new_tokens=tokens), dict.fromkeys(prompts, NEVER)):
        if step.tokens:
            first = first or time.perf_counter() - began
    torch.cuda.synchronize()
    return first, time.perf_counter() - began


def main() -> None:
    if not torch.cuda.is_available():
        print("bench_memory needs an NVIDIA GPU")
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="llama8b")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        stages = Stages()
        bench = Bench(write_base(options.name, Path(work) / "base"), Path(work), options.prompt, options.tokens)
        stages.after("weights")
        tuned = _tune(bench.model, ["one"])
        tuned.save_pretrained(work, selected_adapters=["one"])
        bench.model = tuned.unload()
        del tuned
        stages.after("a trip through peft")
        bench.model.decode_kernels = prepare(bench.model)
        stages.after("kernels: scales in float32")
        adapter = read_adapter(Path(work) / "one", bench.model, bench.model.dtype)
        stages.after("adapter")
        for arms in ([None], [None, adapter]):
            decoder = Decoder(bench.model, arms)
            stages.after(f"decoder of {len(arms)}: adapters' stacks")
            for shape in ("new", "recorded", "replayed"):
                first, seconds = run(bench, decoder, options.tokens)
                stages.after(f"{shape} shape: first {first * 1e3:.1f} ms, all {seconds:.2f} s")
            print(f"cache {decoder.cache_bytes() / MIB:.1f} MiB")
            del decoder
        found = blocks(torch.cuda.memory.memory_snapshot())
        print("blocks in use:", ", ".join(f"{n} x {size / MIB:.1f} MiB" for size, n in found.most_common(12)))


if __name__ == "__main__":
    main()
