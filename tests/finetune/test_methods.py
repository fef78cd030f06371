"""What methods cannot be combined with, what a model's shape forbids, and where the plan puts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import STARTER, find_model
from assets.errors import UserError
from assets.words import LANGUAGES, Words
from finetune import methods, plan
from finetune.gpu import Machine
from finetune.memory import GIB, Shape
from finetune.shrink import shrink
from finetune.spec import DataSpec, HardwareSpec, LoraSpec, ModelSpec, PreferenceSpec, TrainSpec, from_yaml
from tests.finetune.test_plan import LLAMA_8B as LLAMA
from tests.finetune.test_plan import LLAMA_70B, gpu, machine, same

SPEC = TrainSpec(ModelSpec(STARTER), DataSpec("naranhi/emotion-ko"))


def refused(key: str, call: Any, *values: Any, **named: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*values, **named)
    assert caught.value.key == key
    for language in LANGUAGES:
        assert "{" not in Words(language).error(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("method", "changed", "key"),
    [
        ("full", {"start": "jobs/x/adapter"}, "spec.full_start"),
        ("full", {"lora": LoraSpec(dora=True)}, "spec.full_lora"),
        ("full", {"lora": LoraSpec(rslora=True)}, "spec.full_lora"),
        ("full", {"objective": "dpo"}, "spec.full_preference"),
        ("full", {"objective": "kto", "preference": PreferenceSpec()}, "spec.full_preference"),
        ("full", {"hardware": HardwareSpec("fsdp", offload=True)}, "spec.full_offload"),
        ("qlora8", {"lora": LoraSpec(dora=True)}, "spec.eight_bit_dora"),
        ("qlora8", {"hardware": HardwareSpec("fsdp")}, "spec.eight_bit_sharded"),
        ("qlora8", {"hardware": HardwareSpec("auto", offload=True)}, "spec.eight_bit_sharded"),
    ],
)
def test_what_does_not_go_together_is_refused(method: Any, changed: dict[str, Any], key: str) -> None:
    refused(key, replace, SPEC, method=method, **changed)


@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_dora_goes_with_adapters_shards_and_preferences(method: Any) -> None:
    lora, hardware = LoraSpec(dora=True, rslora=True), HardwareSpec("fsdp", offload=True)
    assert replace(SPEC, method=method, lora=lora, objective="dpo", hardware=hardware).lora.dora


def test_settings_of_before_there_were_these_methods_are_read_as_they_were_meant() -> None:
    old = "version: 1\nmethod: lora\nmodel: {id: m}\ndata: {id: d}\nlora: {rank: 8, alpha: 16, rslora: true}\nwatch: {keep: 3}"
    spec = from_yaml(old)
    assert not spec.lora.dora and spec.lora.rslora and not spec.watch.keeps_best and spec.watch.keep == 3
    assert replace(spec, watch=replace(spec.watch, patience=2)).watch.keeps_best


def shape() -> Shape:
    card = find_model(STARTER)
    assert card is not None
    return Shape(**card.shape)


def test_a_rank_larger_than_a_matrix_is_refused_before_it_starts() -> None:
    spec = replace(SPEC, lora=LoraSpec(rank=193))
    assert refused("train.rank_too_large", methods.check, spec, shape()).values["limit"] == 192
    methods.check(replace(SPEC, lora=LoraSpec(rank=192)), shape())
    methods.check(replace(SPEC, lora=LoraSpec(rank=500, targets="gate_proj, up_proj")), shape())
    methods.check(replace(spec, method="full"), shape())


@pytest.mark.parametrize("targets", ["q_prj", "q_proj,attention", " , "])
def test_targets_of_no_layer_are_refused_for_models_we_know(targets: str) -> None:
    spec = replace(SPEC, lora=LoraSpec(targets=targets))
    refused("methods.no_targets", methods.check, spec, shape())
    methods.check(replace(spec, model=ModelSpec("someone/other")), shape())  # its layers may have any name


def on(gpus: Machine, spec: TrainSpec, of: Shape) -> plan.LaunchPlan:
    return plan.make(spec, gpus, of, Path("job"))


def test_eight_bits_are_never_sharded_by_the_plan() -> None:
    spec = replace(SPEC, method="qlora8")
    made = on(same(4, 24), spec, LLAMA_70B)
    assert made.placement == "single" and made.fit == "too_big"
    assert on(same(4, 24), replace(spec, method="qlora"), LLAMA_70B).placement == "fsdp"


def test_a_whole_model_is_sharded_but_never_offloaded_and_refused_when_it_does_not_fit() -> None:
    spec = replace(SPEC, method="full")
    assert on(same(1, 24), spec, shape()).placement == "single"
    large = on(machine(*(gpu(index, 80) for index in range(4)), memory=512), spec, LLAMA)
    assert large.placement == "fsdp" and not large.offload
    small = on(same(2, 24), spec, LLAMA)
    assert small.fit == "too_big" and not small.offload
    refused("train.full_too_large", methods.check_room, spec, small)
    methods.check_room(replace(spec, method="qlora"), small)
    methods.check_room(spec, large)
    crowded = on(same(4, 80), spec, LLAMA)  # every rank would read it into 64 GB
    assert float(str(refused("train.full_too_large", methods.check_room, spec, crowded).values["need"])) > 100


def test_what_does_not_fit_as_a_whole_is_offered_as_qlora() -> None:
    gpus, spec = same(1, 24), replace(SPEC, method="full")
    remedy = shrink(spec, lambda s: on(gpus, s, LLAMA).fit != "too_big")
    assert remedy is not None and remedy["method"] == "qlora"


def test_methods_take_what_they_weigh() -> None:
    from finetune.memory import estimate

    weights = [estimate(LLAMA, replace(SPEC, method=name)).total for name in ("qlora", "qlora8", "lora", "full")]  # type: ignore[arg-type]
    assert weights == sorted(weights) and weights[3] > 100 * GIB
