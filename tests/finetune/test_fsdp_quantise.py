"""The copy in 4 bits: the bytes of quantising while loading, made once, going on after an interruption; checkpoints that
others quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import Workspace
from assets.hub import ModelFiles, locate
from assets.quantised import NF4, RECORD, copy_folder, find_copy
from finetune.spec import DataSpec, ModelSpec, TrainSpec
from tests.models import ARCHITECTURES, make_model

pytestmark = pytest.mark.filterwarnings("ignore")


class Notes:
    def __init__(self, stop_after: int = 10**9) -> None:
        self.shares: list[float] = []
        self._stop_after = stop_after

    def write(self, event: str, **values: Any) -> None:
        self.shares.append(values.get("quantised", 0.0))
        if len(self.shares) == self._stop_after:
            raise KeyboardInterrupt


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home").prepare()


def model_files(workspace: Workspace, tmp_path: Path, architecture: str = "llama", **changes: Any) -> ModelFiles:
    return locate(workspace, str(make_model(tmp_path / "base", architecture, **changes)))


def fingerprint(folder: Path) -> tuple[str, int]:
    from finetune.train_canary import Canary
    from finetune.train_model import load_base

    model = load_base(folder, TrainSpec(ModelSpec("m"), DataSpec("d")), "bfloat16", "cpu")
    canary = Canary(model, Notes())
    return canary.fingerprint, canary.modules


def quantise(workspace: Workspace, files: ModelFiles, notes: Notes | None = None, shard: int = 1 << 14) -> Path:
    import torch

    from finetune.train_quantise import quantise as make

    return make(workspace, files, torch.bfloat16, notes or Notes(), shard)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_copy_is_what_quantising_while_loading_gives(
    architecture: str, workspace: Workspace, tmp_path: Path
) -> None:
    files = model_files(workspace, tmp_path, architecture)
    notes = Notes()
    folder = quantise(workspace, files, notes)
    assert find_copy(workspace, files) == folder and (folder / "chat_template.jinja").exists()
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert notes.shares == sorted(notes.shares) and notes.shares[-1] == 1.0
    assert fingerprint(folder) == fingerprint(files.folder)
    assert not_quantised(folder) == not_quantised(files.folder)


def not_quantised(folder: Path) -> dict[str, float]:
    from finetune.train_model import load_base

    model = load_base(folder, TrainSpec(ModelSpec("m"), DataSpec("d")), "bfloat16", "cpu")
    whole = {name: p for name, p in model.named_parameters() if "proj" not in name}
    return {name: float(p.double().abs().sum()) for name, p in whole.items()}


def test_a_float32_checkpoint_gives_the_same_bytes_too(workspace: Workspace, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    files = model_files(workspace, tmp_path)
    weights = {k: v.float() * 1.01 for k, v in load_file(files.folder / "model.safetensors").items()}
    save_file(weights, files.folder / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(quantise(workspace, files)) == fingerprint(files.folder)


def test_an_interrupted_copy_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    files = model_files(workspace, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        quantise(workspace, files, Notes(stop_after=8))
    assert find_copy(workspace, files) is None
    part = copy_folder(workspace, files).with_name(f".{copy_folder(workspace, files).name}.part")
    before = {path: path.stat().st_mtime_ns for path in part.glob("model-*.safetensors")}
    (part / "shard.tmp").write_bytes(b"torn")
    assert before
    again = Notes()
    folder = quantise(workspace, files, again)
    assert {(folder / path.name).stat().st_mtime_ns for path in before} == set(before.values())
    assert again.shares[0] > 0.1 and not part.exists() and not (folder / "shard.tmp").exists()
    assert fingerprint(folder) == fingerprint(files.folder)


def test_a_copy_cut_short_is_none(workspace: Workspace, tmp_path: Path) -> None:
    files = model_files(workspace, tmp_path)
    folder = quantise(workspace, files)
    shard = next(folder.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert find_copy(workspace, files) is None
    (folder / RECORD).unlink()
    assert find_copy(workspace, files) is None


def test_another_base_has_another_copy(workspace: Workspace, tmp_path: Path) -> None:
    files = model_files(workspace, tmp_path)
    quantise(workspace, files)
    make_model(files.folder, "llama", seed=1)
    assert find_copy(workspace, locate(workspace, files.id)) is None


def test_tensors_that_are_not_there_are_named(workspace: Workspace, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    files = model_files(workspace, tmp_path)
    weights = load_file(files.folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, files.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        quantise(workspace, files)
    assert caught.value.key == "train.cannot_quantise" and "layers.1.mlp.up_proj" in str(caught.value.values["names"])


def test_a_full_disk_is_seen_before(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    files = model_files(workspace, tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError) as caught:
        quantise(workspace, files)
    assert caught.value.key == "train.quantise_disk"


@pytest.mark.parametrize("storage", ["uint8", "bfloat16"])
def test_public_checkpoints_of_other_storage_are_seen_as_float32(
    storage: str, workspace: Workspace, tmp_path: Path
) -> None:
    """The same bytes, so the same fingerprint as our own; only the view differs."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    files = model_files(workspace, tmp_path)
    config = BitsAndBytesConfig(**{**NF4, "bnb_4bit_quant_storage": storage}, bnb_4bit_compute_dtype=torch.bfloat16)
    options = {"dtype": torch.bfloat16, "device_map": {"": "cpu"}, "quantization_config": config}
    AutoModelForCausalLM.from_pretrained(files.folder, **options).save_pretrained(tmp_path / "public")
    assert fingerprint(tmp_path / "public") == fingerprint(files.folder)


def test_the_comparison_loads_the_copy_that_training_made(workspace: Workspace, tmp_path: Path) -> None:
    """The weights are read from the copy, and the answer stays what it was."""
    from compare.engine import Arm, Done, LoadSpec, Sampling
    from compare.local_engine import LocalEngine

    def answer() -> tuple[int, str]:
        engine = LocalEngine(workspace)
        list(engine.load(LoadSpec((Arm("a", str(tmp_path / "base")),))))
        turns = {"a": [{"role": "user", "content": "안녕"}]}
        events = list(engine.stream(turns, None, Sampling(temperature=0, max_new_tokens=12)))
        engine.unload()
        return next((e.tokens, str(e.reason)) for e in events if isinstance(e, Done))

    files = model_files(workspace, tmp_path)
    before = answer()
    copy = quantise(workspace, files)
    assert find_copy(workspace, files) == copy
    read: list[Path] = []
    import compare.local_engine_group as engine_module

    original = engine_module.load_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            engine_module, "load_model", lambda f, *rest, **more: (read.append(f.folder), original(f, *rest, **more))[1]
        )
        assert answer() == before
    assert read == [copy]
