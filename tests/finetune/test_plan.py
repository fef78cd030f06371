"""From a spec and a machine to one command."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.errors import UserError
from finetune.gpu import Gpu, Machine
from finetune.memory import GIB, Shape
from finetune.plan import LaunchPlan, from_dict, make, shown
from finetune.spec import DataSpec, HardwareSpec, ModelSpec, ScheduleSpec, TrainSpec

SPEC = TrainSpec(ModelSpec("m"), DataSpec("d"))
STARTER = Shape(576, 30, 1536, 9, 3, 64, 49152, True)
LLAMA_8B = Shape(4096, 32, 14336, 32, 8, 128, 128256, False)
LLAMA_70B = Shape(8192, 80, 28672, 64, 8, 128, 128256, False)
FOLDER = Path("/home/나/work space/jobs/20261123-1")


def gpu(index: int, gib: int, free: float | None = None, bfloat16: bool = True) -> Gpu:
    return Gpu(index, f"uuid-{index}", "card", gib * GIB, int((gib if free is None else free) * GIB), bfloat16)


def machine(*gpus: Gpu, cpu_bfloat16: bool = False, memory: int = 64) -> Machine:
    return Machine(gpus, 4, memory * GIB, memory * GIB, 100 * GIB, cpu_bfloat16)


def same(count: int, gib: int) -> Machine:
    return machine(*(gpu(index, gib) for index in range(count)))


def hardware(**values: Any) -> TrainSpec:
    return replace(SPEC, hardware=HardwareSpec(**values))


def refused(key: str, spec: TrainSpec, where: Machine) -> UserError:
    with pytest.raises(UserError) as caught:
        make(spec, where, STARTER, FOLDER)
    assert caught.value.key == key
    return caught.value


@pytest.mark.parametrize(
    ("shape", "count", "gib", "placement", "processes", "fit"),
    [
        (STARTER, 0, 0, "cpu", 1, "fits"),
        (STARTER, 1, 24, "single", 1, "fits"),
        (STARTER, 2, 24, "ddp", 2, "fits"),
        (STARTER, 4, 80, "ddp", 4, "fits"),
        (LLAMA_8B, 0, 0, "cpu", 1, "fits"),
        (LLAMA_8B, 1, 24, "single", 1, "fits"),
        (LLAMA_8B, 2, 24, "ddp", 2, "fits"),
        (LLAMA_8B, 4, 24, "ddp", 4, "fits"),
        (LLAMA_8B, 1, 80, "single", 1, "fits"),
        (LLAMA_70B, 1, 24, "fsdp", 1, "fits"),
        (LLAMA_70B, 2, 24, "fsdp", 2, "fits"),
        (LLAMA_70B, 4, 24, "fsdp", 4, "fits"),
        (LLAMA_70B, 1, 80, "single", 1, "fits"),
        (LLAMA_70B, 2, 80, "ddp", 2, "fits"),
        (LLAMA_70B, 4, 80, "ddp", 4, "fits"),
    ],
)
def test_placement(shape: Shape, count: int, gib: int, placement: str, processes: int, fit: str) -> None:
    plan = make(SPEC, same(count, gib), shape, FOLDER)
    assert (plan.placement, plan.processes, plan.fit) == (placement, processes, fit)
    assert plan.devices == (tuple(f"gpu-uuid-{i}" for i in range(count)) or ("cpu",))
    assert plan.gpus == tuple(range(count))
    assert set(plan.files) == ({"accelerate.yaml"} if placement in ("ddp", "fsdp") else set())
    assert 0 < plan.total == sum(plan.parts.values()) and plan.available > 0 and plan.host > 0


def test_a_run_that_fits_one_card_of_unequal_ones_takes_the_emptiest() -> None:
    plan = make(SPEC, machine(gpu(0, 24, free=3), gpu(1, 24, free=23)), LLAMA_8B, FOLDER)
    assert (plan.placement, plan.gpus, plan.devices) == ("single", (1,), ("gpu-uuid-1",))
    assert plan.env["CUDA_VISIBLE_DEVICES"] == "1" and plan.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_tight_lies_between() -> None:
    total = make(SPEC, same(1, 80), LLAMA_8B, FOLDER).total / GIB
    assert make(SPEC, machine(gpu(0, 80, free=total * 1.1 + 0.4)), LLAMA_8B, FOLDER).fit == "tight"
    assert make(SPEC, machine(gpu(0, 80, free=total * 1.3 + 0.4)), LLAMA_8B, FOLDER).fit == "fits"
    assert make(SPEC, machine(gpu(0, 80, free=total * 0.9 + 0.4), memory=2), LLAMA_8B, FOLDER).fit == "too_big"
    assert make(SPEC, machine(memory=2), LLAMA_8B, FOLDER).fit == "too_big"


@pytest.mark.parametrize("placement", ["single", "ddp", "fsdp"])
def test_the_wish_counts(placement: str) -> None:
    plan = make(hardware(placement=placement), same(2, 80), LLAMA_8B, FOLDER)
    assert (plan.placement, plan.processes) == (placement, 1 if placement == "single" else 2)


def test_gpus_that_are_chosen() -> None:
    plan = make(hardware(gpus="3, 1"), same(4, 24), LLAMA_8B, FOLDER)
    assert (plan.gpus, plan.env["CUDA_VISIBLE_DEVICES"], plan.processes) == ((3, 1), "3,1", 2)
    twice = make(hardware(gpus="1,1"), same(4, 24), LLAMA_8B, FOLDER)
    assert (twice.gpus, twice.placement, twice.devices) == ((1,), "single", ("gpu-uuid-1",))
    for text in ("cpu", "", " "):
        assert make(hardware(gpus=text), same(4, 24), STARTER, FOLDER).placement == "cpu"


def test_wishes_that_cannot_be_met() -> None:
    error = refused("plan.no_such_gpu", hardware(gpus="0,7"), same(2, 24))
    assert error.values == {"index": "7", "count": 2}
    for text in ("x", "0,", "-1", "0 1"):
        refused("plan.no_such_gpu", hardware(gpus=text), same(2, 24))
    for placement in ("ddp", "fsdp"):
        for where in (same(0, 0), same(1, 24)):
            refused("plan.needs_gpus", hardware(placement=placement), where)


def test_precision() -> None:
    def precision(spec: TrainSpec, where: Machine) -> str:
        return make(spec, where, STARTER, FOLDER).precision

    assert precision(SPEC, same(1, 24)) == "bfloat16"
    assert precision(SPEC, machine(gpu(0, 24), gpu(1, 24, bfloat16=False))) == "float16"
    assert precision(SPEC, machine()) == "float32"
    assert precision(SPEC, machine(cpu_bfloat16=True)) == "bfloat16"
    assert precision(hardware(precision="float16"), machine(cpu_bfloat16=True)) == "float16"
    assert precision(hardware(precision="float32"), same(2, 24)) == "float32"


def test_offload_is_for_shards() -> None:
    plan = make(hardware(offload=True, placement="fsdp"), same(2, 24), LLAMA_70B, FOLDER)
    config = yaml.safe_load(plan.files["accelerate.yaml"])
    assert plan.offload and config["fsdp_config"]["fsdp_offload_params"] is True
    assert plan.total < make(hardware(placement="fsdp"), same(2, 24), LLAMA_70B, FOLDER).total
    assert not make(hardware(offload=True), same(2, 80), LLAMA_8B, FOLDER).offload


@pytest.mark.parametrize("placement", ["ddp", "fsdp"])
def test_the_accelerate_file(placement: str) -> None:
    plan = make(hardware(placement=placement), same(4, 80), LLAMA_8B, FOLDER)
    config = yaml.safe_load(plan.files["accelerate.yaml"])
    assert (
        config["num_processes"] == 4 and config["distributed_type"] == {"ddp": "MULTI_GPU", "fsdp": "FSDP"}[placement]
    )
    assert config["main_process_port"] == 0  # any free one
    assert ("fsdp_config" in config) == (placement == "fsdp")
    if placement == "fsdp":
        assert (
            config["fsdp_config"]["fsdp_version"] == 2 and config["fsdp_config"]["fsdp_reshard_after_forward"] is True
        )
    assert str(FOLDER / "accelerate.yaml") in plan.argv and "accelerate.commands.launch" in plan.argv


PLANS = [
    make(SPEC, same(0, 0), STARTER, FOLDER),
    make(SPEC, same(1, 24), STARTER, FOLDER),
    make(SPEC, same(4, 80), LLAMA_8B, FOLDER),
    make(hardware(placement="fsdp"), same(2, 24), LLAMA_70B, FOLDER),
]


@pytest.mark.parametrize("plan", PLANS)
def test_the_command_pasted_does_the_same(plan: LaunchPlan) -> None:
    words = shlex.split(plan.command())
    env = dict(word.split("=", 1) for word in words[: len(plan.env)])
    assert env == plan.env and tuple(words[len(plan.env) :]) == plan.argv
    assert plan.argv[0] == sys.executable and words[-4:] == ["--spec", str(FOLDER / "spec.yaml"), "--out", str(FOLDER)]


def test_a_shell_reads_it_so_too() -> None:
    show = (
        "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['CUDA_VISIBLE_DEVICES'], os.environ['X']]))"
    )
    argv = (sys.executable, "-S", "-c", show, "a b", "'작은따옴표'", '"$HOME"', "한글; rm", "`x`")
    plan = replace(PLANS[0], argv=argv, env={"CUDA_VISIBLE_DEVICES": "", "X": "1 2 $Y"})
    said = json.loads(subprocess.run(["sh", "-c", plan.command()], capture_output=True, check=True).stdout)
    assert said == [list(argv[4:]), "", "1 2 $Y"]


def test_shown_for_people() -> None:
    plan = make(SPEC, same(0, 0), STARTER, Path("workspace/jobs/my-run"))
    text = shown(plan)
    assert text.startswith("CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=4 ")
    assert text.endswith(" python -m finetune.train --spec my-run.yaml --out workspace/jobs/my-run")
    assert sys.executable not in text


@pytest.mark.parametrize("plan", PLANS)
def test_what_is_written_is_read_again(plan: LaunchPlan) -> None:
    assert from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_no_token_of_the_environment_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "MY_SECRET"):
        monkeypatch.setenv(name, "hf_verysecrettoken")
    for where in (same(0, 0), same(1, 24), same(4, 80)):
        plan = make(SPEC, where, LLAMA_8B, FOLDER)
        written = json.dumps(plan.to_dict()) + plan.command() + SPEC.to_yaml()
        assert "hf_verysecrettoken" not in written and "TOKEN" not in written
        assert all(name.startswith(("CUDA_", "OMP_")) for name in plan.env)


def test_longer_text_needs_more_and_may_no_longer_fit() -> None:
    long = replace(SPEC, schedule=ScheduleSpec(max_length=131_072, checkpointing=False))
    assert make(long, same(1, 24), LLAMA_8B, FOLDER).fit == "too_big"


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys, finetune.plan, finetune.jobs, finetune.preview; assert not {'torch', 'gradio'} & set(sys.modules)"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
