"""What is said of a run before it starts: download, disk, the end, and what a time limit does to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.catalog import STARTER, find_model
from assets.files import Workspace
from assets.words import LANGUAGES, Words
from finetune import needs, views_time
from finetune.forecast import Forecast
from finetune.jobs import Job, Jobs
from finetune.memory import Shape
from finetune.needs import Needs
from finetune.outlook import Outlook
from finetune.plan import LaunchPlan
from finetune.spec import DataSpec, ModelSpec, TrainSpec, WatchSpec

NOW = 1_795_622_400.0  # 16:00 UTC
GEMMA = "google/gemma-2-2b-it"
SPEC = TrainSpec(ModelSpec(GEMMA), DataSpec("naranhi/emotion-ko"))
PLAN = LaunchPlan("single", 1, (0,), ("gpu-a",), "bfloat16", False, ("true",), {}, {}, "fits")
TOLD = Forecast(low=800, middle=1000, high=1400, steps=400, step=2.0, evaluation=20.0, around=60.0, basis="same")
NEEDS = Needs(0, 10**9, 10**11)


def shape_of(model: str) -> Shape:
    card = find_model(model)
    assert card is not None
    return Shape.of(card.shape, card.model_type)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return Jobs(Workspace(tmp_path / "home").prepare())


def look(jobs: Jobs, spec: TrainSpec = SPEC, plan: LaunchPlan = PLAN) -> Needs:
    return needs.needs(spec, plan, shape_of(spec.model.id), jobs, free=10**12)


def test_what_is_not_here_is_fetched(jobs: Jobs, tmp_path: Path) -> None:
    found = look(jobs)
    card = find_model(GEMMA)
    assert card is not None and found.download == pytest.approx(2 * card.parameters, rel=0.01)
    assert found.seconds[0] < found.seconds[1] and found.disk > found.download and found.enough
    assert look(jobs, replace(SPEC, model=ModelSpec(STARTER))).download == 0
    assert needs.missing(ModelSpec(str(tmp_path)), shape_of(GEMMA)) == 0


def test_a_snapshot_counts_only_when_all_of_its_shards_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"model.safetensors.index.json", "a.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repo, name, revision=None: str(tmp_path / name) if name in here else None,
    )
    assert needs.cached(ModelSpec("some/model")) is None
    here.add("b.safetensors")
    assert needs.cached(ModelSpec("some/model")) == tmp_path


def test_shards_need_a_copy_and_every_checkpoint_its_room(jobs: Jobs) -> None:
    plain = look(jobs)
    copied = look(jobs, plan=replace(PLAN, placement="fsdp", processes=4))
    assert copied.disk - plain.disk == pytest.approx(0.516 * shape_of(GEMMA).linear + 2 * shape_of(GEMMA).embedding)
    assert look(jobs, replace(SPEC, watch=WatchSpec(keep=10))).disk > plain.disk
    assert look(jobs, replace(SPEC, watch=WatchSpec(best=True))).disk > plain.disk  # the best one's stays beside them
    assert not replace(plain, free=plain.disk - 1).enough


def test_the_speed_of_earlier_downloads_is_taken(jobs: Jobs) -> None:
    folder = jobs.workspace.jobs / "one"
    folder.mkdir()
    row = {"event": "facts", "time": NOW, "downloaded": 2e9, "download_seconds": 100}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    jobs.save(Job("one", "one", "finished", NOW))
    found = look(jobs)
    assert found.seconds == pytest.approx((found.download / 30e6, found.download / 10e6))


def outlook(seconds: float | None = None, **changed: Any) -> Outlook:
    until = None if seconds is None else NOW + seconds
    return Outlook(**{"forecast": TOLD, "needs": NEEDS, "now": NOW, "until": until} | changed)


def test_the_span_ends_with_the_budget() -> None:
    assert outlook().span == (800, 1400) and outlook().steps is None
    assert outlook(1000).span == (800, 1000) and outlook(500).span == (500, 500)
    assert outlook(10_000).steps == (400, 400)
    least, most = outlook(700).steps or (0, 0)
    assert 0 < least < most < 400
    assert outlook(60).steps == (0, 0)
    assert outlook(700, forecast=None).steps is None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("found", "kind", "key"),
    [
        (outlook(10_000), "good", "outlook.limit.enough"),
        (outlook(700), "warn", "outlook.limit.fewer"),
        (outlook(1100), "warn", "outlook.limit.maybe"),
        (outlook(60), "bad", "outlook.limit.short"),
        (outlook(700, forecast=None), "", "outlook.limit.unknown"),
        (outlook(needs=replace(NEEDS, free=5)), "bad", "outlook.no_disk"),
    ],
)
def test_each_case_has_its_sentence(language: str, found: Outlook, kind: str, key: str) -> None:
    words = Words(language)
    text = views_time.lines(found, 540, words)
    begin = words._table[key].split("{")[0] or words._table[key].rsplit("}", 1)[-1]
    assert f'class="n-note {kind}"' in text and begin in text


def test_clocks_are_the_persons() -> None:
    words = Words("ko")
    assert views_time.clock(NOW, 540) == "01:00" and views_time.clock(NOW, -210) == "12:30"
    text = views_time.lines(outlook(), 540, words)
    assert "01:13–01:23" in text and "디스크 954 MB 필요" in text
    fetched = outlook(needs=Needs(5 * 2**30, 6 * 2**30, 10**12, (60, 1200)))
    assert "받을 것 5.0 GB(60초–20분)" in views_time.lines(fetched, 540, words)
    assert "01:14–01:43" in views_time.lines(fetched, 540, words)
    days = outlook(forecast=replace(TOLD, high=90_000.0))
    assert "쯤 끝나요" not in views_time.lines(days, 540, words)
