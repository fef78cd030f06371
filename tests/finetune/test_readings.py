from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from assets.files import Workspace
from finetune import readings
from finetune.readings import Readings
from finetune.spec import DataSpec, ModelSpec, ScheduleSpec, TrainSpec
from tests.assets.templates import make


@pytest.fixture
def spec(tmp_path: Path) -> TrainSpec:
    folder = make(tmp_path / "chatml", "chatml")
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    space = Workspace(tmp_path / "home").prepare()
    (space.uploads / "talk.csv").write_text("Q,A\n안녕,반가워\n뭐 해,쉬어\n", encoding="utf-8")
    return TrainSpec(ModelSpec(str(folder)), DataSpec("talk.csv", "file", heldout=0.0))


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data that was really read, in order."""
    found: list[str] = []
    real = readings.load

    def load(workspace: Workspace, data: DataSpec) -> object:
        found.append(data.id)
        return real(workspace, data)

    monkeypatch.setattr(readings, "load", load)
    return found


def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


def test_moving_the_form_reads_nothing_anew(tmp_path: Path, spec: TrainSpec, loads: list[str]) -> None:
    kept = Readings(space(tmp_path))
    assert not kept.ready(spec)
    first = kept.get(spec)
    assert kept.ready(spec) and not kept.ready(replace(spec, data=replace(spec.data, system="짧게 답해요.")))
    again = kept.get(replace(spec, schedule=ScheduleSpec(max_length=64, learning_rate=1e-3)))
    assert again.source is first.source and again.chat is first.chat and again.counts is first.counts
    told = kept.get(replace(spec, data=replace(spec.data, system="짧게 답해요.")))
    assert told.counts.tokens != first.counts.tokens and told.chat is first.chat and loads == ["talk.csv"]


def test_a_file_or_template_that_changed_is_read_again(tmp_path: Path, spec: TrainSpec, loads: list[str]) -> None:
    kept = Readings(space(tmp_path))
    assert len(kept.get(spec).source.train) == 2
    (space(tmp_path).uploads / "talk.csv").write_text("Q,A\n안녕,반가워\n", encoding="utf-8")
    changed = kept.get(spec)
    assert len(changed.source.train) == len(changed.counts.lengths) == 1 and len(loads) == 2
    make(Path(spec.model.id), "llama3")
    assert kept.get(spec).chat.template_hash != changed.chat.template_hash


def test_two_who_ask_at_once_wait_for_one_reading(tmp_path: Path, spec: TrainSpec, loads: list[str]) -> None:
    kept, found = Readings(space(tmp_path)), []
    threads = [threading.Thread(target=lambda: found.append(kept.get(spec))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(loads) == 1 and len({id(reading.counts) for reading in found}) == 1


def test_a_failure_is_not_kept(tmp_path: Path, spec: TrainSpec) -> None:
    kept, path = Readings(space(tmp_path)), space(tmp_path).uploads / "talk.csv"
    text = path.read_bytes()
    path.unlink()
    with pytest.raises(Exception, match=r"data\.|FileNotFound|No such file"):
        kept.get(spec)
    path.write_bytes(text)
    assert len(kept.get(spec).source.train) == 2


def test_few_are_kept(tmp_path: Path, spec: TrainSpec, loads: list[str]) -> None:
    kept = Readings(space(tmp_path))
    for number in range(readings.KEPT + 2):
        kept.get(replace(spec, data=replace(spec.data, system=f"{number}")))
    assert len(kept._kept) == readings.KEPT
