"""The form and the one place where it becomes a TrainSpec."""

from __future__ import annotations

import ast
import asyncio
import inspect
from dataclasses import fields
from typing import Any

import gradio as gr
import pytest

from assets.catalog import STARTER, models
from assets.errors import UserError
from assets.words import LANGUAGES, Words
from finetune import spec as specs
from finetune import tab_budget, tab_data, tab_form
from finetune.spec import HardwareSpec, LoraSpec, PreferenceSpec, ScheduleSpec, WatchSpec, recipes

PARTS = (PreferenceSpec, LoraSpec, ScheduleSpec, WatchSpec, HardwareSpec)


OBJECTIVE = {loss: objective for objective, losses in specs.LOSSES.items() for loss in losses if loss != "auto"}


@pytest.fixture(scope="module", params=LANGUAGES)
def form(request: pytest.FixtureRequest) -> tab_form.Form:
    async def build() -> tab_form.Form:
        with gr.Blocks():
            return tab_form.build(Words(request.param))

    return asyncio.run(build())  # without a running loop gradio makes some of its own and never closes them


def values(form: tab_form.Form, **changed: Any) -> dict[str, Any]:
    """What the page would send on a first visit."""
    return {name: component.value for name, component in form.inputs().items()} | changed


def refused(key: str, sent: dict[str, Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        tab_form.to_spec(sent)
    assert caught.value.key == key
    return caught.value


def test_every_component_of_the_form_is_read() -> None:
    read = {
        node.slice.value
        for function in (tab_form.to_spec, tab_data.data_of, tab_budget.parts_of)
        for node in ast.walk(ast.parse(inspect.getsource(function)))
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }
    read |= {field.name for part in PARTS for field in fields(part)}
    named = {field.name for field in fields(tab_form.Form)} - {"file", "preset"}  # shown only
    assert named - read == set()


def test_every_setting_is_in_the_form(form: tab_form.Form) -> None:
    wanted = {field.name for part in PARTS for field in fields(part)} | {"method", "heldout", "objective", "start"}
    grouped = [name for names in tab_form.GROUPS.values() for name in names]
    assert set(grouped) == wanted and len(grouped) == len(wanted)
    assert wanted <= set(form.inputs())


def test_names_of_settings_are_unique_across_parts() -> None:
    names = [field.name for part in PARTS for field in fields(part)]
    assert len(names) == len(set(names))


def test_choices_are_those_of_the_spec(form: tab_form.Form) -> None:
    for name, allowed in tab_form.CHOICES.items():
        for choice in allowed:
            tab_form.to_spec(
                values(form, **({"micro_batch": 2, "objective": OBJECTIVE.get(choice, "sft")} | {name: choice}))
            )
        refused("spec.choice", values(form, **{name: "something else"}))
    known = {
        "objective": specs.Objective,
        "loss": specs.Loss,
        "method": specs.Method,
        "scheduler": specs.Scheduler,
        "placement": specs.Placement,
        "precision": specs.Precision,
    }
    assert {name: list(specs.get_args(kind)) for name, kind in known.items()} == tab_form.CHOICES


def test_a_first_visit_is_a_run_ready_to_start(form: tab_form.Form) -> None:
    spec = tab_form.to_spec(values(form))
    assert (spec.model.id, spec.data.id, spec.data.kind) == (STARTER, "naranhi/emotion-ko", "builtin")
    assert spec.name == "SmolLM2-135M-Instruct · emotion-ko"
    assert tab_form.flat(spec) == tab_form.preset_values("quick")


@pytest.mark.parametrize("name", tab_form.PRESETS)
def test_a_preset_fills_every_setting_with_its_recipe(form: tab_form.Form, name: str) -> None:
    filled = tab_form.preset_values(name)
    assert set(filled) == {field for group in tab_form.GROUPS.values() for field in group}
    recipe = recipes()[name]
    for part in ("preference", "lora", "schedule", "watch", "hardware"):
        for field, value in recipe.get(part, {}).items():
            assert filled[field] == value, field
    spec = tab_form.to_spec(values(form, **filled))
    assert tab_form.flat(spec) == filled
    shown = {field: f"{value:g}" if field == "learning_rate" else value for field, value in filled.items()}
    assert tab_form.flat(tab_form.to_spec(values(form, **shown))) == filled


def test_presets_are_the_recipes_in_their_order() -> None:
    assert tuple(recipes()) == tab_form.PRESETS


def test_where_the_data_comes_from(form: tab_form.Form) -> None:
    def data(**changed: Any) -> specs.DataSpec:
        return tab_form.to_spec(values(form, **changed)).data

    assert data(source="science").id == "naranhi/science-ko"
    upload = {"source": "file", "upload": "내 파일.csv", "shape": "qa", "columns": "question=Q, answer = A "}
    mine = data(**upload, system="  친절하게  ", heldout=0.2)
    assert (mine.kind, mine.id, mine.shape, mine.columns) == (
        "file",
        "내 파일.csv",
        "qa",
        {"question": "Q", "answer": "A"},
    )
    assert (mine.system, mine.heldout) == ("친절하게", 0.2)
    assert data(**(upload | {"shape": None, "columns": ""})).shape is None
    assert (
        data(**(upload | {"source": "emotion"})).columns == {}
    )  # what was recognised in a file is not for built-in sets
    votes = data(source="preferences", pairs="공감-투표", shape="qa", columns="question=Q")
    assert (votes.kind, votes.id, votes.shape, votes.columns) == ("preferences", "공감-투표", None, {})
    refused("spec.no_data", values(form, source="preferences", pairs=None))
    hub = data(source="hub", hub_id=" a/b ", hub_split="")
    assert (hub.kind, hub.id, hub.split) == ("hub", "a/b", "train")
    refused("spec.no_data", values(form, source="file", upload=""))
    refused("spec.no_data", values(form, source="hub", hub_id=" "))


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"model": " "}, "spec.no_model"),
        ({"model": None}, "spec.no_model"),
        ({"learning_rate": "0"}, "spec.range"),
        ({"learning_rate": "nan"}, "spec.range"),
        ({"learning_rate": ""}, "spec.not_a_number"),
        ({"learning_rate": "빠르게"}, "spec.not_a_number"),
        ({"max_length": 1}, "spec.range"),
        ({"max_length": None}, "spec.not_a_number"),
        ({"rank": None}, "spec.not_a_number"),
        ({"steps": 0, "epochs": 0}, "spec.no_length"),
        ({"heldout": 1}, "spec.range"),
        ({"gpus": None}, "spec.not_text"),
    ],
)
def test_what_people_clear_or_mistype(form: tab_form.Form, changed: dict[str, Any], key: str) -> None:
    error = refused(key, values(form, **changed))
    assert all(Words(language).error(error) for language in LANGUAGES)


def test_a_name_of_ones_own(form: tab_form.Form) -> None:
    assert tab_form.to_spec(values(form, name=" 이름 ")).name == "이름"
    assert tab_form.to_spec(values(form, name="", model="/home/나/내 모델/")).name == "내 모델 · emotion-ko"


def test_columns_are_written_as_they_are_read() -> None:
    columns = {"question": "질문 (원문)", "answer": "A=B"}
    assert tab_data.read_columns(tab_data.write_columns(columns)) == columns
    assert tab_data.read_columns("") == {} == tab_data.read_columns("nonsense")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_model_has_a_note_and_a_choice(language: str) -> None:
    words = Words(language)
    assert [choice for _, choice in tab_form.model_choices(words)] == [card.id for card in models()]
    assert all("<p" in tab_form.model_note(card.id, words) for card in models())
    assert tab_form.model_note("some/other", words) == "" == tab_form.model_note("", words)


def test_a_time_limit_and_what_it_means(form: tab_form.Form) -> None:
    plain = tab_form.to_spec(values(form))
    assert plain.budget == specs.BudgetSpec() and plain.rescue == specs.RescueSpec()
    limited = tab_form.to_spec(values(form, limit="minutes", minutes=45, smaller=True, tries=2))
    assert limited.budget == specs.BudgetSpec(minutes=45) and limited.rescue == specs.RescueSpec(True, 2)
    assert tab_form.to_spec(values(form, limit="until", until=" 7:00 ", zone=540)).budget.until == "07:00+09:00"
    assert tab_form.to_spec(values(form, limit="until", until="07:00", zone=-210)).budget.until == "07:00-03:30"
    assert tab_form.to_spec(values(form, limit="until", until="07:00")).budget.until == "07:00"
    assert tab_form.to_spec(values(form, limit="none", until="nonsense", minutes=None)) == plain
    refused("spec.until", values(form, limit="until", until="아침"))
    refused("train.limit.no_minutes", values(form, limit="minutes", minutes=None))
