"""Speed of both answers: transformers' ``generate`` one after the other, and the decode loop, eager and recorded.

By hand, from the folder of app.py: python -m tests.bench.bench_decode llama8b   (or "tiny" on a CPU)

All ways run in one process on one copy of the weights: random, in the shape of the model named, NF4 with a LoRA of
rank 16 on all linear layers. A row gives the seconds until the last of all answers, those for prefill and first token,
and tokens per second per side with the wait for the first token left out and counted. Answers of equal weights are
compared token by token.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from assets.hub import ModelFiles
from compare.decode import Decoder
from compare.decode_graph import EagerSteps, steps_for
from compare.engine import Sampling
from compare.local_engine import CPU_CHUNK
from compare.local_model import load_model, pick_device
from compare.row_lora import Adapter, read_adapter
from tests.gpu.loop import MODELS_FOLDER, write_base

NEVER: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Row:
    """One way. ``seconds`` for all its answers of ``tokens`` each, ``first`` for prefill and the first token."""

    way: str
    arms: int
    tokens: int
    seconds: float
    first: float

    @property
    def step(self) -> float:
        """Seconds per further token of every side."""
        return (self.seconds - self.first) / (self.tokens - 1)

    def line(self) -> str:
        return (
            f"{self.way:34} {self.arms:4} {self.tokens:6} {self.seconds:8.2f} {self.first:8.3f} "
            f"{self.step * 1e3:8.2f} {1 / self.step:8.1f} {self.tokens / self.seconds:8.1f}"
        )


HEADER = (
    f"{'way':34} {'arms':>4} {'tokens':>6} {'seconds':>8} {'first s':>8} {'ms/step':>8} {'tok/s':>8} {'with 1st':>8}"
)


class Bench:
    def __init__(self, base: Path, work: Path, prompt: int, tokens: int) -> None:
        self.device = pick_device("auto")
        reading = load_model(ModelFiles(str(base), base, None), True, self.device)
        self.model = _finished(reading)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # leaves the making of random weights out
        self.work, self.tokens = work, tokens
        vocabulary = self.model.config.vocab_size
        self.prompt = torch.randint(5, vocabulary, (prompt,), generator=torch.Generator().manual_seed(1)).tolist()
        self.rows: list[Row] = []
        self.adapters: list[Adapter] = []

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
        self._add(Row("generate, base then adapter", 2, self.tokens, seconds, first))
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
        self._add(Row(way, 1, self.tokens, seconds, first))
        return answer

    def loop(
        self, way: str, adapters: Sequence[Adapter | None], steps: Callable[[], EagerSteps], sampling: Sampling
    ) -> list[list[int]]:
        """The decode loop; the second run counts, the first one's time with the recordings is printed beside it."""
        chunk = {} if self.device.type == "cuda" else {"chunk": CPU_CHUNK}
        decoder = Decoder(self.model, adapters, steps=steps(), **chunk)
        cold, _, _ = self._answer(decoder, sampling)
        for row in range(decoder.rows):  # the prompt is read anew, the room and the recordings stay
            decoder._held[row].clear()
        seconds, first, answers = self._answer(decoder, sampling)
        self._add(Row(way, len(adapters), sampling.max_new_tokens, seconds, first), f"   first run {cold:.2f} s")
        return answers

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


def compare(bench: Bench, eager_tokens: int) -> None:
    """Every way, then what follows from the figures."""
    cuda = bench.device.type == "cuda"
    greedy = Sampling(temperature=0, max_new_tokens=bench.tokens)
    stock = bench.generate(["one", "two", "three"])
    one = bench.adapters[0]
    arms: dict[int, list[Adapter | None]] = {1: [None], 2: [None, one], 4: [None, *bench.adapters]}
    short = replace(greedy, max_new_tokens=eager_tokens)
    eager = {n: bench.loop("loop, eager", arms[n], EagerSteps, short) for n in arms}
    bench.loop("loop, eager, adapter alone", [one], EagerSteps, short)
    if cuda:
        quick = {n: bench.loop("loop, graph", arms[n], lambda: steps_for(bench.device), greedy) for n in arms}
        bench.loop("loop, graph, adapter alone", [one], lambda: steps_for(bench.device), greedy)
        drawn = Sampling(max_new_tokens=bench.tokens)
        bench.loop("loop, graph, temperature 0.7", arms[2], lambda: steps_for(bench.device), drawn)
        for n in arms:
            print(f"graph against eager, {n} arms:", *(_same(*pair) for pair in zip(quick[n], eager[n], strict=True)))
    both = quick[2] if cuda else eager[2]
    print("loop against generate:", *(_same(*pair) for pair in zip(both, stock, strict=True)))
    print("base, where the two part:", _gap(bench, stock[0], both[0]))
    rows = {(row.way, row.arms): row for row in bench.rows}
    peers, best = rows["generate, base then adapter", 2], rows["loop, graph" if cuda else "loop, eager", 2]
    each = peers.tokens / peers.seconds
    print(f"both answers: {best.tokens / best.seconds / each:.1f} x one after the other (first token counted);")
    print(f"  further tokens alone: {1 / best.step:.1f} tok/s per side")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="tiny")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--eager-tokens", type=int, default=24)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes", "peft"))
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine}; {libraries}")
    print(f"{options.name}, NF4, prompt {options.prompt}, greedy\n{HEADER}", flush=True)
    with tempfile.TemporaryDirectory() as work:
        base = write_base(options.name, Path(os.environ.get(MODELS_FOLDER, work)) / options.name)
        bench = Bench(base, Path(work), options.prompt, options.tokens)
        compare(bench, options.eager_tokens)
        if torch.cuda.is_available():
            print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
        if options.profile and torch.cuda.is_available():
            bench.profile([None, None])
            bench.profile([None, bench.adapters[0]])


if __name__ == "__main__":
    main()
