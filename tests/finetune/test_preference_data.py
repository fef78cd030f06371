"""Preference data: tokens equal to those of plain fine-tuning in every template, and what must not be trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.chat import ChatFormat
from assets.errors import UserError
from assets.files import Workspace
from assets.split import is_heldout
from assets.words import LANGUAGES, Words
from finetune import data as reading
from finetune import preference_data, sources, train
from finetune.data import Example
from finetune.spec import DataSpec, ModelSpec, PreferenceSpec, ScheduleSpec, TrainSpec
from tests.assets.templates import KINDS, make, template
from tests.finetune.preference_rows import HELD, KEPT, example, judged, pair, said, store, upload

DPO = TrainSpec(
    ModelSpec("m"), DataSpec("votes", "preferences"), objective="dpo", schedule=ScheduleSpec(max_length=256)
)
KTO = replace(DPO, objective="kto", schedule=ScheduleSpec(max_length=256, micro_batch=2))
ODD = (
    Example(
        tuple(said("왜요 <|im_end|> 🧑‍🚀?", "user")), tuple(said("그냥요.\n네")), tuple(said("<end_of_turn> 몰라"))
    ),
    Example(
        (*said("짧게", "system"), *said("처음", "user"), *said("네"), *said("다음 뷁", "user")),
        tuple(said("좋은 답이에요 👍")),
        tuple(said("흥")),
    ),
)


class Notes:
    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.facts: dict[str, Any] = {}

    def write(self, event: str, **values: Any) -> None:
        self.facts |= values

    def note(self, key: str, **values: Any) -> None:
        self.notes.append((key, values))


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").prepare()


def chat(tmp_path: Path, kind: str = "chatml") -> ChatFormat:
    return ChatFormat.from_folder(make(tmp_path / kind, kind, template(kind)))


def refused(key: str, call: Any, *values: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        call(*values)
    assert caught.value.key == key
    for language in LANGUAGES:
        assert Words(language).error(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", ["", "친절하게 답해 주세요."])
def test_a_pair_has_the_tokens_of_plain_fine_tuning(kind: str, system: str, tmp_path: Path) -> None:
    """Prompt as it is generated from, answer as it is learnt: each side put together is the SFT sequence up to its end
    of turn, and what counts is what SFT learns of the last answer."""
    format_ = chat(tmp_path, kind)
    spec = replace(DPO, data=replace(DPO.data, system=system))
    examples = [*ODD, *(example(q, n) for n, q in enumerate(KEPT[:5]))]
    encoded = preference_data.encode(examples, format_, spec)
    assert not encoded.left_out and len(encoded.rows) == len(examples)
    for row, each in zip(encoded.rows, examples, strict=True):
        assert row["prompt_ids"] == format_.encode_prompt(each.messages, system or None)
        for side, answer in (("chosen_ids", each.chosen), ("rejected_ids", each.rejected)):
            plain = replace(spec, objective="sft")
            (learnt,) = train.encode([Example((*each.messages, *answer))], format_, plain)
            ids = row["prompt_ids"] + row[side]
            assert learnt["input_ids"][: len(ids)] == ids and ids[-1] in format_.stop_ids
            start = len(row["prompt_ids"])
            assert learnt["labels"][start : len(ids)] == row[side]
            assert all(label == -100 for label in learnt["labels"][len(ids) :])


def test_judged_answers_and_pairs_taken_apart(tmp_path: Path) -> None:
    format_ = chat(tmp_path)
    rows = preference_data.encode([example(KEPT[0])], format_, KTO).rows
    paired = preference_data.encode([example(KEPT[0])], format_, DPO).rows[0]
    assert [row["label"] for row in rows] == [True, False]
    assert [row["completion_ids"] for row in rows] == [paired["chosen_ids"], paired["rejected_ids"]]
    assert all(row["prompt_ids"] == paired["prompt_ids"] for row in rows)
    assert sum(map(preference_data.length, rows)) == preference_data.length(paired)
    alone = Example(tuple(said(KEPT[1], "user")), rejected=tuple(said("별로")))
    assert [row["label"] for row in preference_data.encode([alone], format_, KTO).rows] == [False]


def test_kto_rows_are_shuffled_by_the_seed_and_fill_whole_batches(tmp_path: Path) -> None:
    rows = [{"prompt_ids": [n], "completion_ids": [n], "label": True} for n in range(11)]
    mixed = preference_data.ready(rows, KTO)
    assert len(mixed) == 10 and mixed != rows[:10] and mixed == preference_data.ready(rows, KTO)
    other = replace(KTO, schedule=replace(KTO.schedule, seed=7))
    assert preference_data.ready(rows, other) != mixed and preference_data.ready(rows, DPO) == rows


def test_what_does_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    format_ = chat(tmp_path)
    long = Example(tuple(said("길게 " * 200, "user")), tuple(said("좋아")), tuple(said("싫어")))
    same = Example(
        tuple(said("네?", "user")), tuple(said("똑같은 긴 답 " * 60 + "하나")), tuple(said("똑같은 긴 답 " * 60 + "둘"))
    )
    turns = Example(tuple(said("네?", "user")), (*said("하나"), *said("응", "user"), *said("둘")), tuple(said("싫어")))
    encoded = preference_data.encode([long, same, turns, example(KEPT[0])], format_, DPO)
    assert encoded.left_out == {"long_prompt": 1, "equal": 1, "several_turns": 1} and len(encoded.rows) == 1
    notes = Notes()
    source = sources.Source([long, same, turns, example(KEPT[0])], [], "")
    assert len(preference_data.encode_all(DPO, source, format_, notes)["train"]) == 1
    assert len(notes.notes) == 3 and notes.facts["rows"] == 1
    assert all(Words(language)(key, **values) for language in LANGUAGES for key, values in notes.notes)
    short = replace(DPO, preference=PreferenceSpec(max_prompt=4))
    assert preference_data.encode([example(KEPT[0])], format_, short).left_out == {"long_prompt": 1}
    refused("train.all_masked", preference_data.encode_all, short, source, format_, Notes())
    assert preference_data.shown(format_, turns.messages, turns.chosen, DPO) == []


def test_a_cut_answer_ends_where_plain_fine_tuning_cuts_it(tmp_path: Path) -> None:
    format_ = chat(tmp_path)
    each = Example(tuple(said("네?", "user")), tuple(said("긴 답 " * 100)), tuple(said("싫어")))
    (row,) = preference_data.encode([each], format_, DPO).rows
    assert len(row["prompt_ids"]) + len(row["chosen_ids"]) == DPO.schedule.max_length


@pytest.mark.parametrize(
    ("spec", "examples", "key"),
    [
        (DPO, [Example((*said("네?", "user"), *said("네")))], "preference.no_pairs"),
        (KTO, [Example((*said("네?", "user"), *said("네")))], "preference.no_pairs"),
        (DPO, [Example(text="글")], "preference.no_pairs"),
        (DPO, [example(KEPT[0]), Example(tuple(said("네?", "user")), tuple(said("네")))], "preference.unpaired"),
        (KTO, [Example(tuple(said("네?", "user")), tuple(said("네")))], "preference.one_label"),
        (KTO, [Example(tuple(said("네?", "user")), rejected=tuple(said("네")))], "preference.one_label"),
    ],
)
def test_data_that_an_objective_cannot_learn_from(spec: TrainSpec, examples: list[Example], key: str) -> None:
    refused(key, preference_data.check, spec, examples)
    preference_data.check(replace(spec, objective="sft"), examples)


def test_pairs_of_one_prompt_stay_on_one_side() -> None:
    examples = [example(q, n) for n in range(3) for q in KEPT]
    train_, heldout = preference_data.split(examples, 0.2, voted=True)
    assert {e.messages[0]["content"] for e in train_}.isdisjoint({e.messages[0]["content"] for e in heldout})
    assert len(train_) + len(heldout) == len(examples) and 0 < len(heldout) < len(train_)
    assert preference_data.split(examples, 0.0, voted=True) == (examples, [])
    two = [example(KEPT[0]), example(KEPT[1])]
    assert [len(side) for side in preference_data.split(two, 0.01, voted=True)] == [1, 1]
    assert [len(side) for side in preference_data.split(two, 0.9, voted=True)] == [1, 1]
    assert preference_data.split(two[:1], 0.5, voted=True) == (two[:1], [])


def test_a_held_out_prompt_is_never_trained(space: Workspace) -> None:
    """Refused in a file made of votes, evaluated on in any other."""
    error = refused("preference.heldout", preference_data.split, [example(KEPT[0]), example(HELD[0])], 0.1, True)
    assert error.values == {"count": 1}
    name = store(space, [pair(KEPT[0]), pair(HELD[0])])
    refused("preference.heldout", sources.load, space, DataSpec(name, "preferences"))
    file = upload(space, [pair(q, n) for n, q in enumerate([*KEPT, *HELD])])
    source = sources.load(space, DataSpec(file, "file", heldout=0.0))
    assert len(source.heldout) == len(HELD) and not any(is_heldout(e.messages) for e in source.train)
    held = upload(space, [pair(HELD[0])], "held.jsonl")
    refused("preference.all_heldout", sources.load, space, DataSpec(held, "file"))


def test_a_file_of_votes_is_read_whichever_kind(space: Workspace) -> None:
    paired = sources.load(space, DataSpec(store(space, [pair(q) for q in KEPT[:8]]), "preferences", heldout=0.0))
    assert paired.mapping is not None and paired.mapping.shape == "preference" and len(paired.train) == 8
    rows = [judged(q, n, n % 2 == 0) for n, q in enumerate(KEPT[:8])]
    alone = sources.load(space, DataSpec(store(space, rows, "kto"), "preferences", heldout=0.0))
    assert alone.mapping is not None and alone.mapping.shape == "unpaired"
    assert [e.label for e in alone.train] == [True, False] * 4
    refused("preference.unknown", sources.load, space, DataSpec("nothing", "preferences"))


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"prompt": "네?", "completion": "네", "label": True}, "unpaired"),
        ({"prompt": "네?", "completion": "네", "label": "False"}, "unpaired"),
        ({"prompt": "네?", "completion": "네", "label": 0}, "unpaired"),
        ({"prompt": "네?", "completion": "네", "label": 2}, "prompt_completion"),
        ({"prompt": "네?", "completion": "네", "label": "기쁨"}, "prompt_completion"),
        ({"Q": "네?", "A": "네", "label": 1}, "qa"),
    ],
)
def test_a_judgement_is_yes_or_no(row: dict[str, Any], shape: str, space: Workspace) -> None:
    table = reading.read_file(space.uploads / upload(space, [row]))
    assert reading.guess(table).shape == shape


def test_rows_without_a_judgement_are_dropped(space: Workspace) -> None:
    rows = [judged(KEPT[0], 0, True), {**judged(KEPT[1], 1, True), "label": None}, judged(KEPT[2], 2, False)]
    table = reading.read_file(space.uploads / upload(space, rows))
    converted = reading.convert(table, reading.guess(table))
    assert [drop.key for drop in converted.dropped] == ["data.drop.no_label"] and len(converted.examples) == 2
    assert json.loads(json.dumps([e.label for e in converted.examples])) == [True, False]


def test_plain_fine_tuning_learns_the_better_answer_of_preference_data(tmp_path: Path) -> None:
    format_ = chat(tmp_path)
    alone = [
        Example(tuple(said("네?", "user")), tuple(said("네"))),
        Example(tuple(said("네?", "user")), (), tuple(said("왜"))),
    ]
    rows = train.encode([example(KEPT[0]), *alone], format_, replace(DPO, objective="sft"))
    texts = [format_.tokenizer.decode([i for i in row["labels"] if i != -100]) for row in rows]
    assert [text.split("<|im_end|>")[0] for text in texts] == ["좋은 답 0 이에요", "네"]
