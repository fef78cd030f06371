from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from assets.errors import UserError
from compare.decode import Decoder
from compare.decode_lora import RowAdapters, _by_input, read_adapter
from tests.models import ARCHITECTURES, make_adapter, make_model

# peft reads an attribute that transformers renames
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPT = [1, 3, *range(40, 75), 4, 3, 9]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {name: make_model(root / name, name) for name in ARCHITECTURES}


def plain(folder: Path) -> Any:
    attention = "eager" if folder.name == "gemma2" else "sdpa"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


def peft_logits(base: Path, adapter: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(plain(base), adapter).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([PROMPT])).logits[0, -1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_row_equals_peft_and_the_plain_base(bases: dict[str, Path], tmp_path: Path, architecture: str) -> None:
    base = bases[architecture]
    first, second = make_adapter(base, tmp_path / "one", seed=1), make_adapter(base, tmp_path / "two", seed=2)
    model = plain(base)
    adapters = [read_adapter(first, model, torch.float32), None, read_adapter(second, model, torch.float32)]
    joint = Decoder(model, adapters).last_logits(PROMPT)
    with torch.inference_mode():
        untouched = model(input_ids=torch.tensor([PROMPT])).logits[0, -1]
    torch.testing.assert_close(joint[0], peft_logits(base, first), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(joint[1], untouched, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(joint[2], peft_logits(base, second), rtol=1e-4, atol=1e-4)
    assert (joint[0] - joint[1]).abs().max() > 0.1 < (joint[2] - joint[0]).abs().max()


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"r": 8, "lora_alpha": 3, "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 16}},
        {"alpha_pattern": {"gate_proj": 32, "0.self_attn.v_proj": 1}},
        {"target_modules": ["q_proj"]},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    ],
)
def test_every_way_to_scale_is_pefts(bases: dict[str, Path], tmp_path: Path, options: dict[str, Any]) -> None:
    base = bases["llama_untied"]
    folder = make_adapter(base, tmp_path / "a", **options)
    model = plain(base)
    joint = Decoder(model, [None, read_adapter(folder, model, torch.float32)]).last_logits(PROMPT)
    torch.testing.assert_close(joint[1], peft_logits(base, folder), rtol=1e-4, atol=1e-4)


def test_dora_leaves_a_layers_own_bias_alone(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama", attention_bias=True)
    folder = make_adapter(base, tmp_path / "a", use_dora=True)
    model = plain(base)
    adapter = read_adapter(folder, model, torch.float32)
    assert all(part.gain is not None and (part.gain - 1).abs().max() > 1e-3 for part in adapter.parts.values())
    joint = Decoder(model, [adapter, None]).last_logits(PROMPT)
    with torch.inference_mode():
        untouched = model(input_ids=torch.tensor([PROMPT])).logits[0, -1]
    torch.testing.assert_close(joint[0], peft_logits(base, folder), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(joint[1], untouched, rtol=1e-4, atol=1e-4)


def test_dora_on_four_bits_is_pefts(tmp_path: Path) -> None:
    """The lengths divide by the norms of the weights in 4 bits, which is what training divided by."""
    from transformers import BitsAndBytesConfig

    from assets.quantised import NF4

    base = make_model(tmp_path / "base", "llama", hidden_size=128, intermediate_size=256)
    folder = make_adapter(base, tmp_path / "a", use_dora=True)

    def packed() -> Any:
        options = {"dtype": torch.float32, "device_map": {"": "cpu"}}
        config = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=torch.float32)
        model = AutoModelForCausalLM.from_pretrained(base, quantization_config=config, **options).eval()
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        return model

    model = packed()
    joint = Decoder(model, [None, read_adapter(folder, model, torch.float32)]).last_logits(PROMPT)
    tuned = PeftModel.from_pretrained(packed(), folder).eval()
    with torch.inference_mode():
        expected = tuned(input_ids=torch.tensor([PROMPT])).logits[0, -1]
    torch.testing.assert_close(joint[1], expected, rtol=1e-3, atol=1e-3)
    assert (joint[1] - joint[0]).abs().max() > 0.1


def test_the_base_row_gets_exactly_nothing(bases: dict[str, Path], tmp_path: Path) -> None:
    model = plain(bases["llama"])
    adapter = read_adapter(make_adapter(bases["llama"], tmp_path / "a"), model, torch.float32)
    ids = torch.tensor([PROMPT, PROMPT])
    with torch.inference_mode():
        without = model(input_ids=ids).logits
        with RowAdapters(model, [None, adapter]).attached(0, 2):
            together = model(input_ids=ids).logits
    assert torch.equal(together[0], without[0])
    assert not torch.equal(together[1], without[1])


def test_hooks_are_gone_after_an_error(bases: dict[str, Path], tmp_path: Path) -> None:
    model = plain(bases["llama"])
    adapter = read_adapter(make_adapter(bases["llama"], tmp_path / "a"), model, torch.float32)
    with pytest.raises(ZeroDivisionError), RowAdapters(model, [adapter]).attached(0, 1):
        assert any(module._forward_hooks for module in model.modules())
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


def refusal(folder: Path, model: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_adapter(folder, model, torch.float32)
    return caught.value.key


def test_what_rows_cannot_carry_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["llama_untied"]
    model = plain(base)
    saved = make_adapter(base, tmp_path / "saved", target_modules=["q_proj"], modules_to_save=["lm_head"])
    assert refusal(saved, model) == "engine.adapter_unsupported"
    assert refusal(make_adapter(base, tmp_path / "bias", bias="lora_only"), model) == "engine.adapter_unsupported"
    other = make_adapter(make_model(tmp_path / "wide", "llama", hidden_size=128), tmp_path / "other")
    assert refusal(other, model) == "engine.adapter_other_base"
    deep = make_adapter(make_model(tmp_path / "deep", "llama", num_hidden_layers=3), tmp_path / "deeper")
    assert refusal(deep, model) == "engine.adapter_other_base"


def test_damaged_and_missing_files_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    model = plain(bases["llama"])
    assert refusal(tmp_path / "nothing", model) == "engine.adapter_not_found"
    folder = make_adapter(bases["llama"], tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({key: value for key, value in tensors.items() if "lora_B" not in key}, weights)
    assert refusal(folder, model) == "engine.adapter_damaged"
    save_file({**tensors, "base_model.model.model.embed_tokens.weight": torch.zeros(4, 4)}, weights)
    assert refusal(folder, model) == "engine.adapter_unsupported"
    weights.write_bytes(b"not safetensors at all")
    assert refusal(folder, model) == "engine.adapter_damaged"
    weights.rename(folder / "adapter_model.bin")
    assert refusal(folder, model) == "engine.adapter_pickled"


def test_names_of_a_multimodal_checkpoint_fit_its_language_model(bases: dict[str, Path], tmp_path: Path) -> None:
    model = plain(bases["gemma3"])
    folder = make_adapter(bases["gemma3"], tmp_path / "a")
    expected = read_adapter(folder, model, torch.float32)
    weights = folder / "adapter_model.safetensors"
    renamed = {key.replace("model.layers", "model.language_model.layers"): t for key, t in load_file(weights).items()}
    tower = "base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file({**renamed, tower.format("A"): torch.zeros(4, 8), tower.format("B"): torch.zeros(8, 4)}, weights)
    assert set(read_adapter(folder, model, torch.float32).parts) == set(expected.parts)


def test_an_unknown_kind_of_adapter_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = make_adapter(bases["llama"], tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    for change in ({"peft_type": "IA3"}, {"init_lora_weights": "pissa_niter_4"}, {"layer_replication": [[0, 1]]}):
        (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
        assert refusal(folder, plain(bases["llama"])) == "engine.adapter_unsupported"


def test_layers_of_one_input_stand_together_in_the_order_of_their_calls() -> None:
    names = ["0.mlp.up_proj", "0.self_attn.v_proj", "0.self_attn.q_proj", "0.mlp.gate_proj", "1.mlp.up_proj", "lm_head"]
    assert _by_input(names) == [
        ["0.mlp.gate_proj", "0.mlp.up_proj"],
        ["0.self_attn.q_proj", "0.self_attn.v_proj"],
        ["1.mlp.up_proj"],
        ["lm_head"],
    ]
