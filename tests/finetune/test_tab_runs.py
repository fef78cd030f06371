from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from assets.errors import UserError
from assets.files import Workspace, write_json
from assets.words import Words
from finetune import tab_runs
from finetune.jobs import Jobs

WORDS = Words("ko")


def a_job(workspace: Workspace, state: str) -> Jobs:
    folder = workspace.jobs / "one"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "job.json", {"id": "one", "name": "하나", "state": state, "created": 1.0, "version": 1})
    return Jobs(workspace)


@pytest.mark.usefixtures("one_loop")
def test_a_refresh_has_a_value_for_every_component() -> None:
    with gr.Blocks(analytics_enabled=False):
        assert len(tab_runs.build(WORDS).shown()) == tab_runs.SHOWN


def test_only_what_changed_on_disk_is_sent(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).prepare()
    jobs = a_job(workspace, "finished")
    first = tab_runs.refresh(jobs, None, {}, WORDS)
    assert len(first) == tab_runs.SHOWN
    again = tab_runs.refresh(jobs, "one", first[0], WORDS)
    assert again == [gr.skip()] * tab_runs.SHOWN

    (workspace.jobs / "one" / "train.log").write_text("첫 줄\n", encoding="utf-8")
    third = tab_runs.refresh(jobs, "one", first[0], WORDS)
    assert [i for i, value in enumerate(third) if value != gr.skip()] == [0, 8]  # what was seen, and the log

    a_job(workspace, "failed")
    fourth = tab_runs.refresh(jobs, "one", third[0], WORDS)
    assert fourth[4] != gr.skip() and "n-badge failed" in fourth[4]


def test_a_run_is_shown_together_with_its_choice(tmp_path: Path) -> None:
    """A value that a Radio does not offer is refused at the next event, and the page would stand still."""
    jobs = a_job(Workspace(tmp_path).prepare(), "running")
    update = tab_runs.select(jobs, "one", WORDS)
    assert update["value"] == "one" and "one" in [value for _, value in update["choices"]]


def test_a_tick_chooses_no_run(tmp_path: Path) -> None:
    """It may have begun before another one was chosen, and ends after it."""
    jobs = a_job(Workspace(tmp_path).prepare(), "running")
    opened = tab_runs.refresh(jobs, None, {}, WORDS)
    assert opened[2]["value"] == "one"
    write_json(
        jobs.workspace.jobs / "two" / "job.json", {"id": "two", "name": "둘", "state": "finished", "created": 2.0}
    )
    tick = tab_runs.refresh(jobs, "one", opened[0], WORDS)
    assert "value" not in tick[2] and {"one", "two"} == {value for _, value in tick[2]["choices"]}
    shown = tab_runs.refresh(jobs, "two", {}, WORDS)
    assert shown[2]["value"] == "two"
    (jobs.workspace.jobs / "two" / "job.json").unlink()
    assert tab_runs.refresh(jobs, "two", shown[0], WORDS)[2]["value"] == "one"  # it was deleted


@pytest.mark.parametrize("text", ['{"version": 99, "id": "one"}', "not json", "[]"])
def test_a_record_that_cannot_be_read_hides_no_other(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path).prepare()
    jobs = a_job(workspace, "finished")
    (workspace.jobs / "two").mkdir()
    (workspace.jobs / "two" / "job.json").write_text(text, encoding="utf-8")
    assert {job.id: job.state for job in jobs.list()} == {"one": "finished", "two": "failed"}
    head = tab_runs.refresh(jobs, "two", {}, WORDS)[4]
    assert WORDS("jobs.version", version=99) in head or WORDS("jobs.unreadable") in head
    for act in (jobs.get, jobs.resume, jobs.stop, jobs.delete):
        with pytest.raises(UserError):
            act("two")


def test_a_long_history_is_folded_behind_those_that_run(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).prepare()
    for number in range(10):
        folder = workspace.jobs / f"{number}"
        folder.mkdir()
        state = "queued" if number in (0, 1) else "finished"
        write_json(
            folder / "job.json", {"id": f"{number}", "name": "x", "state": state, "created": number, "version": 1}
        )
    listed = Jobs(workspace).list()
    assert [job.id for job in tab_runs.recent(listed, "3")] == ["1", "0", "9", "8", "7", "3"]
    assert [job.id for job in tab_runs.recent(listed[:4], None)] == ["9", "8", "7", "6"]
