"""Groups of runs on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace, read_json, write_json
from assets.words import LANGUAGES, Words
from finetune import groups
from finetune.groups import LeftOut, Member


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).prepare()


def test_what_is_written_is_read_again(space: Workspace) -> None:
    group = groups.made(
        groups.new_id("click"),
        "스타터",
        (Member("wide", "job-1"), Member("full", "job-2")),
        (LeftOut("small", "enough.unticked"), LeftOut("qlora", "enough.too_big", {"need": "9.0", "have": "1.0"})),
    )
    groups.save(space, group)
    assert groups.read(space, group.id) == group
    assert read_json(groups.path_of(space, group.id))["version"] == 1
    assert groups.new_id("click") == group.id != groups.new_id("another") and groups.new_id("") != groups.new_id("")


def test_an_older_record_is_read_and_a_newer_one_refused(space: Workspace) -> None:
    name = groups.new_id("old")
    old = {"id": name, "name": "n", "created": 1.0, "members": [{"role": "full", "job": "j"}], "gone_field": 1}
    write_json(groups.path_of(space, name), old)
    found = groups.read(space, name)
    assert found is not None and found.left_out == () and found.members == (Member("full", "j"),)
    for broken in ({**old, "version": 2}, {"version": 1}, []):
        write_json(groups.path_of(space, name), broken)
        with pytest.raises(UserError) as caught:
            groups.read(space, name)
        assert caught.value.key == "groups.unreadable"
        assert all(Words(language).error(caught.value) for language in LANGUAGES)


@pytest.mark.parametrize("name", ["", "..", "../jobs/x", "0123", "0123456789abcdeg", "0123456789abcdef"])
def test_what_is_no_group_of_ours_is_none(space: Workspace, name: str) -> None:
    assert groups.read(space, name) is None
