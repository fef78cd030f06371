"""The engine with a model over several devices, and which cards it takes for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.accelerate import expand_device_map

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import acquire, holder
from compare.decode_stages import Stage, layer_devices
from compare.engine import Arm, LoadSpec
from compare.local_engine import LocalEngine
from compare.local_engine_device import Gpu, Taken, take_free
from compare.local_engine_model import _device_map
from compare.local_engine_sizes import sizes_of
from compare.spread import Sizes
from tests.compare.shelf import Shelf, answer, load, say
from tests.models import make_model

GIB = 2**30
LLAMA_70B = Sizes(2 * GIB, (0.49 * GIB,) * 80, 2 * GIB)
SMALL = Sizes(GIB, (0.1 * GIB,) * 32, GIB)


def cards(*free: float, total: float = 24) -> list[Gpu]:
    return [Gpu(i, f"gpu-{i}", int(each * GIB), int(total * GIB)) for i, each in enumerate(free)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).prepare()


@pytest.mark.parametrize("architecture", ["llama_untied", "gemma2", "gemma3"])
def test_a_pair_over_several_devices_says_the_same(shelf: Shelf, workspace: Workspace, architecture: str) -> None:
    engine = LocalEngine(workspace)
    spec = shelf.pair(architecture)
    alone = load(engine, spec)
    texts = answer(engine, say("안녕하세요"))[0]
    over = load(engine, replace(spec, device="cpu:0,cpu:1,cpu:2"))
    places = layer_devices(engine._groups[0].ready.model)
    assert over.device == "cpu:0,cpu:1,cpu:2"[: len(over.device)] and len(set(places)) > 1
    assert (over.check, over.arms) == (alone.check, alone.arms)
    assert answer(engine, say("안녕하세요"))[0] == texts


def test_two_bases_in_turn_over_several_devices(shelf: Shelf, workspace: Workspace) -> None:
    engine = LocalEngine(workspace)
    spec = LoadSpec((Arm("a", str(shelf.bases["llama"])), Arm("b", str(shelf.bases["gemma2"]))), together=False)
    load(engine, spec)
    texts = answer(engine, say("차례로"))[0]
    load(engine, replace(spec, device="cpu:0,cpu:1"))
    assert answer(engine, say("차례로"))[0] == texts


@pytest.mark.parametrize("architecture", ["llama", "llama_untied", "gemma3"])
def test_transformers_puts_every_weight_where_it_was_planned(tmp_path: Path, architecture: str) -> None:
    changes = {"layer_types": ["full_attention"] * 12} if architecture == "gemma3" else {}
    base = make_model(tmp_path / "base", architecture, num_hidden_layers=12, **changes)
    stages = [Stage(torch.device("cuda", card), layers) for card, layers in ((0, 1), (1, 9), (3, 2))]
    places = _device_map(AutoConfig.from_pretrained(base), stages[0].device, stages)
    model = AutoModelForCausalLM.from_pretrained(base)
    found = expand_device_map(places, [name for name, _ in model.named_parameters(remove_duplicate=False)])
    assert [found[f"model.layers.{n}.mlp.up_proj.weight"].index for n in range(12)] == [0] + [1] * 9 + [3] * 2
    assert found["model.embed_tokens.weight"].index == 0 and found["model.norm.weight"].index == 3
    assert found["lm_head.weight"].index == (0 if model.config.tie_word_embeddings else 3)


def names(taken: Taken) -> tuple[str, ...]:
    assert taken.lease is not None
    return taken.lease.devices


def test_what_fits_on_one_card_takes_one(workspace: Workspace) -> None:
    taken = take_free(workspace, cards(10, 23, 23), [SMALL])
    assert names(taken) == ("gpu-1",)
    assert [stage.layers for stage in taken.stages[0]] == [32] and taken.devices == (torch.device("cuda", 1),)


def test_a_model_larger_than_a_card_takes_as_few_free_ones_as_will_do(workspace: Workspace) -> None:
    job = acquire(workspace, ("gpu-1",), {"kind": "job", "name": "학습"})
    assert job is not None
    taken = take_free(workspace, cards(23.5, 23.9, 23.5, 23.5), [LLAMA_70B])
    assert names(taken) == ("gpu-0", "gpu-2") and holder(workspace, "gpu-3") is None
    assert [stage.device.index for stage in taken.stages[0]] == [0, 2]
    assert sum(stage.layers for stage in taken.stages[0]) == 80
    assert all((holder(workspace, name) or {})["kind"] == "engine" for name in ("gpu-0", "gpu-2"))


def test_what_would_fit_but_for_a_run_waits_for_the_run(workspace: Workspace) -> None:
    job = acquire(workspace, ("gpu-1",), {"kind": "job", "name": "밤샘 학습"})
    assert job is not None
    with pytest.raises(UserError) as caught:
        take_free(workspace, cards(23.5, 2), [LLAMA_70B])
    assert (caught.value.key, caught.value.values) == ("engine.gpu_busy", {"name": "밤샘 학습"})
    assert holder(workspace, "gpu-0") is None


def test_what_is_too_large_for_all_cards_is_left_to_the_reading(workspace: Workspace) -> None:
    taken = take_free(workspace, cards(11, 12, total=12), [LLAMA_70B])
    assert names(taken) == ("gpu-1",) and len(taken.stages[0]) == 1


def test_models_in_turn_have_every_card_to_themselves(workspace: Workspace) -> None:
    taken = take_free(workspace, cards(23, 23), [LLAMA_70B, LLAMA_70B], together=False)
    assert names(taken) == ("gpu-0", "gpu-1") and taken.stages[0] == taken.stages[1]


def test_two_models_that_fit_apart_stay_whole(workspace: Workspace) -> None:
    half = Sizes(0, (GIB,) * 20, 0)
    taken = take_free(workspace, cards(23, 23), [half, half])
    assert [len(stages) for stages in taken.stages] == [1, 1] and len(taken.devices) == 2


def test_sizes_of_a_checkpoint(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama_untied", num_hidden_layers=3, torch_dtype="bfloat16")
    config = {"num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 64, "num_hidden_layers": 3}
    whole = sizes_of(base, {}, quantise=False, rows=2, adapters=[])
    assert whole.first == 512 * 64 * 2 and whole.last == 512 * 64 * 2 + 64 * 2 and len(whole.layers) == 3
    packed = sizes_of(base, {}, quantise=True, rows=2, adapters=[])
    assert packed.layers[0] < whole.layers[0] / 3 and packed.first == whole.first
    talking = sizes_of(base, config | {"vocab_size": 512, "head_dim": 64}, quantise=True, rows=2, adapters=[])
    assert talking.layers[0] - packed.layers[0] == 2 * 4096 * 64 * 2 * 2
    more = tmp_path / "adapter_model.safetensors"
    more.write_bytes(b"x" * 300)
    assert sizes_of(base, {}, True, 2, [more]).layers[2] == packed.layers[2] + 100
