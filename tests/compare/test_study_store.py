from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from compare.study_items import needed
from compare.study_store import Studies
from tests.compare.studies import answer, opened, study


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies(Workspace(tmp_path))


def test_created_read_and_listed(studies: Studies) -> None:
    first = studies.create(study(created_at="2026-01-01T00:00:00.000Z"))
    second = studies.create(study(created_at="2026-02-01T00:00:00.000Z"))
    assert studies.get(first.id) == first
    assert [s.id for s in studies.list()] == [second.id, first.id]
    assert studies.get(first.id) is studies.get(first.id)
    with pytest.raises(UserError, match=r"study\.exists"):
        studies.create(first)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "nothing-here"])
def test_unknown_ids(studies: Studies, name: str) -> None:
    with pytest.raises(UserError, match=r"study\.unknown"):
        studies.get(name)


def test_a_broken_study_is_named_and_the_others_stay(studies: Studies) -> None:
    good = studies.create(study())
    for name, data in (("broken", b"id: ["), ("other-id", good.to_yaml().encode()), ("bytes", b"\xff\xfe")):
        (studies.root / name).mkdir()
        (studies.root / name / "study.yaml").write_bytes(data)
    assert [s.id for s in studies.list()] == [good.id]
    assert [(name, error.key) for name, error in studies.broken()] == [
        (name, "study.unreadable") for name in ("broken", "bytes", "other-id")
    ]


def test_a_draft_can_change_and_a_later_study_hardly(studies: Studies) -> None:
    made = studies.create(study())
    assert studies.save(replace(made, target=50, seed=9)).target == 50
    studies.set_state(made.id, "generating")
    kept = studies.save(replace(made, target=60, seed=9, title="제목", consent="동의", reveal="never"))
    assert (kept.state, kept.target, kept.title, kept.reveal) == ("generating", 60, "제목", "never")
    for change in (
        {"seed": 1},
        {"target": 10},
        {"reveal": "after_list"},
        {"rubric": "x"},
        {"prompts": made.prompts[:5]},
    ):
        with pytest.raises(UserError, match=r"study\.frozen"):
            studies.save(replace(kept, **change))
    assert Studies(Workspace(studies.root.parent)).get(made.id) == kept


def test_it_opens_once_every_answer_is_there(studies: Studies) -> None:
    made = studies.create(study())
    tasks = needed(made)
    for task in tasks[:-1]:
        studies.items(made.id).append(answer(made, task))
    with pytest.raises(UserError, match=r"study\.not_generated.*1"):
        studies.set_state(made.id, "open")
    studies.items(made.id).append(answer(made, tasks[-1]))
    assert studies.set_state(made.id, "open").state == "open"
    assert studies.set_state(made.id, "closed").state == "closed"
    assert studies.set_state(made.id, "open").state == "open"
    for state in ("draft", "generating", "x"):
        with pytest.raises(UserError, match=r"study\.no_such_step"):
            studies.set_state(made.id, state)


def test_looks_are_kept(tmp_path: Path) -> None:
    studies, made = opened(tmp_path)
    studies.look(made.id, 12)
    studies.look(made.id, 40)
    assert [(row["votes"], row["target"]) for row in studies.looks(made.id)] == [(12, 200), (40, 200)]


def test_another_process_sees_a_change(tmp_path: Path) -> None:
    studies, made = opened(tmp_path)
    other = Studies(Workspace(tmp_path))
    assert other.get(made.id).state == "open"
    studies.set_state(made.id, "closed")
    assert other.get(made.id).state == "closed"
