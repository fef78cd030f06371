"""The training script with real, tiny models of every architecture in the catalogue: it learns, saves, resumes, and its
adapter answers beside its base in 4 bits."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace, read_json
from compare.engine import Arm, Done, Loaded, LoadSpec, Sampling
from finetune import data as reading
from finetune import readings, sources, train
from finetune.data import Mapping, Table
from finetune.progress import read
from finetune.spec import DataSpec, TrainSpec
from tests.assets import templates
from tests.finetune.two_ranks import a_spec
from tests.models import ARCHITECTURES, make_model

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPES = {
    "messages": {"messages": [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "네, 반가워요."}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "왜?"}, {"from": "gpt", "value": "그냥요, 👍."}]},
    "prompt_completion": {"prompt": "비가 와요", "completion": "우산을 챙기세요."},
    "instruction": {"instruction": "더해 줘", "input": "1, 2", "output": "3이에요."},
    "qa": {"question": "배고파", "answer": "밥을 먹어요."},
    "aihub": {
        "talk": {"content": {"HS01": "속상해요.", "SS01": "무슨 일이에요?", "HS02": "졌어요.", "SS02": "아쉽네요."}}
    },
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("NARANHI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NARANHI_JOB", raising=False)
    return Workspace.from_environment().prepare()


def run(spec: TrainSpec, folder: Path, workspace: Workspace) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return train.run(spec, folder, workspace)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_and_answers_beside_its_base(
    architecture: str, workspace: Workspace, tmp_path: Path
) -> None:
    from compare.local_engine import LocalEngine

    base = make_model(tmp_path / "base", architecture)
    folder = workspace.jobs / "job"
    assert run(a_spec(workspace.root, base), folder, workspace) == 0

    progress = read(folder)
    assert progress.step == progress.total == 4
    assert [row["step"] for row in progress.evals] == [0, 2, 4]
    assert progress.samples and progress.latest("tokens_per_second")
    record = read_json(folder / "run.json")
    assert record["base"]["id"] == str(base) and record["stopped"] is False

    engine = LocalEngine(workspace)
    arms = (Arm("a", str(base)), Arm("b", str(base), str(folder / "adapter")))
    loaded = [event for event in engine.load(LoadSpec(arms)) if isinstance(event, Loaded)]
    assert loaded[0].check.difference and loaded[0].check.difference > loaded[0].check.tolerance
    turns = {key: [{"role": "user", "content": "질문 1"}] for key in ("a", "b")}
    events = list(engine.stream(turns, None, Sampling(temperature=0, max_new_tokens=6)))
    done = {e.arm: e for e in events if isinstance(e, Done)}  # the texts of random weights may be broken characters
    assert set(done) == {"a", "b"}
    assert all(e.reason in ("stop", "length") and e.tokens for e in done.values())


def test_a_stopped_run_goes_on_where_it_was(workspace: Workspace, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    spec, folder = a_spec(workspace.root, base, steps=6), workspace.jobs / "job"
    folder.mkdir(parents=True)
    (folder / "stop").touch()
    assert run(spec, folder, workspace) == train.STOPPED
    assert read(folder).step == 1
    assert (folder / "checkpoints" / "checkpoint-1" / "complete.json").exists()
    (folder / "stop").unlink()
    assert run(spec, folder, workspace) == 0
    resumed = read(folder)
    assert resumed.step == 6 and [n["key"] for n in resumed.notes] == ["train.resumed"]

    whole = workspace.jobs / "whole"
    assert run(spec, whole, workspace) == 0
    losses = {row["step"]: row["loss"] for row in read(whole).steps}
    assert {row["step"]: row["loss"] for row in resumed.steps} == losses


def test_a_checkpoint_cut_short_is_not_used(workspace: Workspace, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    spec, folder = a_spec(workspace.root, base), workspace.jobs / "job"
    assert run(replace(spec, schedule=replace(spec.schedule, steps=4)), folder, workspace) == 0
    newest = folder / "checkpoints" / "checkpoint-4"
    with (newest / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(100)
    assert run(spec, folder, workspace) == 0
    keys = [(note["key"], note["values"]["name"]) for note in read(folder).notes]
    assert keys == [("train.broken_checkpoint", "checkpoint-4"), ("train.resumed", "checkpoint-2")]


def test_a_loss_that_is_no_number_ends_the_run(workspace: Workspace, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    spec = a_spec(
        workspace.root, base, learning_rate=0.1, max_grad_norm=1e6, steps=50, warmup=0.0, scheduler="constant"
    )
    from safetensors.torch import load_file, save_file

    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        run(spec, workspace.jobs / "job", workspace)
    assert caught.value.key == "train.not_a_number"
    assert not (workspace.jobs / "job" / "run.json").exists()


def test_the_text_part_of_a_multimodal_checkpoint_is_what_is_trained(workspace: Workspace, tmp_path: Path) -> None:
    """Gemma 3 from 4B on: other tensor names, a vision tower that gets no adapter, and no random weights in between."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

    from finetune.train_model import load_base

    base = make_model(tmp_path / "base", "gemma3")
    text = Gemma3TextConfig.from_pretrained(base)
    vision = SiglipVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=500)
    Gemma3ForConditionalGeneration(config).save_pretrained(base)
    whole = Gemma3ForConditionalGeneration.from_pretrained(base, dtype=torch.float32).eval()
    ids = torch.arange(3, 40)[None]
    loaded = load_base(base, replace(a_spec(workspace.root, base), method="lora"), "float32", "cpu").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert not any("vision" in name for name, _ in loaded.named_parameters())


def test_missing_weights_end_the_run(workspace: Workspace, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = make_model(tmp_path / "base", "llama")
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        run(a_spec(workspace.root, base), workspace.jobs / "job", workspace)
    assert caught.value.key == "train.missing_weights"


def test_an_adapter_that_learnt_nothing_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from finetune.train_save import verify_adapter

    save_file({"x.lora_B.weight": torch.zeros(4, 4)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError) as caught:
        verify_adapter(tmp_path)
    assert caught.value.values == {"reason": "lora_B = 0"}
    save_file({"x.lora_B.weight": torch.full((4, 4), float("nan"))}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError):
        verify_adapter(tmp_path)


@pytest.mark.parametrize("kind", templates.KINDS)
def test_the_preview_marks_exactly_what_the_trainer_learns(kind: str, workspace: Workspace, tmp_path: Path) -> None:
    """For every data shape: labels of the trainer's own batches against the marks that the page draws."""
    base = make_model(tmp_path / "base", "llama", vocab_size=1024)
    templates.make(base, kind, templates.template(kind))
    chat = ChatFormat.from_folder(base)
    spec = a_spec(workspace.root, base, steps=len(SHAPES))
    examples = []
    for shape, row in SHAPES.items():
        table = Table(list(row), [row])
        mapping = reading.guess(table)
        assert mapping.shape == shape
        examples += reading.convert(table, Mapping(mapping.shape, mapping.columns)).examples
    assert len(examples) == len(SHAPES)
    rows = {"train": train.encode(examples, chat, spec), "heldout": []}

    class Silent:
        def write(self, *_: object, **__: object) -> None: ...

    trainer = train.build_trainer(spec, base, tmp_path / "out", rows, chat, Silent())
    learnt = set()
    for batch in trainer.get_train_dataloader():
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        learnt.add((tuple(ids), tuple(label != -100 for label in labels)))
    shown = set()
    for example in examples:
        ids, marks = readings.tokens(chat, example, spec)
        shown.add((tuple(ids), tuple(marks)))
    assert learnt == shown


def test_out_of_memory_and_a_full_disk_are_named() -> None:
    import errno

    assert train.explain(MemoryError())["key"] == "train.out_of_memory"
    assert train.explain(RuntimeError("CUDA out of memory. Tried to allocate"))["key"] == "train.out_of_memory"
    assert train.explain(OSError(errno.ENOSPC, "No space left on device"))["key"] == "train.disk_full"
    hidden = "SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)"
    assert train.explain(RuntimeError(hidden))["key"] == "train.disk_full"
    assert train.explain(RuntimeError("The server socket failed: EADDRINUSE"))["key"] == "train.port_taken"
    assert train.explain(RuntimeError("CUDA error: unspecified launch failure"))["key"] == "train.gpu_lost"
    assert train.explain(UserError("data.empty", name="x"))["key"] == "data.empty"
    assert train.explain(ValueError("odd"))["values"] == {"reason": "ValueError: odd"}


def test_the_script_runs_by_hand(workspace: Workspace, tmp_path: Path) -> None:
    """The pasted command: a YAML, an output folder, exit code 0; a second time it says that it is done."""
    import subprocess
    import sys

    base = make_model(tmp_path / "base", "llama")
    file = tmp_path / "my-run.yaml"
    file.write_text(a_spec(workspace.root, base, steps=2).to_yaml(), encoding="utf-8")
    argv = [sys.executable, "-m", "finetune.train", "--spec", str(file), "--out", str(tmp_path / "my run")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    first = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr[-2000:]
    again = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "already finished" in again.stderr


def test_builtin_data_is_split_as_written(workspace: Workspace) -> None:
    source = sources.load(workspace, DataSpec("naranhi/emotion-ko"))
    assert (len(source.train), len(source.heldout)) == (240, 60)


def test_a_checkpoint_of_other_data_is_refused_with_the_difference(workspace: Workspace, tmp_path: Path) -> None:
    spec = a_spec(workspace.root, make_model(tmp_path / "base", "llama"))
    folder = workspace.jobs / "job"
    assert run(spec, folder, workspace) == 0
    with (workspace.uploads / "talks.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"messages": [{"role": "user", "content": "새"}, {"role": "assistant", "content": "말"}]}')
    with pytest.raises(UserError) as caught:
        run(spec, folder, workspace)
    assert caught.value.key == "train.resume_differs"
    said = str(caught.value.values["difference"])
    assert said.startswith("data: ") and " → " in said and caught.value.values["checkpoint"] == "checkpoint-4"


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama", vocab_size=128)
    with pytest.raises(UserError) as caught:
        run(a_spec(workspace.root, base), workspace.jobs / "job", workspace)
    assert caught.value.key == "train.vocabulary" and caught.value.values["rows"] == 128


def test_a_template_that_cannot_be_trained_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    spec = a_spec(workspace.root, base)
    backwards = "{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError) as caught:
        run(replace(spec, model=replace(spec.model, template=backwards)), workspace.jobs / "job", workspace)
    assert caught.value.key.startswith("chat.template_")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(UserError) as caught:
        run(spec, workspace.jobs / "job", workspace)
    assert caught.value.key == "chat.no_template"


def test_the_record_is_enough_to_repeat_the_run(workspace: Workspace, tmp_path: Path) -> None:
    from finetune.spec import from_dict
    from tests.finetune.two_ranks import a_plan

    spec, folder = a_spec(workspace.root, make_model(tmp_path / "base", "llama"), steps=2), workspace.jobs / "job"
    folder.mkdir(parents=True)
    plan = json.loads(json.dumps(a_plan(workspace.root, folder).to_dict()))
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    assert run(spec, folder, workspace) == 0
    record = read_json(folder / "run.json")
    assert from_dict(record["spec"]) == spec and record["plan"] == plan
    assert record["dataset"]["sha256"] == sources.load(workspace, spec.data).sha256
    assert record["canary"]["modules"] == record["canary"]["of"] > 0
    assert record["metrics"]["steps"] == 2 and record["metrics"]["train_loss"] > 0
    assert {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate"} <= record["versions"].keys()
    found = record["environment"]
    assert found["cores"] > 0 and found["memory"] > 0 and found["gpus"] == [] and found["placement"] == "single"
    assert read_json(folder / "adapter" / "run.json") == record


def test_a_gpu_that_is_gone_is_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan counted on it, and CUDA sees none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("NARANHI_JOB", "job")
    with pytest.raises(UserError) as caught:
        train.run(a_spec(workspace.root, Path("x")), workspace.jobs / "job", workspace)
    assert caught.value.key == "train.gpu_lost"


def test_no_token_reaches_the_record(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.train_record import environment

    monkeypatch.setenv("HF_TOKEN", "hf_verysecrettoken")
    assert "hf_verysecrettoken" not in json.dumps(environment())


def test_an_evaluation_does_not_change_how_a_cpu_trains(workspace: Workspace, tmp_path: Path) -> None:
    """bitsandbytes 0.50.2 repacks weights in evaluation mode on CPUs with AVX512-BF16 and loses gradients afterwards."""
    import torch

    from finetune.train_canary import quantised_layers
    from finetune.train_model import load_base

    model = load_base(make_model(tmp_path / "base", "llama"), a_spec(workspace.root, Path("x")), "bfloat16", "cpu")
    layers = quantised_layers(model)
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers.values())
    ids = torch.arange(3, 40)[None]

    def gradient() -> torch.Tensor:
        inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
        model.train()(inputs_embeds=inputs, labels=ids).loss.backward()
        return inputs.grad

    before = gradient()
    with torch.no_grad():
        model.eval()(input_ids=ids)
    after = gradient()
    assert before.abs().sum() > 0 and torch.equal(before, after)
