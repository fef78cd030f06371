"""Models that a run trained whole, as the pickers see them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import STARTER
from assets.errors import UserError
from assets.files import Workspace
from compare.candidates import Asked, choose, look_up, options, shape_of
from compare.desk import Pair
from compare.engine import Loaded, PaneCheck
from compare.provenance import provenance
from compare.study import StudyArm
from compare.whole_model import find_wholes, read_whole
from tests.compare.adapter_files import folder
from tests.compare.test_candidates import RUN, model

JOB = "20260703-101112-ab12"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The starter, a finished full run and a finished adapter, an older one."""
    made = Workspace(tmp_path).prepare()
    starter = model(made.models / "SmolLM2-135M-Instruct")
    (starter / "source.json").write_text(json.dumps({"package": "p", "package_version": "1"}), encoding="utf-8")
    finished(made, JOB)
    adapter = made.jobs / "older"
    (folder(adapter / "adapter") / "run.json").write_text(json.dumps(RUN | {"finished_at": 1.0}), encoding="utf-8")
    (adapter / "job.json").write_text(json.dumps({"state": "finished"}), encoding="utf-8")
    return made


def finished(workspace: Workspace, job: str, state: str = "finished", **changes: Any) -> Path:
    path = model(workspace.jobs / job / "model")
    (path / "run.json").write_text(json.dumps(RUN | {"name": "통째로"} | changes), encoding="utf-8")
    (workspace.jobs / job / "job.json").write_text(json.dumps({"state": state}), encoding="utf-8")
    return path


def test_a_whole_model_is_listed_among_the_runs_newest_first(workspace: Workspace) -> None:
    finished(workspace, "going", state="running")
    finished(workspace, "torn").joinpath("run.json").write_text("{")
    runs = [option for option in options(workspace) if option.kind == "run"]
    assert [run.name for run in runs] == ["통째로", "공감 대화"]
    assert [whole.name for whole in find_wholes(workspace.jobs)] == ["통째로"]


def test_it_stands_beside_its_base_with_its_own_prompt(workspace: Workspace) -> None:
    run = options(workspace)[0].value
    chosen = choose(workspace, STARTER, run, Asked())
    first, second = chosen.first, chosen.second
    assert second.base == run and second.adapter is None and second.system == "친구예요."
    assert second.name == "통째로" and len(second.model.removeprefix("통째로@")) == 8
    pair = Pair("p", (first, second), Loaded("cpu", 0, {}, PaneCheck(0.0, None, None, 1.0), {}, "nf4"))
    assert (pair.kind(0), pair.kind(1)) == ("base", "tuned") and not pair.same
    assert shape_of(workspace, run) is not None
    assert StudyArm.of(second, "k").candidate() == second


def test_an_adapter_is_never_put_on_a_tuned_model(workspace: Workspace) -> None:
    whole, adapter = (option.value for option in options(workspace)[:2])
    chosen = choose(workspace, whole, adapter, Asked())
    assert (chosen.first.base, chosen.second.base) == (whole, STARTER)
    assert look_up(whole).base_id == look_up(adapter).base_id == STARTER


def test_a_record_names_no_folder_of_this_machine(workspace: Workspace, tmp_path: Path) -> None:
    chosen = choose(workspace, STARTER, options(workspace)[0].value, Asked())
    check = PaneCheck(0.0, None, None, 1.0)
    told = provenance(Pair("p", (chosen.first, chosen.second), Loaded("cpu", 0, {}, check, {}, "nf4")))
    assert told["model_b"]["base"] == f"jobs/{JOB}/model" and told["model_b"]["tuned_from"] == STARTER
    assert str(tmp_path) not in json.dumps(told["model_b"])


def test_records_that_cannot_be_read(workspace: Workspace, tmp_path: Path) -> None:
    plain = model(tmp_path / "plain")
    assert read_whole(plain) is None and look_up(str(plain)).whole is None
    (plain / "run.json").write_text('["something else"]')
    assert read_whole(plain) is None
    (plain / "run.json").write_text("{")
    with pytest.raises(UserError, match="adapters.bad_run"):
        look_up(str(plain))
    (plain / "run.json").write_text(json.dumps(RUN | {"version": 99}))
    with pytest.raises(UserError, match="adapters.newer_run"):
        look_up(str(plain))
