from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compare.decode import Decoder
from compare.decode_cache import BUCKET, bucketed
from compare.decode_graph import EagerSteps, Forward, GraphSteps, Recorded, steps_for
from compare.decode_lora import Adapter
from compare.engine import Sampling
from tests.compare.tape import TapedReads, TapedSteps
from tests.compare.test_decode import GREEDY, LONG, NEVER, SHORT, VARIED, assert_drawn, load, run
from tests.models import ARCHITECTURES


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Adapter]:
    return load(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Adapter]:
    return load(tmp_path_factory.mktemp("only"), "llama")


class FailingSteps(GraphSteps):
    def _record(self, forward: Forward) -> Recorded:
        forward()
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize("sampling", [GREEDY, VARIED], ids=["greedy", "drawn"])
def test_a_step_recorded_once_and_replayed_across_the_window_equals_a_full_forward(
    pair: tuple[Any, Adapter], sampling: Sampling
) -> None:
    model, adapter = pair
    steps = TapedSteps()
    answers = run(Decoder(model, [None, adapter], steps=steps), {0: SHORT, 1: LONG}, sampling)
    assert len(steps.tapes) == 1 and steps.replays == 40
    assert_drawn(model, None, SHORT, answers[0], sampling)
    assert_drawn(model, adapter, LONG, answers[1], sampling)
    assert answers == run(Decoder(model, [None, adapter], steps=EagerSteps()), {0: SHORT, 1: LONG}, sampling)


def test_a_row_that_ends_stays_in_the_recorded_batch(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    prompts = {0: SHORT, 1: LONG, 2: SHORT}
    free = run(Decoder(model, [None, adapter, adapter]), prompts)
    stop = free[0][5]
    steps = TapedSteps()
    decoder = Decoder(model, [None, adapter, adapter], steps=steps)
    ended = run(decoder, prompts, stops={0: frozenset({stop}), 1: NEVER, 2: NEVER})
    assert ended == {0: free[0][: free[0].index(stop)], 1: free[1], 2: free[2]}
    assert len(steps.tapes) == 1 and decoder.held == [len(SHORT) + len(ended[0]), len(LONG) + 39, len(SHORT) + 39]
    again = {0: [*SHORT, *ended[0], 90, 91], 1: [*LONG, *free[1], 70]}
    eager = Decoder(model, [None, adapter, adapter], steps=EagerSteps())
    assert run(decoder, again) == run(eager, again)


def test_pieces_of_prompt_of_a_shape_met_before_are_replayed(pair: tuple[Any, Adapter]) -> None:
    model, adapter = pair
    steps = TapedReads()
    decoder = Decoder(model, [None, adapter], chunk=64, steps=steps)
    few = replace(VARIED, max_new_tokens=4)
    for number in range(4):
        prompts = {
            0: [1, *(5 + (i * (number + 3)) % 200 for i in range(90 + 5 * number))],
            1: [1, *(9 + (i * (number + 5)) % 200 for i in range(70 - 2 * number))],
        }
        assert run(decoder, prompts, few) == run(Decoder(model, [None, adapter]), prompts, few)
    assert steps.read_replays == 6 and len(steps._reads) == 2


def test_prompts_that_cannot_be_recorded_are_read_as_they_come(
    llama: tuple[Any, Adapter], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(TapedReads):
        def _record_read(self, forward: Any) -> Any:
            raise RuntimeError("planned")

    model, adapter = llama
    decoder = Decoder(model, [None, adapter], steps=Failing())
    few = replace(VARIED, max_new_tokens=4)
    for prompts in ({0: SHORT, 1: LONG}, {0: LONG, 1: SHORT}, {0: SHORT, 1: LONG}):
        assert run(decoder, prompts, few) == run(Decoder(model, [None, adapter]), prompts, few)
    assert caplog.messages == ["prompts are not recorded: RuntimeError: planned"]


def test_recordings_last_until_the_cache_grows(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    steps = TapedSteps()
    decoder = Decoder(model, [None, adapter], steps=steps)
    few = replace(VARIED, max_new_tokens=4)
    run(decoder, {0: SHORT, 1: LONG}, few)
    run(decoder, {0: LONG, 1: SHORT}, GREEDY)
    assert len(steps.tapes) == 1
    run(decoder, {1: SHORT}, few)
    assert len(steps.tapes) == 2
    long = [1, *(5 + i % 200 for i in range(BUCKET - 8))]
    prompts = {0: long, 1: SHORT}
    assert run(decoder, prompts) == run(Decoder(model, [None, adapter]), prompts)
    assert len(steps.tapes) == 4


@pytest.mark.parametrize("steps_before", [1, 2, 6])
def test_closing_with_a_step_on_its_way(llama: tuple[Any, Adapter], steps_before: int) -> None:
    model, adapter = llama
    decoder = Decoder(model, [None, adapter], steps=TapedSteps())
    answering = decoder.answer({0: LONG, 1: SHORT}, GREEDY, {0: NEVER, 1: NEVER})
    for _ in range(steps_before):
        next(answering)
    answering.close()
    prompts = {0: [*LONG, 70, 71], 1: [*SHORT, 70]}
    assert run(decoder, prompts) == run(Decoder(model, [None, adapter]), prompts)


def test_the_end_of_the_context_and_the_penalty(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    sampling = Sampling(temperature=1.2, top_p=0.9, max_new_tokens=30, seed=3, repetition_penalty=1.2)
    full = [1] * (model.config.max_position_embeddings - 5)
    prompts = {0: full, 1: SHORT}
    answers = run(Decoder(model, [None, adapter], steps=TapedSteps()), prompts, sampling)
    assert len(answers[0]) == 5 and len(answers[1]) == 30
    assert answers == run(Decoder(model, [None, adapter], steps=EagerSteps()), prompts, sampling)


def test_a_model_that_cannot_be_recorded_runs_as_it_comes(
    llama: tuple[Any, Adapter], caplog: pytest.LogCaptureFixture
) -> None:
    model, adapter = llama
    steps = FailingSteps()
    prompts = {0: SHORT, 1: LONG}
    with caplog.at_level(logging.WARNING):
        answers = run(Decoder(model, [None, adapter], steps=steps), prompts)
    assert answers == run(Decoder(model, [None, adapter], steps=EagerSteps()), prompts)
    assert not steps.ahead and caplog.messages == [
        "decode steps are not recorded: RuntimeError: operation not permitted when stream is capturing"
    ]


def test_an_error_while_recording_leaves_nothing_behind(llama: tuple[Any, Adapter]) -> None:
    model, adapter = llama
    decoder = Decoder(model, [None, adapter], steps=TapedSteps())

    def fail(*_: Any) -> None:
        raise RuntimeError("planned")

    answering = decoder.answer({0: LONG, 1: SHORT}, GREEDY, {0: NEVER, 1: NEVER})
    next(answering), next(answering)
    fault = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="planned"):
        next(answering)
    fault.remove()
    assert not any(module._forward_hooks for module in model.modules()) and decoder.held == [0, 0]
    prompts = {0: SHORT, 1: LONG}
    assert run(decoder, prompts) == run(Decoder(model, [None, adapter]), prompts)


def test_sizes_are_few_and_never_too_small() -> None:
    sizes = [bucketed(length) for length in range(1, 8193)]
    assert all(size >= length for length, size in enumerate(sizes, 1))
    assert all(size - length <= max(BUCKET, length / 2) for length, size in enumerate(sizes, 1))
    assert len(set(sizes)) == 10


def test_only_cuda_records(tmp_path: Path) -> None:
    assert type(steps_for(torch.device("cpu"))) is EagerSteps
    assert type(steps_for(torch.device("cuda"))) is GraphSteps
