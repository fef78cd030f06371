from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Gemma3Config, Gemma3ForConditionalGeneration

from assets.errors import UserError
from assets.files import Workspace
from compare.engine import Arm, Delta, Done, LoadSpec, Phase, Sampling
from compare.local_engine import LocalEngine
from tests.compare.shelf import SHORT, Shelf, answer, load, refusal, say
from tests.models import ARCHITECTURES, make_model

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)


@pytest.fixture
def engine(tmp_path: Path) -> LocalEngine:
    return LocalEngine(Workspace(tmp_path).prepare())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_base_and_adapter_answer_in_four_bits(shelf: Shelf, engine: LocalEngine, architecture: str) -> None:
    loaded = load(engine, shelf.pair(architecture))
    check = loaded.check
    assert check.base_error is not None and check.adapter_error is not None and check.difference is not None
    assert max(check.base_error, check.adapter_error) <= check.tolerance < check.difference
    assert loaded.arms["a"].adapter_sha256 is None and loaded.arms["b"].trained_parameters > 1000
    assert loaded.arms["a"].base_revision == loaded.arms["b"].base_revision
    linear = engine._groups[0].decoder.model.model.layers[0].mlp.down_proj  # type: ignore[union-attr]
    assert type(linear).__name__ == "Linear4bit"
    texts, ends = answer(engine, say("안녕하세요"))
    assert texts["a"] != texts["b"]
    assert {end.reason for end in ends.values()} <= {"stop", "length"}
    assert ends["a"].tokens_per_second > 0 < ends["a"].seconds_to_first
    assert answer(engine, say("안녕하세요"))[0] == texts


def test_phases_come_in_order(shelf: Shelf, engine: LocalEngine) -> None:
    phases = [event for event in engine.load(shelf.pair()) if isinstance(event, Phase)]
    assert list(dict.fromkeys(phase.key for phase in phases)) == [
        "engine.phase.read",
        "engine.phase.quantise",
        "engine.phase.adapters",
        "engine.phase.check",
    ]
    shares = [phase.done or 0.0 for phase in phases if phase.key == "engine.phase.quantise"]
    assert shares == sorted(shares) and len(shares) > 10


def test_two_bases_stream_at_the_same_time(shelf: Shelf, engine: LocalEngine) -> None:
    spec = LoadSpec((Arm("a", str(shelf.bases["llama"])), Arm("b", str(shelf.bases["gemma2"]))))
    assert load(engine, spec).check.difference is None
    order = [event.arm for event in engine.stream(say("둘 다"), None, SHORT) if isinstance(event, Delta)]
    first_b, last_a = order.index("b"), len(order) - 1 - order[::-1].index("a")
    assert first_b < last_a


def test_later_turns_equal_a_fresh_engine(shelf: Shelf, engine: LocalEngine, tmp_path: Path) -> None:
    exact = replace(shelf.pair(), quantise=False)
    load(engine, exact)
    texts, _ = answer(engine, say("첫째"))
    assert texts["a"] != texts["b"]
    turns = {
        arm: [{"role": "user", "content": "첫째"}, {"role": "assistant", "content": text}, *say("둘째", arm)[arm]]
        for arm, text in texts.items()
    }
    held = engine._groups[0].decoder.held  # type: ignore[union-attr]
    assert min(held) > 10
    fresh = LocalEngine(Workspace(tmp_path).prepare())
    load(fresh, exact)
    assert answer(engine, turns)[0] == answer(fresh, turns)[0]


def test_bad_input_has_clear_ends(shelf: Shelf, engine: LocalEngine) -> None:
    with pytest.raises(UserError, match="not_loaded"):
        engine.stream(say("x"), None, SHORT)
    load(engine, shelf.pair())
    for text in ("😀😀", "<end><bos>", "\x00"):
        assert {end.error for end in answer(engine, say(text))[1].values()} == {None}
    with pytest.raises(UserError, match="empty"):
        engine.stream(say(" "), None, SHORT)
    with pytest.raises(UserError) as caught:
        engine.stream(say("가" * 100_000), None, SHORT)
    assert caught.value.key == "engine.prompt_too_long" and caught.value.values["limit"] == 1024
    texts, ends = answer(engine, say("x"), Sampling(max_new_tokens=0))
    assert texts == {"a": "", "b": ""} and {end.reason for end in ends.values()} == {"length"}
    answer(engine, say("x"), Sampling(temperature=5, top_p=1, max_new_tokens=5))
    greedy = answer(engine, say("x"), Sampling(temperature=0, max_new_tokens=5))[0]
    assert answer(engine, say("x"), Sampling(temperature=5, top_p=0, max_new_tokens=5))[0] == greedy


def test_cancel_within_one_token(shelf: Shelf, engine: LocalEngine) -> None:
    load(engine, shelf.pair())
    events = engine.stream(say("길게"), None, Sampling(max_new_tokens=500, temperature=3, top_p=1))
    next(events)
    engine.cancel()
    rest = list(events)
    assert sum(isinstance(event, Delta) for event in rest) <= 4
    assert [event.reason for event in rest if isinstance(event, Done)] == ["cancelled"] * 2
    assert {end.reason for end in answer(engine, say("길게"))[1].values()} <= {"length", "stop"}


@pytest.mark.parametrize(
    ("error", "key"),
    [(RuntimeError("planned"), "engine.failed"), (torch.OutOfMemoryError("planned"), "engine.out_of_memory")],
)
def test_an_error_costs_one_answer(
    shelf: Shelf, engine: LocalEngine, tmp_path: Path, error: Exception, key: str
) -> None:
    load(engine, shelf.pair())
    model = engine._groups[0].decoder.model  # type: ignore[union-attr]
    countdown = iter(range(4))

    def fail(*_: Any) -> None:
        if next(countdown, None) is None:
            raise error

    fault = model.model.layers[1].register_forward_pre_hook(fail)
    _, ends = answer(engine, say("오류"))
    assert {(end.reason, end.error) for end in ends.values()} == {("error", key)}
    fault.remove()
    fresh = LocalEngine(Workspace(tmp_path).prepare())
    load(fresh, shelf.pair())
    assert answer(engine, say("오류"))[0] == answer(fresh, say("오류"))[0]


def test_adapters_that_must_not_be_compared(shelf: Shelf, engine: LocalEngine, tmp_path: Path) -> None:
    base = str(shelf.bases["llama"])

    def key(adapter: Path) -> str:
        return refusal(engine, LoadSpec((Arm("a", base), Arm("b", base, str(adapter)))))

    idle = Path(shutil.copytree(shelf.adapters["llama"], tmp_path / "idle"))
    weights = idle / "adapter_model.safetensors"
    save_file({k: t * ("lora_A" in k) for k, t in load_file(weights).items()}, weights)
    assert key(idle) == "engine.adapter_changes_nothing"
    assert key(shelf.adapters["gemma3"]) == "engine.adapter_other_base"
    assert key(tmp_path / "없는 폴더") == "engine.adapter_not_found"
    poisoned = Path(shutil.copytree(shelf.adapters["llama"], tmp_path / "nan"))
    weights = poisoned / "adapter_model.safetensors"
    save_file({k: torch.full_like(t, torch.nan) for k, t in load_file(weights).items()}, weights)
    assert key(poisoned) == "engine.not_finite"
    load(engine, shelf.pair())


def test_bases_that_cannot_be_loaded(engine: LocalEngine, shelf: Shelf, tmp_path: Path) -> None:
    def key(folder: Path) -> str:
        return refusal(engine, LoadSpec((Arm("a", str(folder)),)))

    pickled = Path(shutil.copytree(shelf.bases["llama"], tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert key(pickled) == "engine.no_safetensors"
    strange = Path(shutil.copytree(shelf.bases["llama"], tmp_path / "strange"))
    config = strange / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"something_new"'))
    assert key(strange) == "engine.unknown_architecture"


def test_a_template_of_ones_own(shelf: Shelf, engine: LocalEngine) -> None:
    base = str(shelf.bases["llama"])
    spec = LoadSpec((Arm("a", base), Arm("b", base)), templates={"b": TEMPLATE})
    loaded = load(engine, spec)
    assert loaded.arms["a"].template_hash != loaded.arms["b"].template_hash
    texts, _ = answer(engine, say("같은 말"))
    assert texts["a"] != texts["b"]


def test_a_checkpoint_already_in_four_bits(shelf: Shelf, engine: LocalEngine, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shelf.bases["llama"], tmp_path / "quantised"))
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=torch.bfloat16, device_map={"": "cpu"}
    ).save_pretrained(folder)
    spec = LoadSpec((Arm("a", str(folder)), Arm("b", str(folder), str(shelf.adapters["llama"]))))
    load(engine, spec)
    reloaded = answer(engine, say("네 비트"))[0]
    load(engine, shelf.pair())
    assert answer(engine, say("네 비트"))[0] == reloaded


@pytest.mark.parametrize("quantise", [True, False])
def test_gemma3_loads_its_language_part_alone(
    shelf: Shelf, engine: LocalEngine, tmp_path: Path, quantise: bool
) -> None:
    folder = Path(shutil.copytree(shelf.bases["gemma3"], tmp_path / "multimodal"))
    text = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    vision = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Gemma3Config(
        text_config=text.config, vision_config={**vision, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    whole = Gemma3ForConditionalGeneration(config).to(torch.bfloat16)
    whole.model.language_model.load_state_dict(text.model.state_dict())
    whole.save_pretrained(folder)
    spec = LoadSpec((Arm("a", str(folder)), Arm("b", str(folder), str(shelf.adapters["gemma3"]))), quantise=quantise)
    load(engine, spec)
    texts = answer(engine, say("그림 없이"))[0]
    assert type(engine._groups[0].decoder.model).__name__ == "Gemma3ForCausalLM"  # type: ignore[union-attr]
    alone = LoadSpec(shelf.pair("gemma3").arms, quantise=quantise)
    load(engine, alone)
    assert answer(engine, say("그림 없이"))[0] == texts


def test_reading_can_be_stopped(shelf: Shelf, engine: LocalEngine) -> None:
    events = engine.load(shelf.pair())
    for event in events:
        if isinstance(event, Phase) and event.done:
            break
    events.close()  # type: ignore[attr-defined]
    assert engine.loaded is None
    load(engine, shelf.pair())


def test_shapes_that_the_packed_kernel_cannot_take(engine: LocalEngine, tmp_path: Path) -> None:
    odd = make_model(tmp_path / "odd", "llama", hidden_size=80, intermediate_size=144, head_dim=40)
    load(engine, LoadSpec((Arm("a", str(odd)),)))
    assert answer(engine, say("x", "a"))[1]["a"].error is None
