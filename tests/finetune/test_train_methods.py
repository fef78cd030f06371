"""Every method with real, tiny models on the CPU: DoRA with and without NF4, rsLoRA, 8 bits, full fine-tuning. Each learns,
goes on from its checkpoint, and what it made is opened by the library that people will open it with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace, read_json
from finetune import train
from finetune.progress import read
from finetune.spec import LoraSpec, TrainSpec
from tests.finetune.two_ranks import a_spec, losses
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS: dict[str, dict[str, Any]] = {
    "dora": {"method": "lora", "lora": LoraSpec(rank=4, alpha=8, dora=True)},
    "qdora": {"method": "qlora", "lora": LoraSpec(rank=4, alpha=8, dora=True)},
    "rslora": {"method": "qlora", "lora": LoraSpec(rank=4, alpha=8, rslora=True)},
    "qlora8": {"method": "qlora8"},
    "full": {"method": "full"},
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("NARANHI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NARANHI_JOB", raising=False)
    return Workspace.from_environment().prepare()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_model(tmp_path / "base", "llama", hidden_size=128, intermediate_size=256)


def run(spec: TrainSpec, folder: Path, workspace: Workspace) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return train.run(spec, folder, workspace)


def spec_for(name: str, workspace: Workspace, base: Path, **more: Any) -> TrainSpec:
    rate = 1e-3 if name == "full" else 5e-3
    return replace(a_spec(workspace.root, base, learning_rate=rate, **more), **METHODS[name])


@pytest.mark.parametrize("name", METHODS)
def test_each_method_learns_and_goes_on_where_it_was(name: str, workspace: Workspace, base: Path) -> None:
    spec, whole, cut = spec_for(name, workspace, base, steps=6), workspace.jobs / "whole", workspace.jobs / "cut"
    assert run(spec, whole, workspace) == 0
    evals = read(whole).evals
    assert evals[-1]["loss"] < evals[0]["loss"] - 0.02

    cut.mkdir(parents=True)
    (cut / "stop").touch()
    assert run(spec, cut, workspace) == train.STOPPED
    (cut / "stop").unlink()
    assert run(spec, cut, workspace) == 0
    assert losses(cut) == losses(whole)
    record = read_json(whole / "run.json")
    assert record["kept"]["step"] == record["kept"]["last"] == 6 and record["kept"]["best"] is False


@pytest.mark.parametrize("name", METHODS)
def test_what_each_method_made_answers_beside_its_base(name: str, workspace: Workspace, base: Path) -> None:
    from compare.engine import Arm, Done, Loaded, LoadSpec, Sampling
    from compare.local_engine import LocalEngine
    from finetune.outcome import made

    folder = workspace.jobs / "job"
    assert run(spec_for(name, workspace, base, steps=2), folder, workspace) == 0
    result = made(folder)
    assert result is not None and read_json(result / "run.json")["spec"]["method"] == METHODS[name]["method"]
    tuned = Arm("b", str(result)) if name == "full" else Arm("b", str(base), str(result))
    engine = LocalEngine(workspace)
    events = list(engine.load(LoadSpec((Arm("a", str(base)), tuned))))
    loaded = next(event for event in events if isinstance(event, Loaded))
    assert name == "full" or (loaded.check.difference or 0) > loaded.check.tolerance
    turns = {key: [{"role": "user", "content": "질문 1"}] for key in ("a", "b")}
    done = [e for e in engine.stream(turns, None, Sampling(temperature=0, max_new_tokens=4)) if isinstance(e, Done)]
    assert {event.arm for event in done} == {"a", "b"} and all(event.reason in ("stop", "length") for event in done)


def test_dora_adapters_are_what_peft_reads(workspace: Workspace, base: Path) -> None:
    """The library's own loader finds every tensor under its name and computes what the trained model computes."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from compare.decode import Decoder
    from compare.decode_lora import read_adapter

    folder = workspace.jobs / "job"
    spec = replace(
        spec_for("dora", workspace, base, precision="float32"), schedule=a_spec(workspace.root, base).schedule
    )
    assert run(spec, folder, workspace) == 0
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    ids = list(range(5, 40))
    ours = Decoder(plain, [read_adapter(folder / "adapter", plain, torch.float32)]).last_logits(ids)[0]
    tuned = PeftModel.from_pretrained(plain, folder / "adapter").eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours, tuned(input_ids=torch.tensor([ids])).logits[0, -1], rtol=1e-4, atol=1e-4)
        with tuned.disable_adapter():
            assert (tuned(input_ids=torch.tensor([ids])).logits[0, -1] - ours).abs().max() > 1e-2


def test_a_whole_model_is_complete_for_other_programs(workspace: Workspace, base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = workspace.jobs / "job"
    assert run(spec_for("full", workspace, base), folder, workspace) == 0
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert model.dtype == torch.bfloat16 and model.config.architectures == ["LlamaForCausalLM"]
    chat = ChatFormat.from_folder(folder / "model")
    assert GenerationConfig.from_pretrained(folder / "model").eos_token_id == list(chat.stop_ids)
    assert (
        AutoTokenizer.from_pretrained(folder / "model").chat_template
        == ChatFormat.from_folder(base).tokenizer.chat_template
    )
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if "proj" in name)
    assert not list(folder.glob("**/.model.*")) and (folder / "model" / "run.json").exists()


def test_dora_goes_on_from_dora_with_preferences_or_without(workspace: Workspace, base: Path) -> None:
    first, second = workspace.jobs / "first", workspace.jobs / "second"
    spec = spec_for("qdora", workspace, base)
    assert run(spec, first, workspace) == 0
    again = replace(spec, start="jobs/first/adapter", schedule=replace(spec.schedule, learning_rate=1e-8))
    assert run(again, second, workspace) == 0
    before, after = read(first).evals[-1]["loss"], read(second).evals[0]["loss"]
    assert abs(before - after) < 1e-6


def test_a_rank_larger_than_a_matrix_is_refused(workspace: Workspace, base: Path) -> None:
    spec = replace(a_spec(workspace.root, base), lora=LoraSpec(rank=65, alpha=8))
    with pytest.raises(UserError) as caught:
        run(spec, workspace.jobs / "job", workspace)
    assert caught.value.key == "train.rank_too_large" and caught.value.values["limit"] == 64
    assert str(caught.value.values["module"]).endswith("k_proj")
    wide = replace(spec, lora=LoraSpec(rank=65, alpha=8, targets="gate_proj"))
    assert run(wide, workspace.jobs / "wide", workspace) == 0


def test_targets_that_match_nothing_are_refused(workspace: Workspace, base: Path) -> None:
    for targets, named in (("foo_proj", "foo_proj"), (" , ", " , "), ("q_proj,mlp", "mlp")):
        spec = replace(a_spec(workspace.root, base), lora=LoraSpec(rank=4, alpha=8, targets=targets))
        with pytest.raises(UserError) as caught:
            run(spec, workspace.jobs / "job", workspace)
        assert (caught.value.key, caught.value.values["names"]) == ("train.no_targets", named)


@pytest.mark.parametrize("name", ["dora", "qlora8", "full"])
def test_a_base_in_few_bits_is_refused_where_it_does_not_go(name: str, workspace: Workspace, base: Path) -> None:
    from tests.finetune.test_fsdp import quantised_by_others

    few = quantised_by_others(base, base.with_name("few"))
    with pytest.raises(UserError) as caught:
        run(spec_for(name, workspace, few), workspace.jobs / "job", workspace)
    assert caught.value.key == "train.already_quantised"


def test_a_whole_model_without_room_is_refused(
    workspace: Workspace, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    import psutil

    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30, 0))
        with pytest.raises(UserError) as caught:
            run(spec_for("full", workspace, base), workspace.jobs / "disk", workspace)
        assert caught.value.key == "train.full_disk"
    memory = namedtuple("memory", "total available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(2**30, 1000))
    with pytest.raises(UserError) as caught:
        run(spec_for("full", workspace, base), workspace.jobs / "memory", workspace)
    assert caught.value.key == "train.full_too_large"
