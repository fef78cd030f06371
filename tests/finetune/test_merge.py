"""Merging: real, tiny models in the script itself; the state that the page reads; everything that is refused."""

from __future__ import annotations

import json
import os
import stat
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace, read_json, write_json
from assets.words import LANGUAGES, Words
from finetune import merge, tab_merge, train
from finetune.jobs import identity
from tests.finetune.test_train_methods import METHODS
from tests.finetune.two_ranks import a_spec
from tests.models import make_model

FAKE = """#!/usr/bin/env python3
import sys
from pathlib import Path
import gguf
if "fail" in sys.argv[0]:
    sys.exit("no such architecture")
if "module" in sys.argv[0]:
    import nothing_of_this_name
out = Path(sys.argv[sys.argv.index("--outfile") + 1])
assert (Path(sys.argv[1]) / "config.json").is_file()
import numpy
writer = gguf.GGUFWriter(out, "llama")
writer.add_tensor("x", numpy.zeros((2, 2), numpy.float32))
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
"""


def refused(key: str, call: Any, *values: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*values)
    assert caught.value.key == key
    for language in LANGUAGES:
        assert "{" not in Words(language).error(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Finished runs of a tiny base: a QLoRA one, a DoRA one on 16 bits, a whole one."""
    root = tmp_path_factory.mktemp("merge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARANHI_HOME", str(root))
        patch.delenv("NARANHI_JOB", raising=False)
        workspace = Workspace.from_environment().prepare()
        base = make_model(root / "base", "gemma2", hidden_size=128, intermediate_size=256)
        for name, settings in (("qlora", {"method": "qlora"}), ("dora", METHODS["dora"]), ("full", METHODS["full"])):
            folder = workspace.jobs / name
            folder.mkdir()
            assert train.run(replace(a_spec(root, base), **settings), folder, workspace) == 0
    return workspace


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "llama.cpp" / merge.CONVERTER
    script.parent.mkdir()
    script.write_text(FAKE, encoding="utf-8")
    monkeypatch.setenv(merge.VARIABLE, str(script.parent))
    return script


def done(folder: Path) -> merge.Merge:
    found = merge.wait(folder, 500)  # the process gives way to everything else on a busy machine
    assert found is not None and not found.running
    return found


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", ["qlora", "dora"])
def test_the_merged_model_answers_as_the_adapter_does(name: str, space: Workspace) -> None:
    """One through the process of its own, as the page starts it; then opened by the library that people use."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    from finetune import merge_weights

    folder, phases = space.jobs / name, []
    if name == "qlora":
        merge.start(folder, "merge")
        found = done(folder)
        assert found.state == "done", (found.error, (folder / merge.LOG).read_text())
        result = dict(found.result)
    else:
        result = merge_weights.merge(folder, space, phases.append)
        assert tuple(phases) == merge.PHASES["merge"]
    assert result["divergence"] <= result["tolerance"] and result["adapter_changes"] > result["tolerance"]
    assert result["computed_in"] == "float32" and result["tokens"] > 100 and result["folder"] == f"jobs/{name}/merged"

    merged = AutoModelForCausalLM.from_pretrained(folder / "merged")
    assert merged.dtype == torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(space.root / "base", dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, folder / "adapter").eval()
    ids = torch.arange(5, 40)[None]
    with torch.inference_mode():
        one, other = merged.float().eval()(input_ids=ids).logits, tuned(input_ids=ids).logits
        with tuned.disable_adapter():
            plain = tuned(input_ids=ids).logits
    assert (one - other).norm() < 0.1 * (one - plain).norm()
    chat = ChatFormat.from_folder(folder / "merged")
    assert GenerationConfig.from_pretrained(folder / "merged").eos_token_id == list(chat.stop_ids)
    assert read_json(folder / "merged" / "run.json")["merged"] is True


def test_a_merged_model_stands_beside_its_base_in_the_comparison(space: Workspace) -> None:
    from compare.candidates import Asked, choose

    if not (space.jobs / "qlora" / "merged").exists():
        merge.start(space.jobs / "qlora", "merge")
        assert done(space.jobs / "qlora").state == "done"
    chosen = choose(space, str(space.root / "base"), str(space.jobs / "qlora" / "merged"), Asked())
    assert chosen.second.tuned and chosen.second.origin == chosen.first.base and chosen.second.name == "tiny · 16-bit"


def test_gguf_is_made_of_a_whole_model(space: Workspace, converter: Path) -> None:
    folder = space.jobs / "full"
    merge.start(folder, "gguf", "q8_0")
    found = done(folder)
    assert found.state == "done", found.error
    assert found.gguf["tensors"] == 1 and found.gguf["file"] == "jobs/full/gguf/tiny-q8_0.gguf"
    assert not list((folder / "gguf").glob("*.part"))


@pytest.mark.parametrize(("word", "key"), [("fail", "merge.gguf_failed"), ("module", "merge.gguf_module")])
def test_a_converter_that_does_not_finish_is_told(
    word: str, key: str, space: Workspace, converter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = converter.rename(converter.with_name(f"{word}.py"))
    monkeypatch.setenv(merge.VARIABLE, str(bad))
    merge.start(space.jobs / "full", "gguf")
    found = done(space.jobs / "full")
    assert found.state == "failed" and found.error["key"] == key
    for language in LANGUAGES:
        assert "{" not in tab_merge.told(found, Words(language))


def test_what_cannot_be_merged_is_refused(space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(merge.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    refused("merge.nothing", merge.start, tmp_path, "merge")
    assert refused("merge.whole", merge.start, space.jobs / "full", "merge").values["folder"] == "jobs/full/model"
    refused("merge.no_converter", merge.start, space.jobs / "full", "gguf")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    (tmp_path / "adapter" / "run.json").write_text("{}")
    refused("merge.first", merge.start, tmp_path, "gguf")
    write_json(tmp_path / merge.RECORD, vars(merge.Merge(process=identity(os.getpid()))))
    refused("merge.running", merge.start, tmp_path, "merge")


def test_without_disk_or_memory_nothing_is_begun(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import psutil

    from finetune import merge_weights

    folder = space.jobs / "dora"
    usage, memory = namedtuple("usage", "total used free"), namedtuple("memory", "total available")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30, 1000))
        refused("merge.disk", merge_weights.merge, folder, space, lambda phase: None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(2**40, 2**20))
    refused("merge.memory", merge_weights.merge, folder, space, lambda phase: None)


def test_a_base_in_few_bits_is_never_merged_into(space: Workspace, tmp_path: Path) -> None:
    from finetune import merge_weights
    from tests.finetune.test_fsdp import quantised_by_others

    few = quantised_by_others(space.root / "base", tmp_path / "few")
    job = tmp_path / "job"
    job.mkdir()
    write_json(job / "run.json", read_json(space.jobs / "qlora" / "run.json") | {"base": {"id": str(few)}})
    refused("merge.few_bits", merge_weights.merge, job, space, lambda phase: None)


def test_a_model_that_answers_differently_is_removed(tmp_path: Path) -> None:
    import torch

    from finetune.merge_weights import proved

    (tmp_path / "merged").mkdir()
    one, other = torch.log_softmax(torch.eye(4) * 3, -1), torch.log_softmax(torch.zeros(4, 4), -1)
    refused("merge.disagrees", proved, [one], [other], 0.1, torch.float32, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    (tmp_path / "merged").mkdir()
    refused("merge.disagrees", proved, [one], [one * float("nan")], 0.1, torch.float32, tmp_path / "merged")
    (tmp_path / "merged").mkdir()
    found = proved([one], [one], 0.1, torch.float32, tmp_path / "merged")
    assert (found["divergence"], found["tolerance"], found["same_token"]) == (0.0, 1e-3, 1.0)


def test_a_process_that_is_gone_has_failed(tmp_path: Path) -> None:
    assert merge.read(tmp_path) is None
    write_json(tmp_path / merge.RECORD, vars(merge.Merge(process=(2**22 - 1, 1.0), result={"folder": "x"})))
    found = merge.read(tmp_path)
    assert found is not None and found.state == "failed" and found.error["key"] == "merge.killed" and found.result
    for text in ("{", '{"version": 99}', "[]"):
        (tmp_path / merge.RECORD).write_text(text)
        refused("merge.record", merge.read, tmp_path)


def test_the_converter_is_found_where_it_is_named(
    converter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert merge.converter() == converter
    monkeypatch.setenv(merge.VARIABLE, str(converter))
    assert merge.converter() == converter
    monkeypatch.setenv(merge.VARIABLE, str(tmp_path / "nowhere"))
    assert merge.converter() is None
    monkeypatch.delenv(merge.VARIABLE)
    monkeypatch.setenv("PATH", str(converter.parent))
    converter.chmod(converter.stat().st_mode | stat.S_IXUSR)
    assert merge.converter() == converter


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_page_shows(language: str, space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words(language)
    monkeypatch.delenv(merge.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    go, more, convert, told, timer = tab_merge.shown(space.jobs / "full", words)
    assert not go["visible"] and more["visible"] and not convert["interactive"] and not timer.active
    assert "git clone" in told
    result = {"folder": "jobs/x/merged", "bytes": 2**30, "shards": 2, "tokens": 9, "divergence": 1e-4}
    result |= {"tolerance": 1e-3, "same_token": 0.99}
    running = merge.Merge("merge", "running", "save", identity(os.getpid()))
    write_json(tmp_path / merge.RECORD, vars(running))
    go, more, _, told, timer = tab_merge.shown(tmp_path, words)
    assert not go["interactive"] and not more["visible"] and timer.active and words("merge.phase.save") in told
    finished = replace(running, state="done", result=result, gguf={"file": "<b>", "bytes": 5, "tensors": 1})
    text = tab_merge.told(finished, words)
    assert "jobs/x/merged" in text and "0.0001" in text and "&lt;b&gt;" in text and "99.0" in text
    (tmp_path / merge.RECORD).write_text(json.dumps({"version": 99}))
    assert words("merge.record") in tab_merge.shown(tmp_path, words)[3]
    assert tab_merge.shown(None, words)[3] == ""
