from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import Workspace
from compare.csv_store import to_line
from compare.ratings import COLUMNS, RatingsFile, to_cells
from compare.study_items import needed
from compare.study_pack import merge, pack, unpack, votes_csv
from compare.study_serve import StudyService
from compare.study_store import Studies
from tests.compare.studies import SECRETS, opened, rate, ratings, seat, service, study


def away(pack_file: Path, root: Path) -> tuple[StudyService, Any]:
    """Another instance with the pack opened."""
    studies = Studies(Workspace(root))
    made = unpack(studies, pack_file)
    return StudyService(studies, ratings(root), "1"), made


def test_made_here_rated_there_merged_twice(tmp_path: Path) -> None:
    home, made = service(tmp_path / "home", arms=3, count=16)
    file = pack(home.studies, made.id, tmp_path / "pack.zip")
    there, copy = away(file, tmp_path / "there")
    assert copy.packed and copy.state == "open" and copy.id == made.id
    seats = [seat(there, copy) for _ in range(3)]
    shown = [rate(there, sat, choice) for sat, choice in zip(seats, ("left", "right", "tie"), strict=True)]
    there.undo(seats[0], "")
    rate(there, seats[0], "both_bad")
    there.withdraw(seats[2])
    here = seat(home, made)
    rate(home, here)
    mine = len(home.ratings.read().votes)

    csv = tmp_path / "votes.csv"
    rows = votes_csv(there.ratings, copy.id, csv)
    first = merge(home.studies, home.ratings, made.id, csv)
    assert (first.added, first.known, first.other, first.refused) == (rows, 0, 0, ())
    size = home.ratings.path.stat().st_size
    second = merge(home.studies, home.ratings, made.id, csv)
    assert (second.added, second.known) == (0, rows) and home.ratings.path.stat().st_size == size

    read = home.ratings.read()
    stood = len(shown[0]) + len(shown[1])
    assert len(read.votes) == mine + stood and read.repeated == 0
    assert (read.undone, read.withdrawn) == (1, len(shown[2]))
    models = {arm.model for arm in made.arms}
    merged = [v for v in read.votes if v.rater in {s.rater for s in seats} and v.kind != "practice"]
    assert all({v.model_a, v.model_b} <= models for v in merged) and not any(v.model_a in copy.pairs for v in merged)
    assert all(
        v.provenance["model_a"]["base"] and v.timing["model_a"] and v.timing["seconds_to_vote"] == 9.0 for v in merged
    )
    assert all(v.conversation[0] == {"role": "system", "content": made.system} for v in merged)
    items = {(v.item_id, v.response_a, v.response_b, v.model_a, v.model_b) for v in read.votes if v.kind != "practice"}
    assert len(items) == len({i for i, *_ in items})  # the same item is the same answers of the same models everywhere
    progress = home.progress(made.id)
    assert progress.elsewhere == sum(v.kind == "main" for v in merged) and progress.elsewhere < progress.votes


def test_a_pack_tells_no_model(tmp_path: Path) -> None:
    studies, made = opened(tmp_path / "home")
    file = pack(studies, made.id, tmp_path / "pack.zip")
    with zipfile.ZipFile(file) as archive:
        texts = "\n".join(archive.read(name).decode() for name in archive.namelist()).lower()
    for secret in (*SECRETS[:5], "친구예요", "torch", "tokens_per_second", made.name.lower()):
        assert secret.lower() not in texts
    there, copy = away(file, tmp_path / "there")
    sat = seat(there, copy)
    rate(there, sat)
    assert not there.finished(sat).may_reveal
    assert not any(s in there.ratings.path.read_text().lower() for s in SECRETS[:5])
    with pytest.raises(UserError, match=r"study\.never_revealed"):
        there.reveal(sat)
    with pytest.raises(UserError, match=r"study\.merge_at_home"):
        merge(there.studies, there.ratings, copy.id, there.ratings.path)


def test_opened_again_it_is_the_same_study(tmp_path: Path) -> None:
    studies, made = opened(tmp_path / "home")
    file = pack(studies, made.id, tmp_path / "pack.zip")
    there, copy = away(file, tmp_path / "there")
    assert unpack(there.studies, file) == copy
    with pytest.raises(UserError, match=r"study\.exists"):
        unpack(studies, file)


def test_answers_are_all_needed_and_those_that_name_a_model_stay_at_home(tmp_path: Path) -> None:
    studies = Studies(Workspace(tmp_path))
    made = studies.create(study())
    with pytest.raises(UserError, match=r"study\.not_generated"):
        pack(studies, made.id, tmp_path / "p.zip")
    studies, made = opened(tmp_path / "two")
    items = studies.items(made.id)
    lines = items.path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0]) | {"named": ["Gemma"], "text": "저는 젬마예요"}
    items.path.write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n", encoding="utf-8")
    file = pack(studies, made.id, tmp_path / "p.zip")
    with zipfile.ZipFile(file) as archive:
        assert "젬마" not in archive.read("items.jsonl").decode()
    there, copy = away(file, tmp_path / "there")
    assert len(there.studies.items(copy.id).read()) == len(needed(made)) - 1
    assert rate(there, seat(there, copy))


def rewritten(source: Path, target: Path, **bodies: bytes | None) -> Path:
    """The pack with members replaced, its manifest fitting."""
    with zipfile.ZipFile(source) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(kept.pop("manifest.json")) | json.loads(bodies.pop("manifest", None) or b"{}")
    for name, body in bodies.items():
        kept[{"study": "study.json", "items": "items.jsonl"}[name]] = body or b""
    manifest["files"] = {n: hashlib.sha256(b).hexdigest() for n, b in kept.items()}
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, body in kept.items():
            archive.writestr(name, body)
    return target


def test_packs_that_are_none(tmp_path: Path) -> None:
    studies, made = opened(tmp_path / "home")
    good = pack(studies, made.id, tmp_path / "good.zip")
    there = Studies(Workspace(tmp_path / "there"))
    bad: dict[str, bytes] = {"empty": b"", "text": b"hello", "cut": good.read_bytes()[:-40]}
    cases = []
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        cases.append((tmp_path / name, "study.pack_bad"))
    record = json.loads(zipfile.ZipFile(good).read("study.json"))
    for number, (changes, key) in enumerate(
        [
            ({"study": json.dumps(record | {"id": "../../evil"}).encode()}, "study.unknown"),
            ({"study": json.dumps(record | {"id": "/etc"}).encode()}, "study.unknown"),
            ({"study": b"[]"}, "study.unreadable"),
            ({"study": b"{"}, "study.pack_bad"),
            ({"study": json.dumps(record | {"prompts": []}).encode()}, "study.no_prompts"),
            ({"items": b'{"prompt_id": "x", "arm": "y", "text": "z"}\n'}, "study.pack_bad"),
            ({"manifest": b'{"version": 2}'}, "study.pack_newer"),
            ({"manifest": b'{"format": "other"}'}, "study.pack_bad"),
        ]
    ):
        cases.append((rewritten(good, tmp_path / f"{number}.zip", **changes), key))
    damaged = tmp_path / "digest.zip"
    with zipfile.ZipFile(good) as one, zipfile.ZipFile(damaged, "w") as two:
        for name in one.namelist():
            two.writestr(name, one.read(name) + (b" " if name == "items.jsonl" else b""))
    cases.append((damaged, "study.pack_bad"))
    for file, key in cases:
        with pytest.raises(UserError) as caught:
            unpack(there, file)
        assert caught.value.key == key, file
    assert there.list() == [] and not list(tmp_path.glob("**/evil*"))


def test_a_pack_that_unfolds_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compare.study_pack.LARGEST", 1 << 20)
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * (3 << 20))
    assert file.stat().st_size < 10_000
    with pytest.raises(UserError, match=r"study\.pack_large"):
        unpack(Studies(Workspace(tmp_path)), file)


def test_a_pack_brings_no_other_files_and_no_models(tmp_path: Path) -> None:
    studies, made = opened(tmp_path / "home")
    good = pack(studies, made.id, tmp_path / "good.zip")
    record = json.loads(zipfile.ZipFile(good).read("study.json"))
    record["arms"][0] |= {"adapter": "/etc/passwd", "model": "gemma"}
    sly = rewritten(good, tmp_path / "sly.zip", study=json.dumps(record | {"state": "draft", "packed": False}).encode())
    with zipfile.ZipFile(sly, "a") as archive:
        archive.writestr("../../escaped.txt", "x")
        archive.writestr("raters.json", "{}")
    there = Studies(Workspace(tmp_path / "there"))
    copy = unpack(there, sly)
    assert copy.packed and copy.state == "open" and all(a.adapter is None and a.model == a.key for a in copy.arms)
    assert sorted(p.name for p in there.folder(copy.id).iterdir() if p.suffix != ".lock") == [
        "items.jsonl",
        "study.yaml",
    ]
    assert not (tmp_path / "escaped.txt").exists()


def test_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    home, made = service(tmp_path / "home")
    there, copy = away(pack(home.studies, made.id, tmp_path / "p.zip"), tmp_path / "there")
    rate(there, seat(there, copy), most=7)
    votes = [v for v in there.ratings.read().votes if v.kind != "practice"]
    one, two, three, four, five = votes
    rows = [
        to_cells(replace(one, response_a="고친 답")),
        to_cells(replace(two, item_id="emotion-999:x1-x2")),
        to_cells(replace(three, model_a="gpt")),
        to_cells(four) | {"winner": "left"},
        to_cells(replace(five, study_id="other")),
        to_cells(replace(one, rating_id="free", kind="free")),
    ]
    file = tmp_path / "edited.csv"
    file.write_bytes(to_line(COLUMNS) + b"".join(to_line(row[c] for c in COLUMNS) for row in rows))
    found = merge(home.studies, home.ratings, made.id, file)
    assert (found.added, found.known, found.other) == (0, 0, 1)
    assert [r.reason_key for r in found.refused] == [
        "study.merge_other_answers",
        "study.merge_unknown_item",
        "study.merge_unknown_item",
        "ratings.bad_value",
        "study.merge_unknown_item",
    ]
    assert home.ratings.read().rows == 0


def test_a_file_that_a_spreadsheet_saved_merges_too(tmp_path: Path) -> None:
    home, made = service(tmp_path / "home")
    there, copy = away(pack(home.studies, made.id, tmp_path / "p.zip"), tmp_path / "there")
    rate(there, seat(there, copy))
    rows = there.ratings.read().votes
    lines = [",".join(reversed(COLUMNS))]
    for row in rows:
        cells = to_cells(row)
        lines.append(",".join('"' + cells[c].replace('"', '""') + '"' for c in reversed(COLUMNS)))
    file = tmp_path / "excel.csv"
    file.write_bytes("\r\n".join(lines).encode("cp949"))
    before = file.read_bytes()
    found = merge(home.studies, RatingsFile(home.ratings.path), made.id, file)
    assert (found.added, found.refused) == (len(rows), ()) and file.read_bytes() == before
