from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assets.files import Workspace, write_atomic, write_json
from assets.words import LANGUAGES, Words
from finetune import side, tab_side
from finetune.jobs import Jobs
from finetune.progress import Progress
from finetune.spec import DataSpec, LoraSpec, ModelSpec, ScheduleSpec, TrainSpec


def a_run(workspace: Workspace, name: str, losses: list[float], adapter: bool = True, **spec: Any) -> None:
    folder = workspace.jobs / name
    folder.mkdir()
    wish = TrainSpec(ModelSpec("a/model"), DataSpec("naranhi/emotion-ko"), name=name, **spec)
    write_atomic(folder / "spec.yaml", wish.to_yaml())
    lines: list[dict[str, Any]] = [{"event": "phase", "phase": "start"}]
    for step, loss in enumerate(losses, 1):
        lines.append(
            {"event": "step", "step": step, "epoch": step / 4, "loss": loss, "seconds": 30, "tokens_per_second": 9}
        )
        lines.append({"event": "eval", "step": step, "loss": loss + 0.5, "seconds": 1})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if adapter:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_model.safetensors").touch()
    write_json(
        folder / "job.json",
        {"id": name, "name": f"<{name}>", "state": "finished", "created": 1.0, "started": 1.0, "version": 1},
    )


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    workspace = Workspace(tmp_path).prepare()
    a_run(workspace, "one", [3.0, 2.0, 1.0], lora=LoraSpec(rank=8))
    a_run(workspace, "two", [3.0, 1.5, 2.5], lora=LoraSpec(rank=64), schedule=ScheduleSpec(learning_rate=1e-3))
    a_run(workspace, "three", [3.0, 2.0], adapter=False, lora=LoraSpec(rank=8))
    return Jobs(workspace)


def test_only_settings_that_differ_are_listed(jobs: Jobs) -> None:
    differ = side.differing(side.runs(jobs, ["one", "two"]))
    assert differ == {"lora.rank": [8, 64], "schedule.learning_rate": [2e-4, 1e-3]}
    assert side.differing(side.runs(jobs, ["one", "three"])) == {}


@pytest.mark.parametrize("axis, places", [("step", [1, 2, 3]), ("epoch", [0.25, 0.5, 0.75]), ("time", [0.5, 1.0, 1.5])])
def test_the_same_losses_on_three_axes(jobs: Jobs, axis: side.Axis, places: list[float]) -> None:
    progress = side.runs(jobs, ["one"])[0].progress
    assert side.curve(progress, axis, "loss") == list(zip(places, [3.0, 2.0, 1.0], strict=True))
    assert side.curve(progress, axis, "eval") == list(zip(places, [3.5, 2.5, 1.5], strict=True))


def test_where_the_held_out_loss_turns() -> None:
    def turned(*losses: float) -> int | None:
        return side.turned(Progress(evals=[{"step": step, "loss": loss} for step, loss in enumerate(losses)]))

    assert turned(3, 2, 1) is None and turned(3, 1, 2) == 1 and turned(3, 1) is None
    assert turned(3, 2, 2.01) is None and turned(3, 2, 2.03) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_shown(jobs: Jobs, language: str) -> None:
    words = Words(language)
    html = side.show(side.runs(jobs, ["one", "two"]), "step", words)
    assert html.count("<svg") == 2 and html.count("<polyline") == 4
    assert words("train.f.rank") in html and "0.001" in html and words("side.turned", step=2) in html
    assert words("train.f.alpha") not in html and "&lt;one&gt;" in html and "<one>" not in html
    assert words("side.alike") in side.show(side.runs(jobs, ["one", "three"]), "time", words)
    for few in ([], ["one"], ["one", "gone"]):
        assert "<svg" not in side.show(side.runs(jobs, few), "step", words)


def test_two_with_an_adapter_can_be_compared(jobs: Jobs) -> None:
    def ready(*ids: str) -> bool:
        return tab_side.ready(jobs, side.runs(jobs, list(ids)))

    assert ready("one", "two") and not ready("one") and not ready("one", "three") and not ready("one", "two", "three")
