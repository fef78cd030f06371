from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare.adapters import find_adapters, inspect, safe_folder
from compare.tensor_file import look_at, read_header
from tests.compare.adapter_files import CONFIG, STARTER, folder, lora, save, tensor


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        inspect(path)
    for language in LANGUAGES:
        assert "{" not in Words(language).error(caught.value)
    return caught.value.key


def test_an_adapter_made_elsewhere(tmp_path: Path) -> None:
    path = folder(tmp_path / "공감 연습")
    found = inspect(path)
    assert (found.name, found.base_id, found.rank, found.alpha) == ("공감 연습", STARTER, 2, 4.0)
    assert (found.targets, found.kind, found.every_layer) == (("q_proj", "v_proj"), "lora", True)
    assert found.trained_parameters == 2 * (16 + 16 + 16 + 8)
    data = (path / "adapter_model.safetensors").read_bytes()
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (found.template, found.system, found.date, found.steps, found.finished_at) == (None,) * 5
    assert (found.modules[0].name, found.modules[0].inputs) == ("model.layers.0.self_attn.q_proj", 8)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("when", [1.0, "1970-01-01T00:00:01Z"])
def test_an_adapter_of_a_run(tmp_path: Path, inside: bool, when: object) -> None:
    path = folder(tmp_path / "job" / "adapter")
    run = {
        "version": 1,
        "name": "공감",
        "base": {"id": "base", "revision": "abc"},
        "template": "{{ x }}",
        "template_hash": "h",
        "date": "26 Jul 2024",
        "system": "친절하게",
        "dataset": {"train": 3},
        "metrics": {"steps": 40},
        "finished_at": when,
    }
    (path if inside else path.parent).joinpath("run.json").write_text(json.dumps(run), encoding="utf-8")
    found = inspect(path)
    assert (found.name, found.base_id, found.base_revision) == ("공감", "base", "abc")
    assert (found.template, found.template_hash, found.date) == ("{{ x }}", "h", "26 Jul 2024")
    assert (found.system, found.steps, found.finished_at, found.dataset) == ("친절하게", 40, 1.0, {"train": 3})


def test_a_run_record_of_a_newer_version_or_a_damaged_one(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    (path / "run.json").write_text('{"version": 2, "base": {"id": "x"}}')
    assert refused(path) == "adapters.newer_run"
    (path / "run.json").write_text("{")
    assert refused(path) == "adapters.bad_run"
    (path / "run.json").write_text('["another program\'s"]')
    assert inspect(path).base_id == STARTER


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"peft_type": "IA3"}, "adapters.not_lora"),
        ({"peft_type": "PROMPT_TUNING"}, "adapters.not_lora"),
        ({"use_dora": True}, "adapters.dora"),
        ({"modules_to_save": ["lm_head"]}, "adapters.modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "adapters.trained_tokens"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "adapters.trained_tokens"),
        ({"bias": "all"}, "adapters.bias"),
        ({"lora_bias": True}, "adapters.bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "adapters.changes_base"),
        ({"alora_invocation_tokens": [1]}, "adapters.option"),
        ({"lora_alpha": "4"}, "adapters.bad_config"),
    ],
)
def test_kinds_that_cannot_be_compared(tmp_path: Path, config: dict[str, Any], key: str) -> None:
    assert refused(folder(tmp_path / "a", **config)) == key


def test_dora_needs_a_length_for_every_row(tmp_path: Path) -> None:
    def with_lengths(outputs: dict[str, int]) -> Any:
        tensors = lora()
        for name in [key.removesuffix("lora_A.weight") for key in tensors if key.endswith("lora_A.weight")]:
            tensors[f"{name}lora_magnitude_vector"] = tensor(outputs[name.split(".")[-2]])
        return tensors

    right = with_lengths({"q_proj": 8, "v_proj": 4})
    assert inspect(folder(tmp_path / "a", right, use_dora=True)).kind == "dora"
    assert refused(folder(tmp_path / "b", with_lengths({"q_proj": 8, "v_proj": 3}), use_dora=True)) == "adapters.dora"
    assert refused(folder(tmp_path / "c", right)) == "adapters.other_tensor"


def test_rslora_is_a_kind_of_its_own(tmp_path: Path) -> None:
    assert inspect(folder(tmp_path / "a", use_rslora=True, init_lora_weights="gaussian")).kind == "rslora"


def test_missing_and_pickled_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    assert refused(path) == "adapters.no_config"
    (path / "adapter_config.json").write_text(json.dumps(CONFIG))
    assert refused(path) == "adapters.no_weights"
    (path / "adapter_model.bin").write_bytes(b"\x80\x02}q\x00.")
    assert refused(path) == "adapters.pickled"
    folder(path)
    assert inspect(path).rank == 2
    for text in ("{", "[]"):
        (path / "adapter_config.json").write_text(text)
        assert refused(path) == "adapters.bad_config"


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ("base_model.model.model.embed_tokens.weight", "adapters.embeddings"),
        ("base_model.model.lm_head.weight", "adapters.embeddings"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "adapters.embeddings"),
        ("base_model.model.model.norm.weight", "adapters.other_tensor"),
        ("base_model.model._orig_mod.model.layers.0.q_proj.lora_A.weight", "adapters.other_tensor"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", "adapters.half"),
    ],
)
def test_weights_that_are_more_than_lora(tmp_path: Path, extra: str, key: str) -> None:
    assert refused(folder(tmp_path / "a", lora() | {extra: tensor(2, 8)})) == key


def test_an_empty_one_and_shapes_that_do_not_fit(tmp_path: Path) -> None:
    assert refused(folder(tmp_path / "a", {})) == "adapters.empty"
    wrong = lora() | {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": tensor(8, 3)}
    assert refused(folder(tmp_path / "b", wrong)) == "adapters.shapes"


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_what_the_numbers_say(tmp_path: Path, dtype: str) -> None:
    assert inspect(folder(tmp_path / "good", lora(dtype=dtype))).rank == 2
    for zero in (0.0, -0.0):
        assert refused(folder(tmp_path / "zero", lora(zero, dtype))) == "adapters.changes_nothing"
    for bad in (float("nan"), float("inf"), float("-inf")):
        assert refused(folder(tmp_path / "bad", lora(bad, dtype))) == "adapters.not_finite"
    one = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    assert inspect(folder(tmp_path / "one", lora(0.0, dtype) | {one: tensor(4, 2, dtype=dtype)})).rank == 2
    assert inspect(tmp_path / "zero", check_values=False).rank == 2


def test_tensors_larger_than_one_reading(tmp_path: Path) -> None:
    numbers = np.zeros(3_000_000, "<f4")
    numbers[-1] = np.nan
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"x": ("F32", (3_000_000,), numbers.tobytes())}))
    values = look_at(path, read_header(path)[0])
    assert (values.finite, values.any_nonzero) == (False, True)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = save(lora())
    for cut in (*range(0, len(whole), 37), len(whole) - 1):
        assert refused(folder(tmp_path / "a", whole[:cut])) in ("adapters.truncated", "adapters.damaged")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"x": {}}',
        b'{"x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 8]}}',
        b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b"[" * 100_000,
    ],
)
def test_headers_that_lie(tmp_path: Path, header: bytes) -> None:
    data = len(header).to_bytes(8, "little") + header + b"\0" * 8
    assert refused(folder(tmp_path / "a", data)) == "adapters.damaged"


def test_a_number_format_that_is_not_ours(tmp_path: Path) -> None:
    tensors = {name: ("F8_E4M3", shape, b"\1" * int(np.prod(shape))) for name, (_, shape, _) in lora().items()}
    assert refused(folder(tmp_path / "a", tensors)) == "adapters.dtype"


def test_jobs_newest_first_with_the_broken_ones_and_their_reason(tmp_path: Path) -> None:
    for name, state, when in (("a", "finished", 10), ("b", "stopped", 30), ("c", "finished", 20), ("d", "running", 40)):
        path = folder(tmp_path / name / "adapter")
        (path.parent / "job.json").write_text(json.dumps({"state": state}))
        os.utime(path / "adapter_model.safetensors", (when, when))
    (tmp_path / "c" / "adapter" / "run.json").write_text(
        json.dumps({"version": 1, "base": {"id": "x"}, "name": "C", "finished_at": 50.0})
    )
    folder(tmp_path / "e" / "adapter", b"")
    (tmp_path / "e" / "job.json").write_text('{"state": "finished"}')
    folder(tmp_path / "f" / "adapter")
    (tmp_path / "g").mkdir()
    found = find_adapters(tmp_path)
    assert [one.folder.parent.name for one in found.adapters] == ["c", "b", "a"]
    assert {one.folder.parent.name: one.reason_key for one in found.broken} == {
        "e": "adapters.truncated",
        "f": "adapters.bad_job",
    }
    assert find_adapters(tmp_path / "none").adapters == ()


def outside(text: str, *roots: Path) -> str:
    with pytest.raises(UserError) as caught:
        safe_folder(text, roots)
    return caught.value.key


def test_folders_that_may_be_opened(tmp_path: Path) -> None:
    root, other = tmp_path / "작업 공간", tmp_path / "other"
    inside = root / "내 어댑터 1"
    inside.mkdir(parents=True)
    other.mkdir()
    assert safe_folder("내 어댑터 1", [root]) == inside
    assert safe_folder(f'  "{inside}" ', [root]) == inside
    assert safe_folder("x/../내 어댑터 1", [root]) == inside
    assert safe_folder(unicodedata.normalize("NFD", "내 어댑터 1"), [root]) == inside
    assert safe_folder("../other", [root, other]) == other
    assert outside("../other", root) == "adapters.outside"
    assert outside(str(other), root) == "adapters.outside"
    assert outside("없는 폴더", root) == "adapters.no_folder"
    assert outside("가" * 5000, root) == "adapters.no_folder"
    (root / "link").symlink_to(other)
    assert outside("link", root) == "adapters.outside"
    (root / "loop").symlink_to(root / "loop")
    assert outside("loop", root) == "adapters.no_folder"
    for name in ("", "  ", "a\0b"):
        assert outside(name, root) == "adapters.bad_name"


def test_torch_is_not_imported() -> None:
    code = "import sys, compare.adapters, compare.ratings; sys.exit('torch' in sys.modules or 'gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2]).returncode == 0


def test_strings_are_complete_and_alike_in_both_languages() -> None:
    import re

    korean, english = (Words(language) for language in ("ko", "en"))
    for key in sorted(korean.keys()):
        if key.startswith(("ratings.", "adapters.")):
            assert sorted(re.findall(r"{\w+}", korean(key))) == sorted(re.findall(r"{\w+}", english(key))), key
    used = set()
    for path in (Path(__file__).resolve().parents[2] / "compare").glob("*.py"):
        used |= set(re.findall(r'"((?:ratings|adapters)\.[a-z_.]+[a-z])"', path.read_text(encoding="utf-8")))
    used -= {"ratings.csv", "ratings.py"}
    assert used and {key for key in used if key not in korean or key not in english} == set()
