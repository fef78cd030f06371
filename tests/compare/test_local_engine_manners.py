"""The engine when memory is short, files go away, people stop it, or a job holds the GPU; and models that were merged."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import acquire, holder
from compare.engine import Arm, Delta, LoadSpec, Sampling
from compare.local_engine import LocalEngine
from compare.local_engine_device import take
from tests.compare.shelf import SHORT, Shelf, answer, load, refusal, say


@pytest.fixture
def engine(tmp_path: Path) -> LocalEngine:
    return LocalEngine(Workspace(tmp_path).prepare())


def test_bases_in_turn_answer_as_they_do_together(shelf: Shelf, engine: LocalEngine) -> None:
    spec = LoadSpec((Arm("a", str(shelf.bases["llama"])), Arm("b", str(shelf.bases["gemma2"]))))
    together = load(engine, spec)
    texts = answer(engine, say("둘 다"))[0]
    in_turn = load(engine, replace(spec, together=False))
    assert in_turn.arms == together.arms and in_turn.check == together.check
    assert [group.decoder is None for group in engine._groups] == [True, False]
    for _ in range(2):
        order = [event.arm for event in engine.stream(say("둘 다"), None, SHORT) if isinstance(event, Delta)]
        assert order == sorted(order) and set(order) == {"a", "b"}
    assert answer(engine, say("둘 다"))[0] == texts
    assert [group.decoder is None for group in engine._groups] == [True, False]


def test_an_adapter_deleted_while_in_use(shelf: Shelf, engine: LocalEngine, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(shelf.adapters["llama"], tmp_path / "going"))
    spec = LoadSpec((Arm("a", str(shelf.bases["llama"])), Arm("b", str(shelf.bases["llama"]), str(adapter))))
    load(engine, spec)
    texts = answer(engine, say("지워도"))[0]
    shutil.rmtree(adapter)
    assert answer(engine, say("지워도"))[0] == texts
    assert refusal(engine, spec) == "engine.adapter_not_found"


def test_memory_that_runs_out_in_the_middle_keeps_what_was_said(shelf: Shelf, engine: LocalEngine) -> None:
    load(engine, shelf.pair())
    whole = answer(engine, say("중간에"))[0]
    layer = engine._groups[0].ready.model.model.layers[1]
    countdown = iter(range(12))

    def fail(*_: Any) -> None:
        if next(countdown, None) is None:
            raise torch.OutOfMemoryError("planned")

    fault = layer.register_forward_pre_hook(fail)
    texts, ends = answer(engine, say("중간에"))
    fault.remove()
    assert {(end.reason, end.error) for end in ends.values()} == {("error", "engine.out_of_memory")}
    assert all(end.tokens > 0 for end in ends.values())
    assert all(whole[arm].startswith(text.rstrip("\ufffd")) for arm, text in texts.items())
    assert answer(engine, say("중간에"))[0] == whole


def test_stop_during_prefill(shelf: Shelf, engine: LocalEngine) -> None:
    load(engine, shelf.pair())
    layer = engine._groups[0].ready.model.model.layers[0]
    hook = layer.register_forward_pre_hook(lambda *_: engine.cancel())  # the first chunk is being computed
    texts, ends = answer(engine, say("아주 긴 말 " * 40), SHORT)
    hook.remove()
    assert texts == {"a": "", "b": ""} and {end.reason for end in ends.values()} == {"cancelled"}
    assert {end.reason for end in answer(engine, say("아주 긴 말 " * 40))[1].values()} <= {"length", "stop"}


def test_a_template_that_raises_on_the_roles_given(shelf: Shelf, engine: LocalEngine) -> None:
    base = str(shelf.bases["llama"])
    strict = "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ raise_exception('only users') }}{% endif %}"
    strict += "{{ m['role'] }}: {{ m['content'] }}<end>{% endfor %}>"
    with pytest.raises(UserError) as caught:
        list(engine.load(LoadSpec((Arm("a", base), Arm("b", base)), templates={"b": strict})))
        engine.stream({"b": [*say("x")["a"], {"role": "assistant", "content": "y"}, *say("z")["a"]]}, None, SHORT)
    assert caught.value.key == "chat.template_failed" and "only users" in str(caught.value.values["reason"])


def test_the_first_free_gpu_is_taken_and_a_held_one_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).prepare()
    job = acquire(workspace, ("gpu-0",), {"kind": "job", "id": "j", "name": "학습"})
    assert job is not None
    lease = take(workspace, ["gpu-0", "gpu-1"])
    assert lease.devices == ("gpu-1",) and (holder(workspace, "gpu-1") or {})["kind"] == "engine"
    with pytest.raises(UserError) as caught:
        take(workspace, ["gpu-0", "gpu-1"])
    assert (caught.value.key, caught.value.values) == ("engine.gpu_busy", {"name": "학습"})
    job.release()
    with pytest.raises(UserError, match="gpu_busy_engine"):
        take(workspace, ["gpu-1"])
    lease.release()
    assert holder(workspace, "gpu-1") is None


def test_a_merged_model_is_a_model_of_its_own(shelf: Shelf, engine: LocalEngine, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(shelf.bases["llama"], dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute that transformers renames
        merged = PeftModel.from_pretrained(base, shelf.adapters["llama"]).merge_and_unload()
    folder = Path(shutil.copytree(shelf.bases["llama"], tmp_path / "merged"))
    merged.save_pretrained(folder)
    arms = (Arm("a", str(folder)), Arm("b", str(shelf.bases["llama"]), str(shelf.adapters["llama"])))
    loaded = load(engine, LoadSpec(arms, quantise=False))
    assert len(engine._groups) == 2 and loaded.arms["a"].base_revision != loaded.arms["b"].base_revision
    texts = answer(engine, say("합친 것"), Sampling(temperature=0, max_new_tokens=16))[0]
    assert texts["a"] == texts["b"]
