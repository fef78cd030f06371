"""On a GPU: recorded steps give the tokens of eager ones and of a full forward. Skipped without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assets.attention import attention_for
from compare.decode import Decoder
from compare.decode_graph import EagerSteps, GraphSteps
from compare.decode_lora import RowAdapters, read_adapter
from compare.decode_sample import Sampler
from tests.compare.test_decode import GREEDY, LONG, SHORT, VARIED, load, run
from tests.models import ARCHITECTURES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graph_equals_eager_and_a_full_forward(tmp_path: Path, architecture: str) -> None:
    model = load(tmp_path, architecture)[0].to("cuda")
    model.set_attn_implementation(attention_for(model.config, cuda=True))
    adapter = read_adapter(tmp_path / "adapter", model, torch.float32)
    prompts = {0: SHORT, 1: LONG, 2: LONG}
    for sampling in (GREEDY, VARIED, replace(VARIED, repetition_penalty=1.2)):
        steps = GraphSteps()
        decoder = Decoder(model, [None, adapter, adapter], steps=steps)
        answers = run(decoder, prompts, sampling)
        assert steps.ahead and len(steps._recorded) == 1
        assert answers == run(Decoder(model, [None, adapter, adapter], steps=EagerSteps()), prompts, sampling)
        if sampling is GREEDY:
            assert answers[1] == _plain(model, adapter, LONG, answers[1])
        longer = {row: [*prompt, *answers[row], *range(60, 250)] for row, prompt in prompts.items()}
        again = run(decoder, longer, sampling)
        assert again == run(Decoder(model, [None, adapter, adapter], steps=EagerSteps()), longer, sampling)


def _plain(model: Any, adapter: Any, prompt: list[int], answer: list[int]) -> list[int]:
    ids = torch.tensor([[*prompt, *answer]], device="cuda")
    with torch.inference_mode(), RowAdapters(model, [adapter]).attached(0, 1):
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    places = len(prompt) + torch.arange(len(answer), device="cuda")[:, None]
    drawn: list[int] = Sampler(GREEDY, torch.device("cuda")).draw(logits, places, None)[:, 0].tolist()
    return drawn
