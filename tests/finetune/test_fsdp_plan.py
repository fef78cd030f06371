"""Where a run is placed when GPUs are taken, few, old or on several machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from assets.errors import UserError
from finetune.gpu import Gpu, Machine
from finetune.memory import GIB, Shape
from finetune.plan import LaunchPlan, make
from finetune.spec import ClusterSpec, DataSpec, HardwareSpec, ModelSpec, TrainSpec

SPEC = TrainSpec(ModelSpec("m"), DataSpec("d"))
LLAMA_8B = Shape(4096, 32, 14336, 32, 8, 128, 128256, False)
LLAMA_70B = Shape(8192, 80, 28672, 64, 8, 128, 128256, False)


def plan(shape: Shape, *free: int, spec: TrainSpec = SPEC, memory: int = 200, bfloat16: bool = True) -> LaunchPlan:
    """On 24 GiB cards of which that much is free; the rest is other people's."""
    gpus = tuple(
        Gpu(i, f"uuid-{i}", "card", 24 * GIB, n * GIB, bfloat16, foreign=(24 - n) * GIB) for i, n in enumerate(free)
    )
    return make(spec, Machine(gpus, 8, memory * GIB, memory * GIB, 500 * GIB), shape, Path("/jobs/1"))


@pytest.mark.parametrize(
    ("free", "placement", "gpus"),
    [
        ((24, 24, 24, 24), "ddp", (0, 1, 2, 3)),
        ((24, 2, 24, 24), "ddp", (0, 2, 3)),
        ((2, 2, 24, 2), "single", (2,)),
        ((7, 7, 7, 2), "fsdp", (0, 1, 2)),
    ],
)
def test_gpus_that_others_hold_are_left_out(free: tuple[int, ...], placement: str, gpus: tuple[int, ...]) -> None:
    made = plan(LLAMA_8B, *free)
    assert (made.placement, made.gpus, made.fit != "too_big") == (placement, gpus, True)


def test_offload_comes_last() -> None:
    assert not plan(LLAMA_70B, 24, 24, 24, 24).offload
    two = plan(LLAMA_70B, 24, 24)
    assert (two.placement, two.offload, two.processes) == ("fsdp", True, 2)
    one = plan(LLAMA_70B, 24)
    assert (one.placement, one.offload, one.processes) == ("fsdp", True, 1)
    assert "accelerate.commands.launch" in one.argv and "fsdp_offload_params: true" in one.files["accelerate.yaml"]
    without = plan(LLAMA_70B, 24, 24, memory=16)  # the host cannot take it either
    assert (without.offload, without.fit) == (False, "too_big")


def test_offload_on_one_gpu_when_it_is_asked_for() -> None:
    spec = replace(SPEC, hardware=HardwareSpec(placement="fsdp", offload=True))
    made = plan(LLAMA_8B, 24, spec=spec)
    assert (made.placement, made.offload, made.processes) == ("fsdp", True, 1)


def test_ranks_share_one_copy_in_host_memory() -> None:
    four, two = plan(LLAMA_70B, 24, 24, 24, 24).host, plan(LLAMA_70B, 24, 24).host
    assert four - two == 2 * 2 * GIB


def test_gemma_is_not_trained_in_float16() -> None:
    gemma = replace(SPEC, model=ModelSpec("google/gemma-2-2b-it"))
    assert plan(LLAMA_8B, 24, spec=gemma).precision == "bfloat16"
    with pytest.raises(UserError) as caught:
        plan(LLAMA_8B, 24, spec=gemma, bfloat16=False)
    assert caught.value.key == "plan.no_float16"
    assert plan(LLAMA_8B, 24, bfloat16=False).precision == "float16"


def test_several_machines() -> None:
    cluster = ClusterSpec(machines=2, rank=1, address="10.0.0.7", port=29501)
    made = plan(LLAMA_70B, 24, 24, spec=replace(SPEC, cluster=cluster))
    assert (made.placement, made.processes, made.gpus, made.offload) == ("fsdp", 4, (0, 1), False)
    config = yaml.safe_load(made.files["accelerate.yaml"])
    wanted = {"num_machines": 2, "machine_rank": 1, "main_process_ip": "10.0.0.7", "main_process_port": 29501}
    assert config.items() >= (wanted | {"num_processes": 4}).items()
    assert plan(LLAMA_8B, 24, spec=replace(SPEC, cluster=cluster)).placement == "ddp"
    with pytest.raises(UserError) as caught:
        plan(LLAMA_8B, 24, spec=replace(SPEC, cluster=ClusterSpec(machines=2)))
    assert caught.value.key == "plan.no_address"
    with pytest.raises(UserError):
        replace(SPEC, cluster=ClusterSpec(machines=2, rank=2))
