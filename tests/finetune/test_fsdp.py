"""Two real ranks against one process: the same losses, the same adapter, the same base bytes, going on from each other's
checkpoints.

Every rank computes on conversations that one process computes on too, in the same micro-batches, so the passes are the
same kernels on the same shapes; only the order in which gradients are added may differ. ``CLOSE`` allows for that.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import Workspace, read_json
from assets.hub import locate
from assets.quantised import copy_folder, find_copy
from finetune import train
from finetune.progress import read
from tests.finetune.two_ranks import a_spec, launch, losses
from tests.models import make_model

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
CLOSE = 1e-4
SHAPE = {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 256}


class Silent:
    def write(self, *_: object, **__: object) -> None: ...


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One workspace with two runs of the same batches: "one" in this process, "two" on two ranks."""
    root = tmp_path_factory.mktemp("ranks") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARANHI_HOME", str(root))
        for name in ("NARANHI_JOB", "NARANHI_SUPERVISOR"):
            patch.delenv(name, raising=False)
        Workspace.from_environment().prepare()
        make_model(root / "base", "llama_untied", **SHAPE)
        assert alone(root, "one", a_spec(root, root / "base", accumulation=2)) == 0
        done = launch(a_spec(root, root / "base"), root / "jobs" / "two", root)
        assert done.returncode == 0, done.stderr[-4000:]
        yield root


def alone(home: Path, name: str, spec: Any) -> int:
    folder = home / "jobs" / name
    folder.mkdir(parents=True, exist_ok=True)
    return train.run(spec, folder, Workspace(home))


def cut(home: Path, name: str, new: str) -> Path:
    """A run as it was after its checkpoint at step 2."""
    folder = home / "jobs" / new
    shutil.copytree(home / "jobs" / name, folder)
    shutil.rmtree(folder / "checkpoints" / "checkpoint-4")
    shutil.rmtree(folder / "adapter")
    (folder / "run.json").unlink()
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("step", 0) <= 2]
    (folder / "metrics.jsonl").write_text("".join(kept), encoding="utf-8")
    return folder


def adapter(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def close(one: Path, other: Path) -> bool:
    first, second = losses(one), losses(other)
    return first.keys() == second.keys() and all(abs(first[k] - second[k]) < CLOSE for k in first)


def test_two_ranks_learn_what_one_learns(home: Path) -> None:
    one, two = home / "jobs" / "one", home / "jobs" / "two"
    assert len(losses(two)) == 4 and close(one, two)
    for before, after in zip(read(one).evals, read(two).evals, strict=True):
        assert abs(before["loss"] - after["loss"]) < CLOSE
    first, second = adapter(one), adapter(two)
    assert first.keys() == second.keys()
    assert all((first[name] - second[name]).abs().max() < 1e-3 for name in first)
    assert not (two / "checkpoints" / "checkpoint-4" / "pytorch_model_fsdp.bin").exists()


def test_the_canary_saw_every_layer_and_the_same_base(home: Path) -> None:
    one, two = (read_json(home / "jobs" / name / "run.json") for name in ("one", "two"))
    layers = SHAPE["num_hidden_layers"] * 7
    assert one["canary"] | {"sha256": ""} == {
        "modules": layers,
        "of": layers,
        "sharded": 0,
        "ranks": 1,
        "placement": "single",
        "sha256": "",
    }
    assert two["canary"] == one["canary"] | {"sharded": layers, "ranks": 2, "placement": "fsdp"}
    assert read(home / "jobs" / "two").facts["canary"] == layers
    assert len(two["ranks"]) == 2


def test_shards_are_read_from_a_copy_in_four_bits(home: Path) -> None:
    """The canary's fingerprint above says that its bytes are those of quantising while loading."""
    from safetensors import safe_open

    files = locate(Workspace(home), str(home / "base"))
    copy = find_copy(Workspace(home), files)
    assert copy is not None and (copy / "tokenizer.json").exists()
    with safe_open(copy / "model-00001.safetensors", framework="pt") as file:
        assert str(file.get_tensor("model.layers.0.mlp.up_proj.weight").dtype) == "torch.float32"
    assert read(home / "jobs" / "two").facts["quantised"] == 1.0


def test_the_same_ranks_go_on_bit_by_bit(home: Path) -> None:
    folder = cut(home, "two", "two-two")
    done = launch(a_spec(home, home / "base"), folder, home)
    assert done.returncode == 0, done.stderr[-4000:]
    assert losses(folder) == losses(home / "jobs" / "two")
    assert [note["key"] for note in read(folder).notes] == ["train.resumed"]
    before, after = adapter(home / "jobs" / "two"), adapter(folder)
    assert all((before[name] == after[name]).all() for name in before)


def test_one_process_goes_on_where_two_were(home: Path) -> None:
    """The spec still says one micro-batch per step; the checkpoint's batch of two is kept by accumulating."""
    folder = cut(home, "two", "two-one")
    assert alone(home, "two-one", a_spec(home, home / "base")) == 0
    assert close(folder, home / "jobs" / "one")
    note = read(folder).notes[-1]
    assert (note["key"], note["values"]) == ("train.resumed_ranks", {"before": 2, "now": 1})


def test_two_go_on_where_one_was(home: Path) -> None:
    folder = cut(home, "one", "one-two")
    done = launch(a_spec(home, home / "base"), folder, home)
    assert done.returncode == 0, done.stderr[-4000:]
    assert close(folder, home / "jobs" / "one")


def test_a_checkpoint_of_another_run_is_refused(home: Path) -> None:
    cut(home, "one", "other")
    spec = a_spec(home, home / "base", accumulation=2)
    other = make_model(home / "other-base", "llama_untied", seed=1, **SHAPE)
    for changed, word in (
        (replace(spec, model=replace(spec.model, id=str(other))), "base"),
        (replace(spec, data=replace(spec.data, heldout=0.5)), "heldout"),
        (replace(spec, lora=replace(spec.lora, rank=8)), "lora.rank"),
    ):
        with pytest.raises(UserError) as caught:
            alone(home, "other", changed)
        assert caught.value.key == "train.resume_differs" and f"{word}: " in str(caught.value.values["difference"])
    with pytest.raises(UserError) as caught:
        alone(home, "other", a_spec(home, home / "base", micro_batch=4))
    assert caught.value.key == "train.batch_indivisible"


@pytest.mark.parametrize(("rank", "placement"), [("1", "fsdp"), ("0", "ddp")])
def test_one_flipped_byte_ends_every_rank(rank: str, placement: str, home: Path) -> None:
    folder = home / "jobs" / f"flip-{placement}"
    done = launch(a_spec(home, home / "base"), folder, home, placement, accident=f"{rank}:flip")
    assert done.returncode != 0
    errors = [read_json(folder / f"error.{r}.json") for r in (0, 1)]
    assert {error["key"] for error in errors} == {"train.canary"}
    assert all("proj" in error["values"]["module"] for error in errors)
    assert not (folder / "adapter").exists() and not losses(folder)


def test_gemma_2_with_packing(home: Path) -> None:
    base = make_model(home / "gemma", "gemma2")
    assert alone(home, "gemma-one", a_spec(home, base, accumulation=2, packing=True, steps=2)) == 0
    folder = home / "jobs" / "gemma-two"
    done = launch(a_spec(home, base, packing=True, steps=2), folder, home)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(losses(folder)) == 2 and close(folder, home / "jobs" / "gemma-one")
    assert copy_folder(Workspace(home), locate(Workspace(home), str(base))).is_dir()
