"""Where a run is placed when GPUs are taken, few, old or on several machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from assets.errors import UserError
from assets.words import Words
from finetune import views
from finetune.gpu import Gpu, Machine
from finetune.memory import EACH, GIB, Shape, estimate
from finetune.plan import LaunchPlan, from_dict, make
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


def test_what_others_hold_is_part_of_the_plan() -> None:
    made = plan(LLAMA_8B, 24, 2, 24, 24)
    assert made.foreign == {"1": 22 * GIB}
    assert "GPU 1 22.0 GB" in views.plan_line(made, None, Words("en"))
    assert "GPU 1" not in views.plan_line(plan(LLAMA_8B, 24, 24), None, Words("en"))
    old = {k: v for k, v in made.to_dict().items() if k != "foreign"} | {"reason": ""}
    assert from_dict(old).gpus == made.gpus


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
    """One truth: the plan says what memory.py counts, for the ranks of this machine."""
    four = plan(LLAMA_70B, 24, 24, 24, 24)
    five = plan(LLAMA_70B, 24, 24, 24, 24, 24)
    assert (four.placement, five.placement) == ("fsdp", "fsdp") and five.host - four.host == EACH
    assert four.host == estimate(LLAMA_70B, SPEC, 4, sharded=True).host
    whole = replace(SPEC, method="lora")
    assert estimate(LLAMA_8B, whole, 4, sharded=True).host > 4 * 2 * LLAMA_8B.parameters


def test_offloaded_weights_are_shared_by_the_machines_that_hold_them() -> None:
    spec = replace(SPEC, hardware=HardwareSpec(offload=True))
    one, half = (estimate(LLAMA_70B, spec, 4, sharded=True, here=n).host for n in (4, 2))
    assert estimate(LLAMA_70B, SPEC, 4, sharded=True).host < one and one - half > 2 * EACH


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
