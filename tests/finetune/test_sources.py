"""One call from the data part of a spec to conversations, and the split between what is learnt and what is held out."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import datasets
from assets.errors import UserError
from assets.files import Workspace
from assets.words import LANGUAGES, Words
from finetune import sources
from finetune.data import Example, Table
from finetune.sources import load, split, upload_path
from finetune.spec import DataSpec


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "작업 공간").prepare()


def refused(key: str, call: Any, *values: Any) -> None:
    with pytest.raises(UserError) as caught:
        call(*values)
    assert caught.value.key == key
    for language in LANGUAGES:
        assert Words(language).error(caught.value)


def example(number: int) -> Example:
    user = {"role": "user", "content": f"질문 {number}"}
    return Example(messages=(user, {"role": "assistant", "content": f"대답 {number}"}))  # type: ignore[arg-type]


def csv(space: Workspace, name: str, count: int = 40, text: str = "") -> Workspace:
    rows = "".join(f"질문 {n},대답 {n}\n" for n in range(count))
    (space.uploads / name).write_text(text or f"Q,A\n{rows}", encoding="utf-8")
    return space


@pytest.mark.parametrize(("name", "train", "heldout"), [("emotion", 240, 60), ("science", 120, 30)])
def test_builtin(space: Workspace, name: str, train: int, heldout: int) -> None:
    source = load(space, DataSpec(f"naranhi/{name}-ko"))
    assert len(source.train) >= train and len(source.heldout) >= heldout
    assert (source.domain, source.mapping, source.dropped) == (name, None, []) and len(source.sha256) == 64
    assert (
        load(space, DataSpec(f"naranhi/{name}-ko", heldout=0.5)) == source
    )  # built-in sets bring their own held-out part


def test_every_builtin_set_loads(space: Workspace) -> None:
    for card in datasets():
        if card.kind == "builtin":
            assert load(space, DataSpec(card.id)).train
    refused("data.unknown_builtin", load, space, DataSpec("naranhi/nothing"))
    refused("data.unknown_builtin", load, space, DataSpec("HuggingFaceH4/no_robots"))


def test_an_upload(space: Workspace) -> None:
    source = load(csv(space, "내 데이터.csv"), DataSpec("내 데이터.csv", "file"))
    assert (len(source.train), len(source.heldout), source.domain) == (36, 4, "general")
    assert source.mapping is not None and (source.mapping.shape, source.mapping.columns) == (
        "qa",
        {"question": "Q", "answer": "A"},
    )
    turned = load(space, DataSpec("내 데이터.csv", "file", shape="qa", columns={"question": "A", "answer": "Q"}))
    assert turned.train[0].messages[0]["content"].startswith("대답")
    assert turned.sha256 != source.sha256


def test_the_same_rows_from_another_format_are_the_same_data(space: Workspace) -> None:
    one = load(csv(space, "a.csv"), DataSpec("a.csv", "file"))
    lines = "".join(json.dumps({"Q": f"질문 {n}", "A": f"대답 {n}"}) + "\n" for n in range(40))
    (space.uploads / "a.jsonl").write_text(lines)
    other = load(space, DataSpec("a.jsonl", "file"))
    assert (other.sha256, other.train, other.heldout) == (one.sha256, one.train, one.heldout)


def test_data_of_which_nothing_is_left_is_refused_with_the_reason(space: Workspace) -> None:
    csv(space, "a.csv", text="Q,A\n" + "질문,\n" * 5)
    spec = DataSpec("a.csv", "file", shape="qa", columns={"question": "Q", "answer": "A"})
    refused("data.nothing_left.empty_assistant", load, space, spec)


def test_a_file_that_is_not_there(space: Workspace) -> None:
    refused("data.missing", load, space, DataSpec("gone.csv", "file"))


@pytest.mark.parametrize("name", ["../jobs/queue.lock", "..", ".", "a/../../x.csv", "../uploads-other/x.csv"])
def test_uploads_stay_inside(space: Workspace, name: str) -> None:
    refused("data.outside", upload_path, space, name)


def test_uploads_by_name_and_files_by_hand(space: Workspace, tmp_path: Path) -> None:
    assert upload_path(space, "한글 이름 (1).csv") == space.uploads / "한글 이름 (1).csv"
    assert upload_path(space, str(tmp_path / "mine.csv")) == tmp_path / "mine.csv"
    (space.uploads / "link.csv").symlink_to("/etc/passwd")
    refused("data.outside", upload_path, space, "link.csv")


def test_hub_data_comes_through_the_same_door(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def hub(*values: Any, **limits: int) -> Table:
        asked.append(values)
        return Table(
            ["prompt", "completion"], [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(20)], "utf-8", []
        )

    monkeypatch.setattr(sources.reading, "read_hub", hub)
    source = load(space, DataSpec("a/b", "hub", "test", "v1", heldout=0.2))
    assert asked == [("a/b", "test", "v1")] and (len(source.train), len(source.heldout)) == (16, 4)


def test_the_split_is_by_content_and_the_same_every_time() -> None:
    examples = [example(n) for n in range(100)]
    train, heldout = split(examples, 0.2)
    assert (len(train), len(heldout)) == (80, 20) and Counter(map(repr, train + heldout)) == Counter(
        map(repr, examples)
    )
    assert split(examples, 0.2) == (train, heldout)
    assert train == [e for e in examples if e not in heldout]  # the order of the file stays
    shuffled = examples[:]
    random.Random(0).shuffle(shuffled)
    again = split(shuffled, 0.2)
    assert sorted(map(repr, again[1])) == sorted(map(repr, heldout))
    fewer = split(examples, 0.1)[1]
    assert all(e in heldout for e in fewer)


def test_the_split_depends_on_no_hash_seed() -> None:
    assert [e.messages[0]["content"] for e in split([example(n) for n in range(10)], 0.3)[1]] == [
        "질문 2",
        "질문 6",
        "질문 7",
    ]


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(1, 0.1, 0), (1, 0.9, 0), (2, 0.01, 1), (2, 0.9, 1), (10, 0.0, 0), (10, 0.9, 9), (0, 0.1, 0)],
)
def test_both_sides_have_something_where_that_is_possible(count: int, share: float, held: int) -> None:
    train, heldout = split([example(n) for n in range(count)], share)
    assert len(heldout) == held and len(train) == count - held
