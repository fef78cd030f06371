from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assets.catalog import find_model
from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare.adapters import Adapter, inspect, match_base
from tests.compare.adapter_files import STARTER, Tensors, folder, lora

BASE = {
    "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 2, "vocab_size": 32,
}  # fmt: skip


def adapter(path: Path, base: str = "someone/unknown", tensors: Tensors | None = None, **config: Any) -> Adapter:
    return inspect(folder(path, tensors, base_model_name_or_path=base, **config))


def mismatch(one: Adapter, config: dict[str, Any], base: str = "x/y") -> UserError:
    with pytest.raises(UserError) as caught:
        match_base(one, config, base)
    for language in LANGUAGES:
        assert "{" not in Words(language).error(caught.value)
    return caught.value


def test_a_base_by_its_id_by_a_mirror_and_by_shapes(tmp_path: Path) -> None:
    assert match_base(adapter(tmp_path / "a", "Org/Model"), BASE, "org/model").how == "same"
    assert (
        match_base(adapter(tmp_path / "a", "org/model"), BASE | {"_name_or_path": "org/model"}, "/local").how == "same"
    )
    card = find_model(STARTER)
    assert card is not None and card.mirrors
    assert match_base(adapter(tmp_path / "b", card.mirrors[0]), BASE, STARTER).how == "mirror"
    found = match_base(adapter(tmp_path / "c"), BASE, "x/y")
    assert found.how == "shapes"
    assert found.note is not None and found.note[0] == "adapters.note.shapes"
    found = match_base(adapter(tmp_path / "d", STARTER), BASE, "google/gemma-2-2b-it")
    assert found.note is not None and found.note[0] == "adapters.note.other_weights"
    for language in LANGUAGES:
        assert "gemma-2-2b-it" in Words(language)(found.note[0], **found.note[1])


def test_a_base_that_differs_is_named_with_what_differs(tmp_path: Path) -> None:
    one = adapter(tmp_path / "a")
    error = mismatch(one, BASE | {"hidden_size": 16})
    assert error.key == "adapters.other_shape"
    assert (error.values["found"], error.values["expected"]) == ("8×8", "16×16")
    assert mismatch(one, BASE | {"num_key_value_heads": 4}).values["module"] == "model.layers.0.self_attn.v_proj"
    assert mismatch(one, BASE | {"head_dim": 4}).values["expected"] == "16×8"
    assert mismatch(one, BASE | {"num_hidden_layers": 1}).key == "adapters.other_depth"
    assert mismatch(one, BASE | {"num_hidden_layers": 3}).key == "adapters.other_depth"
    assert mismatch(one, BASE | {"hidden_size": 16}, "someone/unknown").key == "adapters.other_shape"


def test_some_layers_only_are_no_mismatch(tmp_path: Path) -> None:
    deep = BASE | {"num_hidden_layers": 9}
    assert match_base(adapter(tmp_path / "a", layers_to_transform=[0, 1]), deep, "x/y").how == "shapes"
    assert match_base(adapter(tmp_path / "b", target_modules=".*_proj"), deep, "x/y").how == "shapes"


def test_a_multimodal_base_is_judged_by_its_text_part(tmp_path: Path) -> None:
    tensors = lora(prefix="model.language_model.layers") | lora(prefix="vision_tower.encoder.layers", layers=7)
    config = {"text_config": BASE, "vision_config": {"hidden_size": 1152}}
    assert match_base(adapter(tmp_path / "a", tensors=tensors), config, "x/y").how == "shapes"


def test_a_config_that_leaves_sizes_out_is_completed_by_the_catalogue(tmp_path: Path) -> None:
    one = adapter(tmp_path / "a")
    assert match_base(one, {"num_hidden_layers": 2, "hidden_size": 8}, "x/y").how == "unchecked"
    assert mismatch(one, {"num_hidden_layers": 2, "hidden_size": 8}, STARTER).key == "adapters.other_shape"
    assert match_base(one, {}, "x/y").how == "unchecked"
