from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare.export import export_csv, export_spreadsheet, guarded
from compare.export_pairs import export_arena, export_judged, export_preferences
from compare.ratings import Rating, RatingsFile

TURNS = [{"role": "system", "content": "친절하게"}, {"role": "user", "content": "안녕"}]


def vote(rating_id: str, **values: Any) -> Rating:
    known: dict[str, Any] = {
        "model_a": "base",
        "model_b": "tuned",
        "left_is": "model_a",
        "winner": "model_b",
        "blind": True,
        "conversation": TURNS,
        "response_a": "가",
        "response_b": "나",
    }
    return Rating(rating_id=rating_id, **(known | values))


@pytest.fixture
def file(tmp_path: Path) -> RatingsFile:
    return RatingsFile(tmp_path / "ratings.csv")


def test_the_exact_file(file: RatingsFile, tmp_path: Path) -> None:
    file.append(vote("1", response_a="=1+1\n\ud800"))
    file.undo("1", "")
    found = export_csv(file.path, tmp_path / "out" / "exact.csv")
    assert found.path.read_bytes() == file.path.read_bytes()
    assert found.rows == 2


def test_the_spreadsheet_file_has_a_bom_and_no_formulas(file: RatingsFile, tmp_path: Path) -> None:
    file.append(vote("1", response_a="=cmd|'/C calc'!A0", response_b="- 첫째\n- 둘째", comment="보통, 글", seed=-1))
    before = file.path.read_bytes()
    with file.path.open("ab") as handle:
        handle.write(b'"1","torn')
    found = export_spreadsheet(file.path, tmp_path / "excel.csv")
    assert (found.rows, found.left_out) == (1, {"unreadable": 1})
    assert found.path.read_bytes().startswith(b"\xef\xbb\xbf")
    with found.path.open(encoding="utf-8-sig", newline="") as handle:
        [row] = csv.DictReader(handle)
    assert row["response_a"] == "'=cmd|'/C calc'!A0"
    assert row["response_b"] == "'- 첫째\n- 둘째"
    assert (row["comment"], row["seed"]) == ("보통, 글", "'-1")
    assert file.path.read_bytes().startswith(before)


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "\0", " =", "\ufeff=", "\u3000@"]
)
def test_every_way_to_begin_a_formula(start: str) -> None:
    assert guarded(start + "1") == "'" + start + "1"


@pytest.mark.parametrize("cell", ["", "안녕,-반가", "a=b", "'=1", '{"a":-1}', "1-2", " 안녕"])
def test_other_cells_stay_as_they_are(cell: str) -> None:
    assert guarded(cell) == cell


def test_preferences_as_trl_reads_them(tmp_path: Path) -> None:
    parted = {"model_a": TURNS, "model_b": [*TURNS, {"role": "assistant", "content": "x"}]}
    votes = [
        vote("1"),
        vote("2", winner="model_a", response_a="\ud800 줄\n바꿈"),
        vote("3", winner="tie"),
        vote("4", winner="both_bad"),
        vote("5", kind="practice"),
        vote("6", kind="aa"),
        vote("7", blind=False),
        vote("8", response_b="가"),
        vote("9", response_b=" "),
        vote("10", conversation=parted),
        vote("11", conversation=[]),
        vote("12", kind="repeat"),
        vote("13", model_b="base"),
    ]
    found = export_preferences(votes, tmp_path / "pairs.jsonl")
    lines = [json.loads(line) for line in found.path.read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {
            "prompt": TURNS,
            "chosen": [{"role": "assistant", "content": "나"}],
            "rejected": [{"role": "assistant", "content": "가"}],
        },
        {
            "prompt": TURNS,
            "chosen": [{"role": "assistant", "content": "\ud800 줄\n바꿈"}],
            "rejected": [{"role": "assistant", "content": "나"}],
        },
    ]
    assert found.rows == 2
    assert found.left_out == {
        "tie": 1, "both_bad": 1, "practice": 1, "aa": 2, "not_blind": 1, "same_answer": 1, "empty_answer": 1,
        "histories_differ": 1, "no_prompt": 1, "repeat": 1,
    }  # fmt: skip
    for language in LANGUAGES:
        assert all(Words(language)(f"ratings.left_out.{reason}") for reason in (*found.left_out, "unreadable"))
    assert export_preferences(votes, tmp_path / "all.jsonl", blind_only=False).rows == 3


def test_nothing_to_export_leaves_no_file(file: RatingsFile, tmp_path: Path) -> None:
    for export in (export_csv, export_spreadsheet):
        with pytest.raises(UserError, match=r"ratings\.nothing_to_export"):
            export(file.path, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_judged_answers_as_trl_reads_them(tmp_path: Path) -> None:
    votes = [vote("1"), vote("2", winner="both_bad"), vote("3", winner="tie"), vote("4", kind="repeat")]
    found = export_judged(votes, tmp_path / "kto.jsonl")
    lines = [json.loads(line) for line in found.path.read_text(encoding="utf-8").splitlines()]
    assert found.rows == 4 and found.left_out == {"tie": 1, "repeat": 1}
    assert lines[0] == {"prompt": TURNS, "completion": [{"role": "assistant", "content": "가"}], "label": False}
    assert [line["label"] for line in lines] == [False, True, False, False]


def test_arena_columns_as_fastchat_and_arena_rank_read_them(tmp_path: Path) -> None:
    """arena-rank factorises model_a and model_b and maps winner to 1, 0 or one half; the check does as it does."""
    votes = [
        vote("1", created_at="2026-03-01T00:00:00.000Z"),
        vote("2", winner="both_bad", blind=False, created_at="when"),
        vote("3", winner="tie"),
        vote("4", winner="model_a"),
        vote("5", kind="practice"),
        vote("6", model_b="base"),
    ]
    found = export_arena(votes, tmp_path / "arena.jsonl")
    assert found.rows == 4 and found.left_out == {"practice": 1, "aa": 1}
    frame = pd.read_json(found.path, lines=True, dtype=False)
    assert list(frame["winner"]) == ["model_b", "tie (bothbad)", "tie", "model_a"]
    assert list(frame["winner"].map({"model_a": 1.0, "model_b": 0.0}).fillna(0.5)) == [0.0, 0.5, 0.5, 1.0]
    assert frame["tstamp"][0] == 1772323200 and list(frame["anony"]) == [True, False, True, True]
    assert frame["conversation_b"][0] == [*TURNS, {"role": "assistant", "content": "나"}]
    assert frame["turn"].tolist() == [1] * 4 and frame["language"][0] == "Korean"
