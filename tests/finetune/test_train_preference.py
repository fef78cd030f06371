"""DPO and KTO with a real, tiny model: they begin exactly at their reference, learn, stop, go on, and answer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace, read_json
from compare.engine import Arm, Done, Loaded, LoadSpec, Sampling
from finetune import preference_data, sources, train
from finetune.progress import read
from finetune.spec import DataSpec, LoraSpec, ModelSpec, PreferenceSpec, ScheduleSpec, TrainSpec, WatchSpec
from tests.finetune.preference_rows import KEPT, judged, pair, store
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore")
PARENT = "jobs/parent/adapter"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a tiny base and an adapter on it that plain fine-tuning made."""
    home = tmp_path_factory.mktemp("home")
    workspace = Workspace(home).prepare()
    base = make_model(home / "base", "llama")
    spec = replace(a_spec(base, "naranhi/emotion-ko", steps=3), data=DataSpec("naranhi/emotion-ko"), name="부모")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARANHI_HOME", str(home))
        assert run(replace(spec, watch=replace(spec.watch, examples=2)), workspace, "parent") == 0
    return home


@pytest.fixture
def workspace(home: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("NARANHI_HOME", str(home))
    return Workspace(home)


def a_spec(base: Path, data: str, objective: Any = "sft", start: str = "", **schedule: Any) -> TrainSpec:
    values = {"steps": 5, "accumulation": 2, "micro_batch": 2, "learning_rate": 5e-3, "max_length": 200, "warmup": 0.0}
    return TrainSpec(
        ModelSpec(str(base)),
        DataSpec(data, "preferences", heldout=0.2),
        name="다음",
        lora=LoraSpec(rank=4, alpha=8),
        schedule=ScheduleSpec(**{**values, **schedule}),
        watch=WatchSpec(every=2, samples=1, sample_tokens=4),
        objective=objective,
        start=start,
    )


def run(spec: TrainSpec, workspace: Workspace, name: str) -> int:
    folder = workspace.jobs / name
    folder.mkdir(parents=True, exist_ok=True)
    return train.run(spec, folder, workspace)


def pairs_file(workspace: Workspace) -> str:
    return store(workspace, [pair(q, n) for n, q in enumerate(KEPT[:24])], "pairs")


def judged_file(workspace: Workspace) -> str:
    return store(workspace, [judged(q, n, n % 2 == 0) for n, q in enumerate(KEPT[:24])], "judged")


@pytest.mark.parametrize("start", [PARENT, ""])
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_a_round_on_votes(objective: str, start: str, home: Path, workspace: Workspace) -> None:
    """The first step is exactly at the reference, the gap opens, held-out prompts follow; the adapter answers beside the
    one it went on from; the record says which votes were used."""
    from compare.local_engine import LocalEngine

    file = pairs_file(workspace) if objective == "dpo" else judged_file(workspace)
    spec = a_spec(home / "base", file, objective, start)
    name = f"{objective}-{'on' if start else 'new'}"
    assert run(spec, workspace, name) == 0
    progress = read(workspace.jobs / name)
    first, last = progress.steps[0], progress.steps[-1]
    assert first["loss"] == pytest.approx(math.log(2) if objective == "dpo" else 0.5, abs=1e-7)
    assert first["reward_chosen"] == 0.0
    assert last["loss"] < first["loss"] and progress.latest("margin") > 0.1  # type: ignore[operator]
    assert [row["step"] for row in progress.evals][:2] == [0, 2] and progress.evals[-1]["margin"] > 0.05
    assert progress.facts["canary"] == progress.facts["canary_of"] > 0 and progress.samples

    record = read_json(workspace.jobs / name / "adapter" / "run.json")
    assert record["objective"] == objective and record["preferences"]["file"] == file
    assert len(record["preferences"]["sha256"]) == 64 and record["preferences"]["votes"]["count"] == 24
    assert record["preferences"]["filter"] == {"agreement": 0.6} and record["preferences"]["study_id"] == "s1"
    assert ("start" in record) is bool(start)

    engine = LocalEngine(workspace)
    other = workspace.root / PARENT
    adapter = str(workspace.jobs / name / "adapter")
    arms = (Arm("a", str(home / "base"), str(other)), Arm("b", str(home / "base"), adapter))
    assert [event for event in engine.load(LoadSpec(arms)) if isinstance(event, Loaded)]
    turns = {key: [{"role": "user", "content": "질문 1"}] for key in ("a", "b")}
    done = [e for e in engine.stream(turns, None, Sampling(temperature=0, max_new_tokens=6)) if isinstance(e, Done)]
    assert {e.arm for e in done} == {"a", "b"} and all(e.reason in ("stop", "length") for e in done)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_a_stopped_round_goes_on_where_it_was(objective: str, home: Path, workspace: Workspace) -> None:
    from safetensors.torch import load_file

    file = pairs_file(workspace) if objective == "dpo" else judged_file(workspace)
    spec = a_spec(home / "base", file, objective, PARENT, steps=4)
    whole, cut = workspace.jobs / f"{objective}-whole", workspace.jobs / f"{objective}-cut"
    assert run(spec, workspace, whole.name) == 0
    cut.mkdir()
    (cut / "stop").touch()
    assert run(spec, workspace, cut.name) == train.STOPPED and read(cut).step == 1
    (cut / "stop").unlink()
    assert run(spec, workspace, cut.name) == 0
    assert [(r["step"], r["loss"]) for r in read(cut).steps] == [(r["step"], r["loss"]) for r in read(whole).steps]
    one, other = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (whole, cut))
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)
    changed = replace(spec, preference=PreferenceSpec(beta=0.3))
    (cut / "run.json").unlink()
    with pytest.raises(UserError) as caught:
        run(changed, workspace, cut.name)
    assert caught.value.key == "train.resume_differs" and "beta" in str(caught.value.values["difference"])


def test_the_trainer_sees_our_tokens_and_a_frozen_copy_of_the_start(home: Path, workspace: Workspace) -> None:
    import torch
    from safetensors.torch import load_file

    class Silent:
        def write(self, *_: object, **__: object) -> None: ...
        def note(self, *_: object, **__: object) -> None: ...

    spec = a_spec(home / "base", pairs_file(workspace), "dpo", PARENT)
    chat = ChatFormat.from_folder(home / "base")
    source = sources.load(workspace, spec.data)
    rows = preference_data.encode_all(spec, source, chat, Silent())
    parent = workspace.root / PARENT
    trainer = train.build_trainer(spec, home / "base", workspace.jobs / "seen", rows, chat, Silent(), parent)
    weights = load_file(parent / "adapter_model.safetensors")
    named = dict(trainer.model.named_parameters())
    trained = {n for n, p in named.items() if p.requires_grad}
    assert trained == {n for n in named if ".default." in n} and len(trained) == len(weights)
    for name in trained:
        saved, frozen = weights[name.replace(".default.", ".")], named[name.replace(".default.", ".ref.")]
        assert named[name].dtype == torch.float32 and torch.equal(named[name].cpu(), saved)
        assert torch.equal(frozen.cpu(), saved) and frozen.data_ptr() != named[name].data_ptr()

    learnt = set()
    for batch in trainer.get_train_dataloader():
        half = len(batch["input_ids"]) // 2
        for chosen in range(half):
            sides = []
            for i in (chosen, chosen + half):
                mask = batch["attention_mask"][i].bool()
                ids = batch["input_ids"][i][mask].tolist()
                sides.append((tuple(ids), tuple(batch["completion_mask"][i][mask].tolist())))
            learnt.add(tuple(sides))
    wanted = set()
    for example in source.train:
        sides = []
        for answer in (example.chosen, example.rejected):
            plain = chat.encode_training([*example.messages, *answer])
            end = max(i for i, t in enumerate(plain.trained) if t) + 1
            sides.append((tuple(plain.ids[:end]), tuple(int(t) for t in plain.trained[:end])))
        wanted.add(tuple(sides))
    assert learnt == wanted


def test_an_adapter_of_another_shape_is_refused(home: Path, workspace: Workspace) -> None:
    spec = a_spec(home / "base", pairs_file(workspace), "dpo", PARENT)
    with pytest.raises(UserError) as caught:
        run(replace(spec, lora=LoraSpec(rank=8, alpha=8)), workspace, "wrong-rank")
    assert caught.value.key == "start.shape_differs"
    from safetensors.torch import load_file, save_file

    folder = workspace.jobs / "other" / "adapter"
    folder.mkdir(parents=True)
    for file in (workspace.root / PARENT).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({n: t for n, t in weights.items() if "q_proj" not in n}, folder / "adapter_model.safetensors")
    with pytest.raises(UserError) as caught:
        run(replace(spec, start="jobs/other/adapter"), workspace, "wrong-tensors")
    assert caught.value.key == "start.tensors_differ" and "q_proj" in str(caught.value.values["first"])


@pytest.mark.parametrize(
    ("objective", "loss", "more"),
    [
        ("dpo", "ipo", {}),
        ("dpo", "hinge", {}),
        ("dpo", "robust", {"noise": 0.2}),
        ("dpo", "apo_zero", {"sft_weight": 0.5}),
        ("kto", "apo_zero_unpaired", {"undesirable_weight": 2.0}),
    ],
)
def test_other_losses_train(objective: str, loss: str, more: dict[str, Any], home: Path, workspace: Workspace) -> None:
    file = pairs_file(workspace)
    plain = a_spec(home / "base", file, start=PARENT, steps=2, micro_batch=1 if objective == "kto" else 2)
    preference = PreferenceSpec(loss=loss, **more)  # type: ignore[arg-type]
    watch = replace(plain.watch, samples=0)
    spec = replace(plain, objective=objective, preference=preference, watch=watch)  # type: ignore[arg-type]
    assert run(spec, workspace, f"loss-{loss}") == 0
    losses = [row["loss"] for row in read(workspace.jobs / f"loss-{loss}").steps]
    assert all(map(math.isfinite, losses)) and len(losses) == 2


def test_plain_fine_tuning_goes_on_from_an_adapter(home: Path, workspace: Workspace) -> None:
    spec = a_spec(home / "base", pairs_file(workspace), "sft", PARENT, steps=2)
    assert run(spec, workspace, "sft-on") == 0
    fresh = replace(spec, start="")
    assert run(fresh, workspace, "sft-new") == 0
    first = [read(workspace.jobs / name).steps[0]["loss"] for name in ("sft-on", "sft-new")]
    assert first[0] != first[1]
    assert read_json(workspace.jobs / "sft-on" / "run.json")["start"]["name"] == "부모"


@pytest.mark.parametrize("method", ["dora", "qlora8"])
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_other_adapters_learn_from_votes_too(method: str, objective: str, home: Path, workspace: Workspace) -> None:
    """From an adapter of their own kind, so that the reference is a frozen copy of it."""
    from tests.finetune.test_train_methods import METHODS

    settings: dict[str, Any] = METHODS[method]
    parent = f"parent-{method}"
    if not (workspace.jobs / parent / "adapter").exists():
        plain = a_spec(home / "base", "naranhi/emotion-ko", steps=3)
        plain = replace(plain, data=DataSpec("naranhi/emotion-ko"), watch=replace(plain.watch, examples=2), **settings)
        assert run(plain, workspace, parent) == 0
    file = pairs_file(workspace) if objective == "dpo" else judged_file(workspace)
    spec = replace(a_spec(home / "base", file, objective, f"jobs/{parent}/adapter"), **settings)
    name = f"{objective}-{method}"
    assert run(spec, workspace, name) == 0
    first, last = read(workspace.jobs / name).steps[0], read(workspace.jobs / name).steps[-1]
    assert first["loss"] == pytest.approx(math.log(2) if objective == "dpo" else 0.5, abs=1e-6)
    assert last["loss"] < first["loss"]
