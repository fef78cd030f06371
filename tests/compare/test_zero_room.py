from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assets.files import Workspace
from compare.engine import ChangesAsked, Delta, Loaded, Phase
from compare.local_engine import LocalEngine
from compare.zero_room import ZeroRoom
from tests.compare.shelf import SHORT, Shelf, answer, load, say


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).prepare()


def test_read_here_computed_there_as_the_local_engine_would(shelf: Shelf, workspace: Workspace) -> None:
    """The second half is another process's on ZeroGPU; here it is the same one, and its device the CPU."""
    room = ZeroRoom(workspace, "cpu")
    phases = [event for event in room.load(shelf.pair()) if isinstance(event, Phase)]
    assert phases[0] == Phase("engine.phase.read") and len(phases) > 10
    assert room.weight_bytes > 10_000 and all(group.decoder is None for group in room._groups)
    local = LocalEngine(workspace)
    expected = load(local, shelf.pair())
    texts, _ = answer(local, say("안녕하세요"))
    said = {"a": "", "b": ""}
    for event in room.stream(say("안녕하세요"), None, SHORT):  # the first call of a fork need not be the check
        if isinstance(event, Delta):
            said[event.arm] += event.text
    assert said == texts and texts["a"] != texts["b"]
    (loaded,) = room.settle()
    assert isinstance(loaded, Loaded) and loaded.arms == expected.arms and loaded.weights == "nf4"
    assert loaded.check.adapter_error is not None and loaded.check.adapter_error <= loaded.check.tolerance
    changes = list(room.changes(ChangesAsked("a", "b", say("안녕하세요")["a"], None, texts)))
    assert len(changes) == 1


def test_weights_for_a_gpu_are_quantised_on_the_host_in_its_precision(shelf: Shelf, workspace: Workspace) -> None:
    room = ZeroRoom(workspace)
    for _ in room.load(shelf.pair()):
        pass
    model = room._groups[0]._model
    linear = model.model.layers[0].mlp.down_proj
    assert type(linear).__name__ == "Linear4bit" and linear.weight.device == torch.device("cpu")
    assert model.dtype == linear.compute_dtype == torch.bfloat16
    assert linear.weight.bnb_quantized and not any(hasattr(module, "_hf_hook") for module in model.modules())
    room.unload()
    assert room._groups == []
