from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from compare.decode import Decoder
from compare.decode_cache import BUCKET
from compare.decode_lora import Adapter, RowAdapters, read_adapter
from compare.decode_sample import Sampler
from compare.engine import Sampling
from tests.models import ARCHITECTURES, WINDOW, make_adapter, make_model

GREEDY = Sampling(temperature=0, max_new_tokens=40)
VARIED = Sampling(temperature=1.5, top_p=0.98, max_new_tokens=40, seed=5)
NEVER: frozenset[int] = frozenset()
SHORT, LONG = [1, 3, 30, 31, 32], [1, 3, *range(60, 60 + WINDOW + 9), 4]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Adapter]:
    """A float32 model, not quantised, so that results can be compared to the last digits, and an adapter for it."""
    root = tmp_path_factory.mktemp(request.param)
    return load(root, request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Adapter]:
    return load(tmp_path_factory.mktemp("only"), "llama")


def load(root: Path, architecture: str) -> tuple[Any, Adapter]:
    base = make_model(root / "base", architecture)
    attention = "eager" if architecture == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=attention).eval()
    return model, read_adapter(make_adapter(base, root / "adapter"), model, torch.float32)


def run(
    decoder: Decoder,
    prompts: Mapping[int, Sequence[int]],
    sampling: Sampling = VARIED,
    stops: Mapping[int, frozenset[int]] | None = None,
) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {row: [] for row in prompts}
    for step in decoder.answer(prompts, sampling, stops or dict.fromkeys(prompts, NEVER)):
        for row, token in step.tokens.items():
            tokens[row].append(token)
    return tokens


def assert_drawn(
    model: Any, adapter: Adapter | None, prompt: Sequence[int], answer: Sequence[int], sampling: Sampling
) -> None:
    """Each token is what plain logits over all tokens before it give: one forward, no cache and no mask of ours."""
    with torch.inference_mode(), RowAdapters(model, [adapter]).attached(0, 1):
        logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    places = len(prompt) + torch.arange(len(answer))[:, None]
    assert Sampler(sampling, torch.device("cpu")).draw(logits, places, None)[:, 0].tolist() == list(answer)


@pytest.mark.parametrize("sampling", [GREEDY, VARIED], ids=["greedy", "drawn"])
def test_rows_of_unequal_length_equal_each_alone_across_the_window(
    pair: tuple[Any, Adapter], sampling: Sampling
) -> None:
    model, adapter = pair
    together = run(Decoder(model, [None, adapter, None]), {0: SHORT, 1: LONG, 2: LONG}, sampling)
    assert all(len(answer) == 40 for answer in together.values())
    assert together[0] == run(Decoder(model, [None]), {0: SHORT}, sampling)[0]
    assert together[1] == run(Decoder(model, [adapter]), {0: LONG}, sampling)[0]
    assert together[2] == run(Decoder(model, [None]), {0: LONG}, sampling)[0]
    assert_drawn(model, None, SHORT, together[0], sampling)
    assert_drawn(model, adapter, LONG, together[1], sampling)
    assert_drawn(model, None, LONG, together[2], sampling)
    if sampling is VARIED:
        assert together[1] != together[2]
        assert len(set(together[1])) > 10


def test_greedy_equals_generate(pair: tuple[Any, Adapter]) -> None:
    model, _ = pair
    ids = torch.tensor([LONG])
    expected = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40, eos_token_id=None
    )
    assert run(Decoder(model, [None]), {0: LONG}, GREEDY)[0] == expected[0, len(LONG) :].tolist()


def test_later_turns_reuse_the_cache_and_equal_a_fresh_start(pair: tuple[Any, Adapter]) -> None:
    model, adapter = pair
    decoder = Decoder(model, [None, adapter])
    first = run(decoder, {0: LONG, 1: LONG}, replace(VARIED, max_new_tokens=7))
    assert decoder.held == [len(LONG) + 6] * 2
    follow_up = [4, 3, 80, 81, 82, 83]
    prompts = {0: [*LONG, *first[0], *follow_up], 1: [*LONG, *first[1][:3], *follow_up]}
    steps = decoder.answer(prompts, VARIED, dict.fromkeys(prompts, NEVER))
    next(steps), next(steps)
    assert decoder.held == [len(prompts[0]) - 1, len(prompts[1]) - 1]
    steps.close()
    assert run(decoder, prompts) == run(Decoder(model, [None, adapter]), prompts)


def test_chunks_and_a_growing_cache_change_nothing(pair: tuple[Any, Adapter]) -> None:
    model, adapter = pair
    long = [1, *(5 + i % 200 for i in range(BUCKET - 4))]
    prompts = {0: long, 1: long[:50]}
    small = Decoder(model, [None, adapter], chunk=48)
    run(small, {0: SHORT, 1: SHORT})
    answers = run(small, prompts)
    assert answers == run(Decoder(model, [None, adapter]), prompts)
    assert_drawn(model, None, long, answers[0], VARIED)


def test_a_row_that_ends_leaves_the_others_alone(pair: tuple[Any, Adapter]) -> None:
    model, adapter = pair
    prompts = {0: SHORT, 1: LONG, 2: SHORT}
    free = run(Decoder(model, [None, adapter, adapter]), prompts)
    stop = free[1][5]
    decoder = Decoder(model, [None, adapter, adapter])
    ended = run(decoder, prompts, stops={0: NEVER, 1: frozenset({stop}), 2: NEVER})
    assert ended == {0: free[0], 1: free[1][: free[1].index(stop)], 2: free[2]}
    again = {1: [*LONG, *ended[1], 90, 91]}
    assert run(decoder, again)[1] == run(Decoder(model, [adapter]), {0: again[1]})[0]


def test_an_error_in_a_step_leaves_nothing_behind(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    decoder = Decoder(model, [None, adapter])
    steps = decoder.answer({0: LONG, 1: SHORT}, GREEDY, {0: NEVER, 1: NEVER})
    for _ in range(5):
        next(steps)
    fault = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="planned"):
        next(steps)
    fault.remove()
    assert not any(module._forward_hooks for module in model.modules())
    assert decoder.held == [0, 0]
    prompts = {0: SHORT, 1: LONG}
    assert run(decoder, prompts) == run(Decoder(model, [None, adapter]), prompts)


def fail(*_: Any) -> None:
    raise RuntimeError("planned")


@pytest.mark.parametrize("steps_before", [1, 2, 6])
def test_closing_anywhere_leaves_an_honest_cache(llama: tuple[Any, Adapter], steps_before: int) -> None:
    model, adapter = llama
    decoder = Decoder(model, [None, adapter], chunk=8)
    steps = decoder.answer({0: LONG, 1: SHORT}, GREEDY, {0: NEVER, 1: NEVER})
    for _ in range(steps_before):
        next(steps)
    steps.close()
    assert not any(module._forward_hooks for module in model.modules())
    prompts = {0: [*LONG, 70, 71], 1: [*SHORT, 70]}
    assert run(decoder, prompts) == run(Decoder(model, [None, adapter]), prompts)


def test_lengths_and_the_end_of_the_context(llama: tuple[Any, Adapter]) -> None:
    model, _ = llama
    decoder = Decoder(model, [None])
    none = Sampling(max_new_tokens=0)
    assert [step.ended for step in decoder.answer({0: SHORT}, none, {0: NEVER})] == [{0: "length"}]
    full = [1] * (decoder.context - 3)
    steps = list(decoder.answer({0: full}, GREEDY, {0: NEVER}))
    assert sum(len(step.tokens) for step in steps) == 3
    assert steps[-1].ended == {0: "length"}
    assert run(decoder, {0: [9]})[0] == run(Decoder(model, [None]), {0: [9]})[0]


def test_equal_arms_draw_equal_tokens(llama: tuple[Any, Adapter]) -> None:
    model, _ = llama
    sampling = Sampling(temperature=1.5, top_p=0.95, max_new_tokens=30, seed=11, repetition_penalty=1.1)
    answers = run(Decoder(model, [None, None]), {0: LONG, 1: LONG}, sampling)
    assert answers[0] == answers[1] == run(Decoder(model, [None]), {0: LONG}, sampling)[0]
    other = Sampling(temperature=1.5, top_p=0.95, max_new_tokens=30, seed=12, repetition_penalty=1.1)
    assert answers[0] != run(Decoder(model, [None]), {0: LONG}, other)[0]


def test_one_arm_of_several_may_answer(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    decoder = Decoder(model, [None, adapter])
    assert run(decoder, {1: LONG})[1] == run(Decoder(model, [adapter]), {0: LONG})[0]
    assert decoder.held[0] == 0
