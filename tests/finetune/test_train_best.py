"""The best evaluation's weights are what a run ends with, whoever stopped it in between, and a run that gets no better
ends early. Tiny models that learn so fast that they fall apart again."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from assets.errors import UserError
from assets.files import Workspace, read_json
from finetune import train
from finetune.progress import read
from finetune.spec import LoraSpec, TrainSpec, WatchSpec
from finetune.train_best import Best
from finetune.train_save import checkpoints
from tests.finetune.test_train_methods import METHODS
from tests.finetune.two_ranks import a_spec
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore")
FAST: dict[str, Any] = {"steps": 30, "micro_batch": 4, "learning_rate": 0.02, "scheduler": "constant", "warmup": 0.0}
EVERY = 3


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("NARANHI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NARANHI_JOB", raising=False)
    return Workspace.from_environment().prepare()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_model(tmp_path / "base", "llama")


def run(spec: TrainSpec, folder: Path, workspace: Workspace) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return train.run(spec, folder, workspace)


def fast(workspace: Workspace, base: Path, **watch: Any) -> TrainSpec:
    """On answers of random letters, which can only be memorised."""
    spec = a_spec(workspace.root, base, watch={"every": EVERY, "samples": 0, **watch}, precision="float32", **FAST)
    drawn = random.Random(0)
    talks = [(f"q{n}", "".join(drawn.choices(ascii_lowercase, k=24))) for n in range(16)]
    rows = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in talks]
    text = "\n".join(json.dumps({"messages": row}) for row in rows)
    (workspace.uploads / "talks.jsonl").write_text(text, encoding="utf-8")
    return replace(spec, lora=LoraSpec(rank=16, alpha=32))


def lowest(folder: Path) -> int:
    evals = {row["step"]: row["loss"] for row in read(folder).evals if row["step"]}
    return min(evals, key=lambda step: evals[step])


def saved(folder: Path) -> dict[str, Any]:
    return load_file(next(folder.glob("*.safetensors")))


def test_the_best_weights_are_kept_and_their_checkpoint_stays(workspace: Workspace, base: Path) -> None:
    folder = workspace.jobs / "job"
    assert run(fast(workspace, base, best=True, keep=1), folder, workspace) == 0
    best, progress = lowest(folder), read(folder)
    assert 0 < best < FAST["steps"], "the premise: it gets worse again"
    kept = read_json(folder / "run.json")["kept"]
    assert kept["step"] == best and kept["last"] == FAST["steps"] and kept["best"] and kept["early"] is None
    assert kept["loss"] == min(row["loss"] for row in progress.evals)
    assert {path.name for path in checkpoints(folder / "checkpoints")} == {
        f"checkpoint-{n}" for n in (best, FAST["steps"])
    }
    here, there = saved(folder / "adapter"), saved(folder / "checkpoints" / f"checkpoint-{best}")
    assert all((here[name] == there[name]).all() for name in there)
    assert progress.notes[-1]["key"] == "train.best" and progress.others[-1]["step"] == best


def test_without_asking_the_last_weights_are_kept(workspace: Workspace, base: Path) -> None:
    folder = workspace.jobs / "job"
    assert run(fast(workspace, base, keep=1), folder, workspace) == 0
    kept = read_json(folder / "run.json")["kept"]
    assert kept["step"] == FAST["steps"] and not kept["best"]
    assert [path.name for path in checkpoints(folder / "checkpoints")] == [f"checkpoint-{FAST['steps']}"]


def test_a_run_that_gets_no_better_ends_early(workspace: Workspace, base: Path) -> None:
    folder = workspace.jobs / "job"
    assert run(fast(workspace, base, patience=2), folder, workspace) == 0
    record, best = read_json(folder / "run.json"), lowest(folder)
    assert record["stopped"] is False and record["kept"]["early"] == best + 2 * EVERY == record["metrics"]["steps"]
    assert record["kept"]["step"] == best and read(folder).notes[-1]["key"] == "train.early"


def test_a_resumed_run_remembers_its_best(workspace: Workspace, base: Path) -> None:
    whole, cut = workspace.jobs / "whole", workspace.jobs / "cut"
    spec = fast(workspace, base, best=True, keep=4)
    assert run(spec, whole, workspace) == 0
    best, last = lowest(whole), FAST["steps"]
    shutil.copytree(whole, cut)
    for path in (cut / "adapter", *(cut / "checkpoints" / f"checkpoint-{n}" for n in (last, last - EVERY))):
        shutil.rmtree(path)
    (cut / "run.json").unlink()
    assert run(spec, cut, workspace) == 0
    assert best < last - 2 * EVERY and read_json(cut / "run.json")["kept"]["step"] == best
    here, there = saved(cut / "adapter"), saved(whole / "adapter")
    assert all((here[name] == there[name]).all() for name in there)


def test_a_whole_model_keeps_its_best_too(workspace: Workspace, base: Path) -> None:
    folder = workspace.jobs / "job"
    spec = fast(workspace, base, best=True)
    assert run(replace(spec, **METHODS["full"]), folder, workspace) == 0
    best = lowest(folder)
    here, there = saved(folder / "model"), saved(folder / "checkpoints" / f"checkpoint-{best}")
    assert best < FAST["steps"] and all((here[name] == there[name].to(here[name].dtype)).all() for name in there)


def test_choosing_the_best_needs_something_to_choose_by(workspace: Workspace, base: Path) -> None:
    spec = fast(workspace, base, patience=2)
    with pytest.raises(UserError) as caught:
        run(replace(spec, data=replace(spec.data, heldout=0.0)), workspace.jobs / "job", workspace)
    assert caught.value.key == "train.best_needs_heldout"


class Silent:
    def note(self, *_: object, **__: object) -> None: ...


@pytest.mark.parametrize(
    ("losses", "best", "early"),
    [
        ([3.0, 2.0, 1.0, 0.5], 4, None),
        ([3.0, 2.0, 2.0, 2.5, 2.4], 2, 4),  # an equal loss is no better one
        ([3.0, 4.0, 2.9, 3.0, 2.8, 2.9], 5, None),
    ],
)
def test_patience_is_counted_in_evaluations(losses: list[float], best: int, early: int | None, tmp_path: Path) -> None:
    watch = SimpleNamespace(spare=None)
    kept = Best(tmp_path, WatchSpec(patience=2), watch, Silent())
    control = SimpleNamespace(should_training_stop=False, should_save=False)
    for step, loss in enumerate([9.0, *losses]):  # the first is the base's
        if not control.should_training_stop:
            state = SimpleNamespace(global_step=step, max_steps=100)
            kept.on_evaluate(None, state, control, {"eval_loss": loss})
    assert (kept.step, kept.early, watch.spare) == (best, early, best)
