"""A preference file says where it comes from, and is only read as long as it is what was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assets import preferences
from assets.errors import UserError
from assets.files import Workspace, read_json, write_json
from assets.words import LANGUAGES, Words
from compare.adapters import inspect
from compare.pairs import PairFilter
from compare.pairs_file import make
from compare.rating import Rating
from tests.compare.adapter_files import folder as adapter_folder
from tests.compare.test_pairs import KEPT, vote


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").prepare()


def votes(model: str = "tuned@1", **values: Any) -> list[Rating]:
    return [
        vote(
            str(n), KEPT[n], winner="model_b", model_b=model, rater=f"r{n % 2}", created_at="2026-11-25T10:00", **values
        )
        for n in range(4)
    ]


def test_rows_and_what_is_said_about_them(space: Workspace) -> None:
    made = make(space, [*votes(study_id="s1"), vote("t", KEPT[9], winner="tie", study_id="s1")], PairFilter(study="s1"))
    rows = [json.loads(line) for line in made.path.read_text(encoding="utf-8").splitlines()]
    assert (made.objective, made.rows, len(rows), made.name) == ("dpo", 4, 4, "s1-2026-11-25")
    assert set(rows[0]) == {"prompt", "chosen", "rejected"}
    record = read_json(made.path.with_suffix(".json"))
    assert record["votes"]["count"] == 4 and record["votes"]["raters"] == 2 and len(record["votes"]["sha256"]) == 64
    assert record["study_id"] == "s1" and record["models"] == ["base", "tuned@1"]
    assert record["undecided"] == {"tie": 1} and record["filter"]["agreement"] == 0.6 and record["version"] == 1
    assert preferences.read(space, made.name) == made and preferences.listed(space) == (made,)


def test_the_same_votes_are_the_same_file_and_others_get_a_name_of_their_own(space: Workspace) -> None:
    one = make(space, votes(), PairFilter())
    assert make(space, votes(), PairFilter()) == one
    other = make(space, votes()[:3], PairFilter())
    assert other.name == f"{one.name}-2" and len(preferences.listed(space)) == 2


def test_the_compared_adapter_is_the_one_to_go_on_from(space: Workspace) -> None:
    folder = adapter_folder(space.jobs / "job" / "adapter")
    write_json(folder / "run.json", {"version": 1, "name": "공감", "base": {"id": "some/base"}})
    write_json(space.jobs / "job" / "job.json", {"state": "finished"})
    adapter = inspect(folder)
    made = make(space, votes(f"공감@{adapter.sha256[:8]}"), PairFilter())
    assert (made.adapter, made.base) == (str(folder), "some/base")
    gone = make(space, votes("공감@00000000"), PairFilter())
    assert (gone.adapter, gone.base) == ("", "")


def test_the_system_prompt_that_was_used(space: Workspace) -> None:
    talk = [{"role": "system", "content": "친구예요."}, {"role": "user", "content": KEPT[0]}]
    made = make(space, [vote("1", conversation=talk), *votes()[1:2]], PairFilter())
    assert made.system == "친구예요."
    assert json.loads(made.path.read_text(encoding="utf-8").splitlines()[0])["prompt"] == talk


@pytest.mark.parametrize(
    ("harm", "key"),
    [
        (lambda path: path.unlink(), "preference.unknown"),
        (lambda path: path.with_suffix(".json").unlink(), "preference.no_record"),
        (lambda path: path.with_suffix(".json").write_text("{"), "preference.no_record"),
        (lambda path: path.with_suffix(".json").write_text('{"version": 99}'), "preference.newer"),
        (lambda path: path.write_text(path.read_text() + "\n"), "preference.changed"),
    ],
)
def test_a_file_that_is_not_what_was_made_is_refused(harm: Any, key: str, space: Workspace) -> None:
    made = make(space, votes(), PairFilter())
    harm(made.path)
    with pytest.raises(UserError) as caught:
        preferences.read(space, made.name)
    assert caught.value.key == key and all(Words(language).error(caught.value) for language in LANGUAGES)
    assert preferences.listed(space) == ()


def test_a_name_cannot_lead_outside(space: Workspace) -> None:
    (space.root / "secret.jsonl").write_text("{}")
    for name in ("../secret", "/etc/passwd", "..", ""):
        with pytest.raises(UserError):
            preferences.file(space, name)
