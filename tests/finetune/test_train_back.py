"""Back to the last good checkpoint: which one that is, what is offered, and that a real run goes on from it, slower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import Workspace, read_json
from finetune import supervise, train
from finetune.divergence import Trouble
from finetune.progress import read
from tests.finetune.two_ranks import a_spec
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore")


class Notes:
    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []

    def note(self, key: str, **values: Any) -> None:
        self.notes.append((key, values))


def a_checkpoint(folder: Path, step: int, value: float = 1.0, whole: bool = True) -> Path:
    import torch
    from safetensors.torch import save_file

    from finetune.train_save import mark_complete

    made = folder / "checkpoints" / f"checkpoint-{step}"
    made.mkdir(parents=True)
    save_file({"x.lora_B.weight": torch.full((2, 2), value)}, made / "adapter_model.safetensors")
    (made / "adapter_config.json").write_text("{}")
    for name in ("optimizer.pt", "rng_state.pth", "trainer_state.json", "origin.json"):
        (made / name).write_text(str(step))
    if whole:
        mark_complete(made)
    return made


def test_the_newest_good_one_is_offered_and_bad_ones_go(tmp_path: Path) -> None:
    from finetune.train_back import go_back

    a_checkpoint(tmp_path, 10)
    a_checkpoint(tmp_path, 20)
    a_checkpoint(tmp_path, 22, value=float("nan"))
    a_checkpoint(tmp_path, 24, whole=False)
    a_checkpoint(tmp_path, 29)  # its weights gave the first bad loss
    a_checkpoint(tmp_path, 32)
    notes = Notes()
    told = go_back(tmp_path, Trouble("diverged", 34, 30, 9.0, 1.5), 1e-4, notes)
    assert told == {"key": "train.back.diverged", "values": {"step": 34, "back": 20, "rate": 1e-4}}
    assert notes.notes == [(told["key"], told["values"])]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-10", "checkpoint-20"]
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    ended = supervise._ended(tmp_path, 3, out_of_memory=False)
    assert ended["state"] == "stopped" and ended["error"] == told


def test_with_nothing_to_go_back_to_it_has_failed(tmp_path: Path) -> None:
    from finetune.train_back import go_back

    a_checkpoint(tmp_path, 4)
    with pytest.raises(UserError) as caught:
        go_back(tmp_path, Trouble("diverged", 9, 5, 9.0, 1.5), 2e-4, Notes())
    assert (caught.value.key, caught.value.values["rate"]) == ("train.diverged", 2e-4)
    assert not (tmp_path / "error.json").exists()


def test_a_run_whose_loss_breaks_goes_back_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that become NaN before step 5; checkpoints at 2 and 4; the one at 4 is too close to be trusted."""
    from safetensors.torch import load_file

    from finetune import train_watch

    home = tmp_path / "home"
    monkeypatch.setenv("NARANHI_HOME", str(home))
    monkeypatch.delenv("NARANHI_JOB", raising=False)
    workspace = Workspace.from_environment().prepare()
    spec = a_spec(home, make_model(tmp_path / "base", "llama"), steps=6, warmup=0.0, scheduler="constant")
    folder = workspace.jobs / "job"
    folder.mkdir(parents=True)
    original = train_watch.Watch.on_step_begin

    def poisoned(self: Any, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        if state.global_step == 4:
            next(p for p in model.parameters() if p.requires_grad).data.fill_(float("nan"))
        original(self, args, state, control, model=model, **rest)

    monkeypatch.setattr(train_watch.Watch, "on_step_begin", poisoned)
    assert train.run(spec, folder, workspace) == train.STOPPED
    record = read_json(folder / "run.json")
    assert record["stopped"] is True and record["went_back"] == {
        "key": "train.back.not_a_number",
        "values": {"step": 5, "back": 2, "rate": 1.5e-3},  # advised for rank 4; half would be more
    }
    offered = load_file(folder / "adapter" / "adapter_model.safetensors")
    kept = load_file(folder / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
    assert all((offered[name] == kept[name]).all() for name in kept)
    assert read_json(folder / "adapter" / "run.json")["went_back"] == record["went_back"]

    monkeypatch.setattr(train_watch.Watch, "on_step_begin", original)
    slower = replace(spec, schedule=replace(spec.schedule, learning_rate=1.5e-3))
    assert train.run(slower, folder, workspace) == 0
    seen = read(folder)
    assert [note["key"] for note in seen.notes] == ["train.back.not_a_number", "train.resumed", "train.resumed_rate"]
    rates = {row["step"]: row["learning_rate"] for row in seen.steps}
    assert rates == {1: 5e-3, 2: 5e-3} | dict.fromkeys((3, 4, 5, 6), 1.5e-3)
    assert read_json(folder / "run.json")["went_back"] is None
