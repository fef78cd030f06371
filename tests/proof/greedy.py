"""Greedy answers of the joint pass against `generate` of each model alone, on real weights, token by token.

By hand, from the folder of app.py (the starter and an adapter trained here; about 20 minutes on two CPU cores):
    python -m tests.proof.greedy --adapter workspace/jobs/<id>/adapter [--count 64] [--tokens 64] [--weights float32]

Prints one line per difference and ends with 1 when one of them is more than rounding. Does not cover: stored answers
(regenerate.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from assets.catalog import STARTER, prompts
from assets.chat import ChatFormat
from assets.files import Workspace
from assets.hub import locate
from compare.decode import Decoder
from compare.decode_lora import read_adapter
from compare.engine import Sampling
from compare.local_engine_model import load_model
from tests.proof.stock import Doubt, Stock

SIDES = ("base", "tuned")


@dataclass(frozen=True)
class Difference:
    """An answer that is not what `generate` wrote, and its tokens that the model alone would not have drawn there:
    after a tie the rest is another answer, each token of which is judged after the ones before it."""

    prompt: str
    side: str
    doubts: tuple[Doubt, ...]


@dataclass(frozen=True)
class Outcome:
    """``answers`` compared, ``tokens`` in them, and the answers that part."""

    answers: int
    tokens: int
    differences: tuple[Difference, ...]

    @property
    def wrong(self) -> tuple[Difference, ...]:
        return tuple(d for d in self.differences if not all(doubt.tie for doubt in d.doubts))


def joint(
    base: Path, adapter: Path, prompts: Sequence[Sequence[int]], stops: frozenset[int], tokens: int, weights: str
) -> list[dict[str, list[int]]]:
    """Greedy tokens of both rows of one pass, per prompt."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    reading = load_model(locate(Workspace.from_environment(), str(base)), weights == "nf4", device)
    try:
        while True:
            next(reading)
    except StopIteration as end:
        model = end.value
    if weights != "nf4":
        model = model.to(getattr(torch, weights))
    decoder = Decoder(model, [None, read_adapter(adapter, model, torch.float32)])
    greedy = Sampling(temperature=0, max_new_tokens=tokens)
    answers = []
    for prompt in prompts:
        rows: dict[int, list[int]] = {0: [], 1: []}
        for step in decoder.answer({0: prompt, 1: prompt}, greedy, {0: stops, 1: stops}):
            for row, token in step.tokens.items():
                rows[row].append(token)
        answers.append(dict(zip(SIDES, rows.values(), strict=True)))
    return answers


def compare(base: Path, adapter: Path, questions: Sequence[str], tokens: int, weights: str = "nf4") -> Outcome:
    """Ask all of ``questions`` in both ways."""
    chat = ChatFormat.from_folder(base)
    ids = [chat.encode_prompt([{"role": "user", "content": question}]) for question in questions]
    ours = joint(base, adapter, ids, frozenset(chat.stop_ids), tokens, weights)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    found: list[Difference] = []
    for side, folder in zip(SIDES, (None, adapter), strict=True):
        stock = Stock(base, folder, weights, device)
        for question, prompt, answer in zip(questions, ids, ours, strict=True):
            alone = stock.greedy(prompt, tokens, chat.stop_ids)
            if alone != answer[side]:
                over = len(answer[side]) < tokens
                found.append(Difference(question, side, stock.doubts(prompt, answer[side], chat.stop_ids, over)))
    return Outcome(2 * len(ours), sum(len(a[side]) for a in ours for side in SIDES), tuple(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--base", default=STARTER)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--weights", default="nf4")
    asked = parser.parse_args()
    base = locate(Workspace.from_environment(), asked.base).folder
    half = asked.count // 2
    mixed = [*prompts("emotion")[: asked.count - half], *prompts("science")[:half]]
    began = time.monotonic()
    outcome = compare(base, asked.adapter, [p.messages[-1]["content"] for p in mixed], asked.tokens, asked.weights)
    for d in outcome.differences:
        print(f"{d.side:>5} {d.prompt[:40]}")
        for p in d.doubts:
            kind = "a tie" if p.tie else "NOT A TIE"
            print(
                f"      token {p.place}: {p.drawn} against {p.best}, gap {p.gap:.4f}, rounding {p.rounding:.4f}: {kind}"
            )
    print(
        f"{outcome.answers} answers, {outcome.tokens} tokens, {len(outcome.differences)} differ, {len(outcome.wrong)} "
        f"of them by more than ties; {asked.weights}, {time.monotonic() - began:.0f} s"
    )
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
