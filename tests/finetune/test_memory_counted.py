"""The planner's activations against a count of what the installed libraries keep alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from finetune.memory_activations import step
from finetune.spec import DataSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec

SPEC = TrainSpec(ModelSpec("m"), DataSpec("d"))
CLOSE = 0.06


@pytest.fixture(scope="module", autouse=True)
def cuda() -> Iterator[None]:
    from tests.finetune.counted import as_on_cuda

    with pytest.MonkeyPatch.context() as patch:
        as_on_cuda(patch)
        yield
    assert not torch.is_autocast_enabled("cpu"), "later tests of this process would compute in bfloat16"


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(("texts", "length"), [(1, 512), (4, 2048)])
@pytest.mark.parametrize("name", ["llama1b", "llama8b", "gemma2_2b", "gemma2_9b"])
def test_what_a_step_keeps(name: str, texts: int, length: int, checkpointing: bool) -> None:
    """Six layers of the real shapes: what waits between the passes, and the most of the backward pass."""
    from tests.finetune.counted import count
    from tests.gpu.packed_base import shape_of

    shape = replace(shape_of(name), layers=6, vocab=256)
    schedule = ScheduleSpec(micro_batch=texts, max_length=length, checkpointing=checkpointing, packing=True)
    planned = step(shape, replace(SPEC, schedule=schedule), 2 * shape.widest)
    found = count(shape, texts, length, checkpointing)
    assert planned.kept == pytest.approx(found.held, rel=0.1 if checkpointing else 0.03)
    assert planned.kept + planned.work == pytest.approx(found.most, rel=CLOSE)


@pytest.mark.parametrize(("rank", "dropout"), [(16, 0.1), (256, 0.0)])
def test_what_an_adapter_adds(rank: int, dropout: float) -> None:
    from tests.finetune.counted import count
    from tests.gpu.packed_base import shape_of

    shape = replace(shape_of("llama1b"), layers=4, vocab=256)
    spec = replace(SPEC, lora=LoraSpec(rank=rank, dropout=dropout), schedule=ScheduleSpec(checkpointing=False))
    found = count(shape, 1, spec.schedule.max_length, False, rank, dropout)
    assert step(shape, spec, 2 * shape.widest).kept == pytest.approx(found.held, rel=CLOSE)
