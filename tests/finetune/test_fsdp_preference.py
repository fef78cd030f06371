"""A round on votes over two ranks under FSDP2: the same losses and the same adapter as in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from assets.files import Workspace
from finetune import train
from finetune.spec import DataSpec
from tests.finetune.preference_rows import KEPT, pair, store
from tests.finetune.two_ranks import a_spec, launch, losses
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore")


def test_dpo_goes_on_from_an_adapter_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARANHI_HOME", str(tmp_path))
    workspace = Workspace(tmp_path).prepare()
    base = make_model(tmp_path / "base", "llama")
    plain = a_spec(tmp_path, base, steps=2, accumulation=2)
    (workspace.jobs / "parent").mkdir()
    assert train.run(plain, workspace.jobs / "parent", workspace) == 0
    file = store(workspace, [pair(q, n) for n, q in enumerate(KEPT[:16])])
    spec = replace(plain, data=DataSpec(file, "preferences", heldout=0.0), objective="dpo", start="jobs/parent/adapter")
    alone, shards = workspace.jobs / "alone", workspace.jobs / "shards"
    alone.mkdir()
    schedule = replace(spec.schedule, steps=3)
    assert train.run(replace(spec, schedule=replace(schedule, accumulation=2)), alone, workspace) == 0
    done = launch(replace(spec, schedule=replace(schedule, accumulation=1)), shards, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert losses(shards) == pytest.approx(losses(alone), abs=2e-4) and len(losses(shards)) == 3
    one, two = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (alone, shards))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-3
