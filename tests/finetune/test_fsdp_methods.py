"""DoRA and full fine-tuning in shards, 8 bits as copies: two ranks learn what one process learns from the same batches, and
what cannot be sharded is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from assets.files import Workspace, read_json
from finetune import train
from finetune.progress import read
from finetune.spec import LoraSpec, TrainSpec
from tests.finetune.two_ranks import a_spec, launch, losses
from tests.models import make_model

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
SHAPE = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256}
DORA = LoraSpec(rank=4, alpha=8, dora=True)
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "dora": ({"method": "qlora", "lora": DORA}, "fsdp", "llama_untied"),
    "full": ({"method": "full"}, "fsdp", "llama"),
    "full_untied": ({"method": "full"}, "fsdp", "llama_untied"),
    "qlora8": ({"method": "qlora8"}, "ddp", "llama"),
}
CLOSE = 1e-4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("methods") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARANHI_HOME", str(root))
        for name in ("NARANHI_JOB", "NARANHI_SUPERVISOR"):
            patch.delenv(name, raising=False)
        Workspace.from_environment().prepare()
        for architecture in ("llama", "llama_untied"):
            make_model(root / architecture, architecture, **SHAPE)
        yield root


def spec_for(home: Path, name: str, **schedule: Any) -> TrainSpec:
    settings, _, architecture = CASES[name]
    rate = 1e-3 if settings["method"] == "full" else 5e-3
    made = a_spec(home, home / architecture, precision="float32", learning_rate=rate, **schedule)
    return replace(made, **settings)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_learn_what_one_learns(name: str, home: Path) -> None:
    one, two = home / "jobs" / f"{name}-one", home / "jobs" / f"{name}-two"
    one.mkdir(parents=True)
    assert train.run(spec_for(home, name, accumulation=2), one, Workspace(home)) == 0
    done = launch(spec_for(home, name), two, home, CASES[name][1])
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = losses(one), losses(two)
    assert len(second) == 4 and all(abs(first[step] - second[step]) < CLOSE for step in first)
    for before, after in zip(read(one).others, read(two).others, strict=True):
        assert before["domain"] == after["domain"] and abs(before["loss"] - after["loss"]) < CLOSE
    saved, other = (weights(folder) for folder in (one, two))
    assert saved.keys() == other.keys()
    assert all((saved[k].float() - other[k].float()).abs().max() < 5e-3 for k in saved)
    assert read_json(two / "run.json")["environment"]["placement"] == CASES[name][1]


def weights(folder: Path) -> dict[str, Any]:
    found = [*folder.glob("adapter/adapter_model.safetensors"), *folder.glob("model/*.safetensors")]
    return {name: tensor for path in found for name, tensor in load_file(path).items()}


def test_a_whole_model_goes_on_from_shards(home: Path) -> None:
    """Two ranks stop after the first step; one process goes on from their checkpoint."""
    folder = home / "jobs" / "full-cut"
    folder.mkdir(parents=True)
    (folder / "stop").touch()
    done = launch(spec_for(home, "full"), folder, home)
    assert done.returncode == 0, done.stderr[-4000:]
    assert read_json(folder / "run.json")["stopped"] is True
    (folder / "stop").unlink()
    assert train.run(spec_for(home, "full"), folder, Workspace(home)) == 0
    first, second = losses(home / "jobs" / "full-one"), losses(folder)
    assert first.keys() == second.keys() and all(abs(first[step] - second[step]) < CLOSE for step in first)
