"""Speed of both answers: transformers' ``generate`` one after the other, and the decode loop with and without kernels.

By hand, from the folder of app.py: python -m tests.bench.bench_decode llama8b   (or gemma2_9b, or "tiny" on a CPU)

All ways run in one process on one copy of the weights: random, in the shape of the model named, NF4 with a LoRA of
rank 16 on all linear layers. A row gives the seconds until the last of all answers, those for prefill and first token,
tokens per second per side with the wait for the first token left out and counted, and the peak of memory beside what
weights, adapters and cache make together. Answers of equal weights are compared token by token.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from assets.hub import ModelFiles
from compare.decode import Decoder
from compare.decode_fused import prepare
from compare.decode_graph import EagerSteps, steps_for
from compare.decode_lora import Adapter, read_adapter
from compare.engine import Sampling
from compare.local_engine_group import CPU_CHUNK
from compare.local_engine_model import load_model, memory_held, pick_device
from tests.gpu.loop import MODELS_FOLDER, write_base

NEVER: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Row:
    """One way. ``seconds`` for all its answers of ``tokens`` each, ``first`` for prefill and the first token; bytes of
    memory at most, and of base, adapters and cache."""

    way: str
    arms: int
    prompt: int
    tokens: int
    seconds: float
    first: float
    peak: int = 0
    needed: int = 0

    @property
    def step(self) -> float:
        """Seconds per further token of every side."""
        return (self.seconds - self.first) / (self.tokens - 1)

    def line(self) -> str:
        memory = f"{self.peak / 2**30:6.2f} = {self.peak / self.needed:.3f}" if self.needed else ""
        return (
            f"{self.way:28} {self.arms:4} {self.prompt:6} {self.tokens:6} {self.seconds:8.3f} {self.first:8.4f} "
            f"{self.step * 1e3:8.3f} {1 / self.step:7.1f} {self.tokens / self.seconds:8.1f} {memory}"
        )


HEADER = (
    f"{'way':28} {'arms':>4} {'prompt':>6} {'tokens':>6} {'seconds':>8} {'first s':>8} {'ms/step':>8} {'tok/s':>7} "
    f"{'with 1st':>8} peak GiB = x needed"
)


class Bench:
    def __init__(self, base: Path, work: Path, prompt: int, tokens: int) -> None:
        self.device = pick_device("auto")
        reading = load_model(ModelFiles(str(base), base, None), True, self.device, kernels=False)
        self.model = _finished(reading)
        self.base_bytes = memory_held(self.device)
        self.work, self.tokens = work, tokens
        self.prompt = self.make_prompt(prompt)
        self.rows: list[Row] = []
        self.adapters: list[Adapter] = []

    def make_prompt(self, length: int) -> list[int]:
        noise = torch.Generator().manual_seed(1)
        return torch.randint(5, self.model.config.vocab_size, (length,), generator=noise).tolist()

    def generate(self, names: Sequence[str]) -> list[list[int]]:
        """The peers' way: base, then the adapter with PEFT. Both answers; the adapters stay, for the loop."""
        answers = [self._generate("generate, base", self.model)]
        tuned = _tune(self.model, names)
        for name in names:
            tuned.set_adapter(name)
            tuned.save_pretrained(str(self.work), selected_adapters=[name])
        tuned.set_adapter(names[0])
        answers.append(self._generate("generate, adapter", tuned))
        base, adapter = self.rows[-2:]
        seconds, first = base.seconds + adapter.seconds, base.first + adapter.first
        self._add(Row("generate, base then adapter", 2, len(self.prompt), self.tokens, seconds, first))
        self.model = tuned.unload()
        dtype = self.model.dtype if self.device.type == "cuda" else torch.float32
        self.adapters = [read_adapter(self.work / name, self.model, dtype) for name in names]
        return answers

    def _generate(self, way: str, model: Any) -> list[int]:
        ids = torch.tensor([self.prompt], device=self.device)

        def run(tokens: int) -> tuple[float, list[int]]:
            self._wait()
            began = time.perf_counter()
            limits = {"max_new_tokens": tokens, "min_new_tokens": tokens}
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **limits)
            self._wait()
            return time.perf_counter() - began, out[0, len(self.prompt) :].tolist()

        run(2)
        first, _ = run(1)
        seconds, answer = run(self.tokens)
        self._add(Row(way, 1, len(self.prompt), self.tokens, seconds, first))
        return answer

    def loop(
        self, way: str, adapters: Sequence[Adapter | None], steps: Callable[[], EagerSteps], sampling: Sampling
    ) -> list[list[int]]:
        """The decode loop; the fastest of two runs after the first counts, whose time is printed beside it."""
        chunk = {} if self.device.type == "cuda" else {"chunk": CPU_CHUNK}
        self._forget_peak()
        decoder = Decoder(self.model, adapters, steps=steps(), **chunk)
        cold, _, _ = self._answer(decoder, sampling)
        runs = []
        for _ in range(2):
            for row in range(decoder.rows):  # the prompt is read anew, the room and the recordings stay
                decoder._held[row].clear()
            runs.append(self._answer(decoder, sampling))
        seconds, first = min(run[0] for run in runs), min(run[1] for run in runs)
        carried = {adapter.name: adapter.parameters for adapter in adapters if adapter}
        needed = self.base_bytes + sum(carried.values()) * self.model.dtype.itemsize + decoder.cache_bytes()
        cuda = self.device.type == "cuda"
        memory = (torch.cuda.max_memory_allocated() - self._spare(carried), needed) if cuda else (0, 0)
        row = Row(way, len(adapters), len(self.prompt), sampling.max_new_tokens, seconds, first, *memory)
        self._add(row, f"   first run {cold:.2f} s")
        return runs[-1][2]

    def _forget_peak(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _spare(self, carried: Mapping[str, int]) -> int:
        """Bytes of adapters that wait for other ways."""
        others = (adapter.parameters for adapter in self.adapters if adapter.name not in carried)
        return sum(others) * self.model.dtype.itemsize

    def _answer(self, decoder: Decoder, sampling: Sampling) -> tuple[float, float, list[list[int]]]:
        answers: list[list[int]] = [[] for _ in range(decoder.rows)]
        prompts = {row: self.prompt for row in range(decoder.rows)}
        self._wait()
        began = time.perf_counter()
        first = 0.0
        for step in decoder.answer(prompts, sampling, dict.fromkeys(prompts, NEVER)):
            for row, token in step.tokens.items():
                first = first or time.perf_counter() - began
                answers[row].append(token)
        self._wait()
        return time.perf_counter() - began, first, answers

    def steps(self) -> EagerSteps:
        return steps_for(self.device)

    def _add(self, row: Row, note: str = "") -> None:
        self.rows.append(row)
        print(row.line() + note, flush=True)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def profile(self, adapters: Sequence[Adapter | None]) -> None:
        """The kernels of recorded steps, by time."""
        from torch.profiler import ProfilerActivity, profile

        decoder = Decoder(self.model, adapters)
        greedy = Sampling(temperature=0, max_new_tokens=24)
        self._answer(decoder, greedy)
        for row in range(decoder.rows):
            decoder._held[row].clear()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            self._answer(decoder, greedy)
        for event in sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)[:16]:
            print(f"  {event.self_device_time_total / 24:9.1f} us/token x{event.count / 24:<6.1f} {event.key[:96]}")


def _tune(model: Any, names: Sequence[str]) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        tuned.add_adapter(name, config)
    torch.manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return tuned.eval()


def _finished(reading: Iterator[Any]) -> Any:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def _gap(bench: Bench, stock: Sequence[int], ours: Sequence[int]) -> str:
    """Where two greedy answers of the base part: how far apart the two tokens' logits are in a plain forward."""
    i = next((i for i, (old, new) in enumerate(zip(stock, ours, strict=False)) if old != new), None)
    if i is None:
        return "equal throughout"
    with torch.inference_mode():
        ids = torch.tensor([[*bench.prompt, *stock[:i]]], device=bench.device)
        logits = bench.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
    return (
        f"token {i}: {float((logits[stock[i]] - logits[ours[i]]).abs() / logits.std()):.3f} of the logits' spread apart"
    )


def _same(answers: Sequence[int], others: Sequence[int]) -> str:
    length = min(len(answers), len(others))
    parted = next((i for i in range(length) if answers[i] != others[i]), None)
    return f"all {length} tokens equal" if parted is None else f"parted at token {parted} of {length}"


def compare(bench: Bench, eager_tokens: int, others: Sequence[int]) -> None:
    """Every way, then what follows from the figures."""
    cuda = bench.device.type == "cuda"
    greedy = Sampling(temperature=0, max_new_tokens=bench.tokens)
    stock = bench.generate(["one", "two", "three"])
    arms = arms_of(bench)
    short = replace(greedy, max_new_tokens=eager_tokens)
    answers = bench.loop("eager, stock kernels", arms["2"], EagerSteps, short)
    if cuda:
        slow = {key: bench.loop("graph, stock kernels", arms[key], bench.steps, greedy) for key in ("1", "2", "4")}
        print("graph against eager:", *(_same(*pair) for pair in zip(slow["2"], answers, strict=True)))
        print("stock graph against generate:", *(_same(*pair) for pair in zip(slow["2"], stock, strict=True)))
        began = time.perf_counter()
        bench.model.decode_kernels = kernels = prepare(bench.model)
        whole = kernels is not None and kernels.architecture is not None
        print(
            f"kernels {'of ours' if kernels else 'stay stock'}, whole step {whole}: {time.perf_counter() - began:.1f} s"
        )
        quick = {key: bench.loop(way(key), own, bench.steps, greedy) for key, own in arms.items()}
        bench.loop("ours, temperature 0.7", arms["2"], bench.steps, Sampling(max_new_tokens=bench.tokens))
        print("ours, alone against together:", _same(quick["1"][0], quick["2"][0]), _same(quick["a"][0], quick["2"][1]))
        for length in others:
            bench.prompt = bench.make_prompt(length)
            for key in ("1", "a", "2"):
                bench.loop(way(key), arms[key], bench.steps, replace(greedy, max_new_tokens=32))
        bench.prompt = bench.make_prompt(bench.rows[0].prompt)
        answers = quick["2"]
    print("loop against generate:", *(_same(*pair) for pair in zip(answers, stock, strict=True)))
    print("base, where the two part:", _gap(bench, stock[0], answers[0]))
    if cuda:
        conclude(bench)


def arms_of(bench: Bench) -> dict[str, list[Adapter | None]]:
    one = bench.adapters[0]
    return {"1": [None], "a": [one], "2": [None, one], "4": [None, *bench.adapters]}


def way(key: str) -> str:
    return "ours, adapter alone" if key == "a" else "ours"


def conclude(bench: Bench) -> None:
    """The ratios that count."""
    rows = {(row.way, row.arms, row.prompt): row for row in bench.rows}
    length = bench.rows[0].prompt
    peers, best = rows["generate, base then adapter", 2, length], rows["ours", 2, length]
    slow, one = rows["graph, stock kernels", 2, length], rows["ours", 1, length]
    print(
        f"both: {best.tokens / best.seconds * peers.seconds / peers.tokens:.1f} x one after the other, first token in"
    )
    print(f"both, ours against stock kernels: {slow.step / best.step:.2f} x; {1 / best.step:.1f} tok/s per side")
    print(f"both against one side: step x {best.step / one.step:.3f}; answer x {best.seconds / one.seconds:.3f}")
    print(f"four against one side: step x {rows['ours', 4, length].step / one.step:.3f}")
    for prompt in sorted({row.prompt for row in bench.rows}):
        one, alone, both = (rows[key, n, prompt] for key, n in (("ours", 1), ("ours, adapter alone", 1), ("ours", 2)))
        print(
            f"prompt {prompt}: first token of both x {both.first / one.first:.3f} of the base alone, "
            f"x {both.first / alone.first:.3f} of the adapter alone, x {both.first / (one.first + alone.first):.3f} "
            f"of the sum; step x {both.step / one.step:.3f} and x {both.step / alone.step:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="tiny")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--eager-tokens", type=int, default=24)
    parser.add_argument(
        "--prompts", type=int, nargs="*", default=[128, 4096], help="further lengths, our kernels alone"
    )
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes", "peft"))
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine}; {libraries}")
    print(f"{options.name}, NF4, prompt {options.prompt}, greedy\n{HEADER}", flush=True)
    with tempfile.TemporaryDirectory() as work:
        base = write_base(options.name, Path(os.environ.get(MODELS_FOLDER, work)) / options.name)
        bench = Bench(base, Path(work), options.prompt, options.tokens)
        compare(bench, options.eager_tokens, options.prompts)
        if options.profile and torch.cuda.is_available():
            bench.profile([None])
            bench.profile([None, bench.adapters[0]])


if __name__ == "__main__":
    main()
