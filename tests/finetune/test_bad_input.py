"""Six things that people hand to a run and that would waste it: each is refused in a sentence before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import STARTER, find_model
from assets.errors import UserError
from assets.files import Workspace, write_json
from assets.words import LANGUAGES, Words
from finetune import methods, outcome, preference_data, preview, sources
from finetune import start as starting
from finetune.memory import Shape
from finetune.readings import Counts, Reading
from finetune.spec import DataSpec, LoraSpec, ModelSpec, TrainSpec, WatchSpec

MODEL = ModelSpec(STARTER)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").prepare()


def refused(key: str, call: Callable[..., Any], *values: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*values)
    assert caught.value.key == key
    for language in LANGUAGES:
        sentence = Words(language).error(caught.value)
        assert "{" not in sentence and sentence.endswith((".", "요."))
    return caught.value


def upload(space: Workspace, name: str, rows: list[dict[str, Any]]) -> DataSpec:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (space.uploads / name).write_text(text, encoding="utf-8")
    return DataSpec(name, "file", heldout=0.2)


def shape() -> Shape:
    card = find_model(STARTER)
    assert card is not None
    return Shape.of(card.shape, card.model_type)


def test_unpaired_data_to_dpo(space: Workspace) -> None:
    alone = [{"prompt": f"질문 {n}", "completion": f"대답 {n}", "label": n % 2 == 0} for n in range(10)]
    data = upload(space, "kto.jsonl", alone)
    source = sources.load(space, data)
    spec = TrainSpec(MODEL, data, objective="dpo")
    error = refused("preference.unpaired", preference_data.check, spec, [*source.train, *source.heldout])
    assert error.values["count"] == 10
    reading = Reading(source, None, Counts([[True]], 1.0))  # type: ignore[arg-type]
    refused("preference.unpaired", preview.check, reading, spec)


def test_plain_conversations_to_dpo(space: Workspace) -> None:
    data = upload(space, "qa.jsonl", [{"question": f"질문 {n}", "answer": f"대답 {n}"} for n in range(10)])
    source = sources.load(space, data)
    refused("preference.no_pairs", preference_data.check, TrainSpec(MODEL, data, objective="dpo"), source.train)


def test_a_rank_larger_than_the_matrix() -> None:
    spec = TrainSpec(MODEL, DataSpec("d"), lora=LoraSpec(rank=256, alpha=512))
    assert refused("train.rank_too_large", methods.check, spec, shape()).values["limit"] == 192


@pytest.mark.parametrize("targets", ["query", "q_proj,nothing", "", " , "])
def test_targets_that_match_nothing(targets: str) -> None:
    refused(
        "methods.no_targets", methods.check, TrainSpec(MODEL, DataSpec("d"), lora=LoraSpec(targets=targets)), shape()
    )


def test_an_evaluation_set_that_is_the_training_set(space: Workspace) -> None:
    same = upload(space, "same.jsonl", [{"question": "같은 질문" + " ?" * n, "answer": "같은 대답"} for n in range(12)])
    refused("train.heldout_is_train", sources.load, space, same)
    one = upload(space, "one.jsonl", [{"question": "같은 질문", "answer": "같은 대답"}] * 12)
    assert sources.load(space, one).heldout == []  # equal rows are one, and one is trained


def test_a_part_of_it_in_the_training_set_is_told(space: Workspace) -> None:
    asked = [(n, mark) for n in range(20) for mark in ("", "!")[: 2 if n < 10 else 1]]
    rows = [{"question": f"질문 {n}{mark}", "answer": f"대답 {n}"} for n, mark in asked]
    source = sources.load(space, upload(space, "twice.jsonl", rows))
    notes = {note.key: note.values for note in source.notes}
    values = notes["train.heldout_overlaps"]
    assert 0 < values["count"] < values["total"] == len(source.heldout)
    assert "{" not in Words("ko")("train.heldout_overlaps", **values)


def test_the_best_moment_without_anything_to_tell_it_by(space: Workspace) -> None:
    data = upload(space, "qa.jsonl", [{"question": f"질문 {n}", "answer": f"대답 {n}"} for n in range(10)])
    source = sources.load(space, DataSpec(data.id, "file", heldout=0.0))
    reading = Reading(source, None, Counts([[True]], 1.0))  # type: ignore[arg-type]
    spec = TrainSpec(MODEL, data, watch=WatchSpec(best=True))
    refused("train.best_needs_heldout", preview.check_heldout, reading, spec)
    preview.check_heldout(reading, TrainSpec(MODEL, data))


def test_an_adapter_of_another_rank_to_go_on_from(space: Workspace) -> None:
    folder = space.jobs / "parent" / "adapter"
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": STARTER})
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    spec = TrainSpec(MODEL, DataSpec("d"), start="jobs/parent/adapter", lora=LoraSpec(16, 16))
    error = refused("start.shape_differs", starting.check, space, spec)
    assert (error.values["what"], error.values["have"], error.values["want"]) == ("rank", 8, 16)


def test_a_merge_without_room_on_the_disk(tmp_path: Path) -> None:
    refused("merge.disk", outcome.check_room, tmp_path / "job" / "merged", 10**18, "merge.disk")
    outcome.check_room(tmp_path / "job" / "merged", 1, "merge.disk")
