"""Choosing a preference file fills the form: objective, low rate, the compared adapter and its shape."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from assets import preferences
from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace, write_json
from assets.words import LANGUAGES, Words
from finetune import tab_form, tab_preference
from finetune.jobs import Job, Jobs
from finetune.services import TrainServices
from finetune.tab_preference import PreferencePanel
from tests.finetune.preference_rows import KEPT, judged, pair, store
from tests.finetune.test_start import CONFIG, RUN


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").prepare()


def panel(space: Workspace, language: str = "ko") -> PreferencePanel:
    words = Words(language)
    services = TrainServices(space, Jobs(space), lambda _: True)

    async def build() -> PreferencePanel:
        with gr.Blocks():
            with gr.Accordion() as fold:
                form = tab_form.build(words)
            return tab_preference.wire(form, fold, words, services)

    return asyncio.run(build())


def parent(space: Workspace) -> Path:
    folder = space.jobs / "parent" / "adapter"
    folder.mkdir(parents=True)
    write_json(folder / "adapter_config.json", {**CONFIG, "r": 64, "lora_alpha": 128})
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    write_json(folder / "run.json", RUN)
    write_json(folder.parent / "job.json", Job("parent", "공감", "finished", 1.0, "", version=1).__dict__)
    return folder


def by_name(made: PreferencePanel, updates: dict[Any, Any]) -> dict[str, Any]:
    fields = {id(component): name for name, component in made.form.inputs().items()}
    return {fields[id(component)]: value for component, value in updates.items() if id(component) in fields}


def to_spec(made: PreferencePanel, updates: dict[Any, Any]) -> Any:
    """The spec that the form makes once the updates have arrived."""
    values = {name: component.value for name, component in made.form.inputs().items()}
    for name, value in by_name(made, updates).items():
        values[name] = value["value"] if isinstance(value, dict) else value
    return tab_form.to_spec(values)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_file_of_votes_sets_everything(language: str, space: Workspace) -> None:
    adapter = parent(space)
    name = store(space, [pair(q) for q in KEPT[:4]], adapter=str(adapter), base=STARTER, system="친구예요.")
    made = panel(space, language)
    updates = made.take(name)
    assert set(updates) <= set(made.outputs) and updates[made.fold] == gr.update(open=True)
    spec = to_spec(made, updates)
    assert (spec.data.kind, spec.data.id, spec.objective, spec.start) == (
        "preferences",
        name,
        "dpo",
        "jobs/parent/adapter",
    )
    assert (spec.lora.rank, spec.lora.alpha, spec.lora.targets) == (64, 128, "q_proj,v_proj")
    assert spec.preference.beta == 0.1 and spec.schedule.learning_rate <= 1e-4 and spec.data.system == "친구예요."
    assert spec.model.id == STARTER and by_name(made, updates)["preset"] == "preference"
    (label, value), *_ = updates[made.form.pairs]["choices"]
    assert value == name and "4" in label and "DPO" in label


def test_judged_answers_choose_kto_with_batches_that_work(space: Workspace) -> None:
    name = store(space, [judged(q, n, n % 2 == 0) for n, q in enumerate(KEPT[:4])])
    made = panel(space)
    spec = to_spec(made, made.take(name))
    assert (spec.objective, spec.start, spec.loss) == ("kto", "", "kto") and spec.schedule.micro_batch >= 2


def test_another_origin_of_the_data(space: Workspace) -> None:
    made = panel(space)
    assert by_name(made, made.on_source("preferences", None, "sft"))["pairs"] == gr.update(choices=[], value=None)
    older = store(space, [pair(KEPT[0])], "older")
    newer = store(space, [pair(KEPT[1])], "newer")
    assert to_spec(made, made.on_source("preferences", None, "sft")).data.id in (older, newer)
    assert to_spec(made, made.on_source("preferences", older, "sft")).data.id == older
    back = to_spec(made, made.on_source("emotion", newer, "dpo"))
    assert (back.objective, back.start, back.data.kind) == ("sft", "", "builtin")
    assert tab_form.flat(back) == tab_form.preset_values("quick")
    assert list(made.on_source("emotion", None, "sft")) == [made.form.source]


def test_an_adapter_by_hand_brings_its_shape(space: Workspace) -> None:
    parent(space)
    made = panel(space)
    fields = by_name(made, made.on_start("jobs/parent/adapter"))
    assert fields == {"rank": 64, "alpha": 128, "targets": "q_proj,v_proj", "rslora": False, "model": STARTER}
    assert made.adapters() == [("공감", "jobs/parent/adapter")]
    with pytest.raises(UserError):
        made.on_start("jobs/nothing/adapter")
    asked = made.asking(made.on_start)
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(gr, "Warning", said.append)
        assert list(asked("jobs/nothing/adapter")) == [made.form.source] and len(said) == 1


def test_a_file_whose_adapter_is_gone_begins_afresh(space: Workspace) -> None:
    name = store(space, [pair(KEPT[0])], adapter=str(space.jobs / "gone" / "adapter"), base=STARTER)
    made = panel(space)
    assert made.start_of(preferences.read(space, name)) is None
    spec = to_spec(made, made.take(name))
    assert (spec.start, spec.model.id) == ("", STARTER)
