"""Two real ranks against one process: the same losses, the same adapter, the same base bytes, going on from each other's
checkpoints.

Every rank computes on conversations that one process computes on too, in the same micro-batches, so the passes are the
same kernels on the same shapes; only the order in which gradients are added may differ. ``CLOSE`` allows for that in
float32. bfloat16 keeps 8 bits, so that a weight which differs in its last bit can move a loss by ``CLOSE_BFLOAT16``.
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
from assets.quantised import NF4, copy_folder, find_copy
from finetune import train
from finetune.progress import read
from tests.finetune.two_ranks import a_spec, launch, losses
from tests.models import make_model

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
CLOSE, CLOSE_BFLOAT16 = 1e-5, 5e-3
EXACT: dict[str, Any] = {"precision": "float32"}
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
        assert alone(root, "one", a_spec(root, root / "base", accumulation=2, **EXACT)) == 0
        done = launch(a_spec(root, root / "base", **EXACT), root / "jobs" / "two", root)
        assert done.returncode == 0, done.stderr[-4000:]
        (root / "two.log").write_text(done.stdout + done.stderr, encoding="utf-8")
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


def close(one: Path, other: Path, tolerance: float = CLOSE) -> bool:
    first, second = losses(one), losses(other)
    return first.keys() == second.keys() and all(abs(first[k] - second[k]) < tolerance for k in first)


def test_two_ranks_learn_what_one_learns(home: Path) -> None:
    one, two = home / "jobs" / "one", home / "jobs" / "two"
    assert len(losses(two)) == 4 and close(one, two)
    for before, after in zip(read(one).evals, read(two).evals, strict=True):
        assert abs(before["loss"] - after["loss"]) < CLOSE
    first, second = adapter(one), adapter(two)
    assert first.keys() == second.keys()
    assert all((first[name] - second[name]).abs().max() < CLOSE for name in first)
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


def test_sample_answers_come_from_shards_too(home: Path) -> None:
    one, two = (read(home / "jobs" / name).samples for name in ("one", "two"))
    assert [row["step"] for row in one] == [0, 2, 4] and one[-1]["answer"]
    assert [(row["step"], row["answer"]) for row in two] == [(row["step"], row["answer"]) for row in one]


def test_the_log_does_not_recommend_what_would_empty_the_adapter(home: Path) -> None:
    assert "redundant AllGather" not in (home / "two.log").read_text(encoding="utf-8")


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
    done = launch(a_spec(home, home / "base", **EXACT), folder, home)
    assert done.returncode == 0, done.stderr[-4000:]
    assert losses(folder) == losses(home / "jobs" / "two")
    assert [note["key"] for note in read(folder).notes] == ["train.resumed"]
    before, after = adapter(home / "jobs" / "two"), adapter(folder)
    assert all((before[name] == after[name]).all() for name in before)


def test_one_process_goes_on_where_two_were(home: Path) -> None:
    """The spec still says one micro-batch per step; the checkpoint's batch of two is kept by accumulating."""
    folder = cut(home, "two", "two-one")
    assert alone(home, "two-one", a_spec(home, home / "base", **EXACT)) == 0
    assert close(folder, home / "jobs" / "one")
    note = read(folder).notes[-1]
    assert (note["key"], note["values"]) == ("train.resumed_ranks", {"before": 2, "now": 1})


def test_two_go_on_where_one_was(home: Path) -> None:
    folder = cut(home, "one", "one-two")
    done = launch(a_spec(home, home / "base", **EXACT), folder, home)
    assert done.returncode == 0, done.stderr[-4000:]
    assert close(folder, home / "jobs" / "one")


def test_a_checkpoint_of_another_run_is_refused(home: Path) -> None:
    cut(home, "one", "other")
    spec = a_spec(home, home / "base", accumulation=2, **EXACT)
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
        alone(home, "other", a_spec(home, home / "base", micro_batch=4, **EXACT))
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


@pytest.mark.parametrize(("accident", "key"), [("1:other", "train.ranks_differ"), ("all:whole", "train.not_sharded")])
def test_ranks_that_do_not_fit_together_end_before_the_first_step(accident: str, key: str, home: Path) -> None:
    """One has other data; or accelerate left FSDP out, as it does where it knows no accelerator."""
    folder = home / "jobs" / key
    done = launch(a_spec(home, home / "base"), folder, home, accident=accident)
    assert done.returncode != 0
    errors = [read_json(folder / f"error.{r}.json") for r in (0, 1)]
    assert [error["key"] for error in errors] == [key, key] and not losses(folder)
    if key == "train.ranks_differ":
        assert errors[0]["values"]["rank"] == 1 and "data: " in errors[0]["values"]["what"]


def test_gemma_2_with_packing_from_a_public_checkpoint(home: Path) -> None:
    """One that was quantised by others and packed as bytes, which FSDP2 as it comes would not shard."""
    base = quantised_by_others(make_model(home / "gemma-whole", "gemma2"), home / "gemma")
    assert alone(home, "gemma-one", a_spec(home, base, accumulation=2, packing=True, steps=2)) == 0
    folder = home / "jobs" / "gemma-two"
    done = launch(a_spec(home, base, packing=True, steps=2), folder, home)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(losses(folder)) == 2 and close(folder, home / "jobs" / "gemma-one", CLOSE_BFLOAT16)
    canary = read_json(folder / "run.json")["canary"]
    assert canary["modules"] == canary["of"] == canary["sharded"] > 0
    assert not copy_folder(Workspace(home), locate(Workspace(home), str(base))).exists()


def quantised_by_others(whole: Path, folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    config = BitsAndBytesConfig(**{**NF4, "bnb_4bit_quant_storage": "uint8"}, bnb_4bit_compute_dtype=torch.bfloat16)
    options = {"dtype": torch.bfloat16, "device_map": {"": "cpu"}, "quantization_config": config}
    AutoModelForCausalLM.from_pretrained(whole, **options).save_pretrained(folder)
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    return folder
