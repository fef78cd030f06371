"""TrainSpec: what must hold, and the YAML that people edit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from finetune.spec import (
    RECIPES,
    DataSpec,
    HardwareSpec,
    LoraSpec,
    ModelSpec,
    PreferenceSpec,
    ScheduleSpec,
    TrainSpec,
    WatchSpec,
    from_dict,
    from_yaml,
    recipes,
    renamed,
    with_recipe,
)

MODEL, DATA = ModelSpec("some/model"), DataSpec("naranhi/emotion-ko")
SPEC = TrainSpec(MODEL, DATA)
FULL = TrainSpec(
    ModelSpec("./내 모델", "abc123", "{{ messages }}\n{% if x %}'따옴표'{% endif %}\n"),
    DataSpec(
        "a b.csv", "file", "dev", "r", "qa", {"question": "Q: 질문", "answer": "A"}, 0.25, "친절하게: '답' # 해요\n네"
    ),
    "이름 🧑‍🚀: #1",
    "lora",
    LoraSpec(8, 8, 0.05, "q_proj,v_proj", True),
    ScheduleSpec(0, 2.5, 4, 2, 1e-05, "linear", 0.1, 0.01, 1.0, 777, False, False, 0),
    WatchSpec(5, 10, 0, 1, 1),
    HardwareSpec("fsdp", "0,1", "float16", True),
    objective="dpo",
    start="jobs/x/adapter",
    preference=PreferenceSpec(0.2, "robust", 0.2, 0.5, 2.0, 3.0, 256),
)


def refused(key: str, call: Any, *values: Any, **named: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*values, **named)
    assert caught.value.key == key
    for language in LANGUAGES:
        assert Words(language).error(caught.value)
    return caught.value


@pytest.mark.parametrize("spec", [SPEC, FULL])
def test_yaml_and_dict_give_the_same_spec(spec: TrainSpec) -> None:
    assert from_yaml(spec.to_yaml()) == spec
    assert from_dict(spec.to_dict()) == spec
    assert from_yaml(from_yaml(spec.to_yaml()).to_yaml()) == spec


def test_the_yaml_reads_as_written_by_hand() -> None:
    text = FULL.to_yaml()
    assert text.startswith("model:\n  id: ./내 모델\n") and "version: 1" in text and "!!" not in text
    short = "model: {id: m}\ndata: {id: d}\nhardware: {gpus: 0}\n"
    short += "schedule: {learning_rate: 1e-3, epochs: 2, max_length: '512'}"
    spec = from_yaml(short)
    assert (spec.schedule.learning_rate, spec.schedule.epochs, spec.schedule.max_length) == (0.001, 2.0, 512)
    assert spec.hardware.gpus == "0" and isinstance(spec.schedule.epochs, float)
    assert from_yaml("model: {id: 7, revision: 1.5}\ndata: {id: d}\nname: 2024").name == "2024"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.floats(1e-8, 0.1), st.integers(1, 1024))
@example("a\u2028b", "x\x85", 1e-05, 1)
def test_any_text_and_number_survives_yaml(name: str, system: str, rate: float, rank: int) -> None:
    schedule, lora = ScheduleSpec(learning_rate=rate), LoraSpec(rank=rank)
    spec = replace(SPEC, name=name, data=replace(DATA, system=system), schedule=schedule, lora=lora)
    assert from_yaml(spec.to_yaml()) == spec


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("schedule", "learning_rate", 0.0),
        ("schedule", "learning_rate", -1e-4),
        ("schedule", "learning_rate", math.nan),
        ("schedule", "learning_rate", math.inf),
        ("schedule", "max_length", 1),
        ("schedule", "max_length", 0),
        ("schedule", "steps", -1),
        ("schedule", "micro_batch", 0),
        ("schedule", "accumulation", 0),
        ("schedule", "warmup", 1.0),
        ("schedule", "weight_decay", -1),
        ("schedule", "max_grad_norm", 0),
        ("schedule", "seed", -1),
        ("schedule", "epochs", math.nan),
        ("lora", "rank", 0),
        ("lora", "rank", 100_000),
        ("lora", "alpha", 0),
        ("lora", "dropout", 1.0),
        ("data", "heldout", 1.0),
        ("watch", "examples", 0),
        ("watch", "samples", -1),
        ("watch", "keep", 0),
        ("watch", "sample_tokens", 0),
        ("watch", "every", -1),
        ("preference", "beta", 0.0),
        ("preference", "beta", math.inf),
        ("preference", "noise", 0.5),
        ("preference", "sft_weight", -1),
        ("preference", "desirable_weight", 0),
        ("preference", "undesirable_weight", 0),
        ("preference", "max_prompt", -1),
    ],
)
def test_ranges(part: str, field: str, value: float) -> None:
    error = refused("spec.range", replace, SPEC, **{part: replace(getattr(SPEC, part), **{field: value})})
    assert error.values["field"] == field
    if not math.isnan(value):
        values = SPEC.to_dict()
        values[part][field] = value
        with pytest.raises(UserError):
            from_yaml(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("text", "key", "field"),
    [
        ("schedule: {learning_rate: fast}", "spec.not_a_number", "schedule.learning_rate"),
        ("schedule: {learning_rate: .nan}", "spec.range", "learning_rate"),
        ("schedule: {learning_rate: .inf}", "spec.range", "learning_rate"),
        ("schedule: {learning_rate: }", "spec.not_a_number", "schedule.learning_rate"),
        ("schedule: {max_length: 12.5}", "spec.not_a_number", "schedule.max_length"),
        ("schedule: {max_length: .inf}", "spec.not_a_number", "schedule.max_length"),
        ("schedule: {max_length: [1]}", "spec.not_a_number", "schedule.max_length"),
        ("schedule: {packing: 'no!'}", "spec.choice", "schedule.packing"),
        ("schedule: {scheduler: sawtooth}", "spec.choice", "scheduler"),
        ("schedule: {scheduler: [cosine]}", "spec.choice", "scheduler"),
        ("schedule: fast", "spec.not_entries", "schedule"),
        ("lora: ", "spec.not_entries", "lora"),
        ("schedule: {lerning_rate: 1}", "spec.unknown_field", "schedule.lerning_rate"),
        ("token: hf_x", "spec.unknown_field", "token"),
        ("method: whole", "spec.choice", "method"),
        ("hardware: {placement: tpu}", "spec.choice", "placement"),
        ("hardware: {precision: int8}", "spec.choice", "precision"),
        ("hardware: {gpus: [0, 1]}", "spec.not_text", "hardware.gpus"),
        ("name: [a]", "spec.not_text", "name"),
        ("name: true", "spec.not_text", "name"),
        ("lora: {targets: 5.5.5}\nwatch: {keep: none}", "spec.not_a_number", "watch.keep"),
    ],
)
def test_what_people_mistype(text: str, key: str, field: str) -> None:
    error = refused(key, from_yaml, f"model: {{id: m}}\ndata: {{id: d}}\n{text}")
    assert error.values["field"] == field


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "spec.yaml"),
        ("[1, 2]", "spec.yaml"),
        ("just text", "spec.yaml"),
        ("a: [", "spec.yaml"),
        ("a: \x00", "spec.yaml"),
        ("!!python/object/apply:os.system ['true']", "spec.yaml"),
        ("data: {id: d}", "spec.no_model"),
        ("model: m\ndata: {id: d}", "spec.no_model"),
        ("model: {id: m}", "spec.no_data"),
        ("model: {id: ' '}\ndata: {id: d}", "spec.no_model"),
        ("model: {id: m}\ndata: {id: ''}", "spec.no_data"),
        ("model: {id: }\ndata: {id: d}", "spec.not_text"),
        ("model: {id: m, token: x}\ndata: {id: d}", "spec.unknown_field"),
        ("model: {id: m}\ndata: {id: d, kind: ftp}", "spec.choice"),
        ("model: {id: m}\ndata: {id: d, columns: [a]}", "spec.not_entries"),
        ("model: {id: m}\ndata: {id: d}\nschedule: {epochs: 0}", "spec.no_length"),
        ("model: {id: m}\ndata: {id: d}\n1: 2", "spec.unknown_field"),
    ],
)
def test_what_is_no_spec(text: str, key: str) -> None:
    refused(key, from_yaml, text)


def test_a_missing_id_says_so() -> None:
    for values in ({"revision": "x"}, {}):
        refused("spec.no_model", from_dict, {"model": values, "data": {"id": "d"}})
        refused("spec.no_data", from_dict, {"model": {"id": "m"}, "data": values})


def test_older_versions_are_read_and_newer_ones_refused() -> None:
    values = FULL.to_dict()
    del values["version"], values["watch"], values["schedule"]["packing"]
    del values["objective"], values["start"], values["preference"]
    spec = from_dict(values)
    assert (spec.version, spec.watch, spec.schedule.packing) == (1, WatchSpec(), False)
    assert (spec.objective, spec.start, spec.preference) == ("sft", "", PreferenceSpec())
    for version in (2, 0, "1", None, 1.5):
        refused("spec.version", from_dict, values | {"version": version})


def test_steps_or_epochs() -> None:
    assert replace(SPEC, schedule=ScheduleSpec(steps=3, epochs=0)).schedule.steps == 3
    refused("spec.no_length", replace, SPEC, schedule=ScheduleSpec(steps=0, epochs=0))
    assert (
        TrainSpec(MODEL, DATA, schedule=ScheduleSpec(micro_batch=2, accumulation=3, max_length=100)).tokens_per_step
        == 600
    )


def test_a_spec_is_not_changed_in_place() -> None:
    assert renamed(SPEC, "새 이름").name == "새 이름" and SPEC.name == ""


def test_recipes() -> None:
    found = recipes()
    assert list(found) == ["quick", "balanced", "high_rank", "preference", "large"] and {
        f.stem for f in RECIPES.glob("*")
    } == set(found)
    for name in found:
        spec = with_recipe(name, MODEL, DATA)
        assert from_yaml(spec.to_yaml()) == spec and spec.model == MODEL and spec.data == DATA
    assert with_recipe("high_rank", MODEL, DATA).lora.rank == 64
    assert with_recipe("quick", MODEL, FULL.data).data == FULL.data


@pytest.mark.parametrize("name", ["quick", "balanced", "high_rank", "preference", "large"])
def test_a_recipe_with_a_model_and_data_is_a_spec(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ") and "python -m finetune.train" in text
    values = yaml.safe_load(text)
    assert values.pop("order") in (1, 2, 3, 4, 5)
    from_dict({**values, "model": {"id": "m"}, "data": {"id": "d"}})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("objective: dpo\nschedule: {packing: true}", "spec.preference_packing"),
        ("objective: dpo\npreference: {loss: kto}", "spec.preference_loss"),
        ("objective: kto\nschedule: {micro_batch: 2}\npreference: {loss: sigmoid}", "spec.preference_loss"),
        ("objective: kto\nschedule: {micro_batch: 1}", "spec.kto_batch"),
        ("objective: orpo", "spec.choice"),
        ("preference: {loss: orpo}", "spec.choice"),
        ("preference: {beta: strong}", "spec.not_a_number"),
        ("start: true", "spec.not_text"),
    ],
)
def test_what_cannot_be_combined_with_preferences(text: str, key: str) -> None:
    refused(key, from_yaml, f"model: {{id: m}}\ndata: {{id: d, kind: preferences}}\n{text}")


def test_the_loss_of_an_objective() -> None:
    assert SPEC.loss == "nll" and replace(SPEC, objective="dpo").loss == "sigmoid"
    judged = replace(SPEC, objective="kto", schedule=ScheduleSpec(micro_batch=2))
    assert judged.loss == "kto"
    alone = PreferenceSpec(loss="apo_zero_unpaired")  # needs no other answers beside
    assert replace(SPEC, objective="kto", preference=alone).loss == "apo_zero_unpaired"
