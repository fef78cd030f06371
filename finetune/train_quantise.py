"""Make the copy of a model in 4 bits that every rank, every later run and the comparison load.

Covers: NF4 with double quantisation, packed as float32, tensor by tensor with the memory of one shard, progress, going
on after an interruption. Does not cover: where copies are (assets/quantised.py) or loading them (train_model.py).
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.quantizers import AutoHfQuantizer

from assets.errors import UserError
from assets.files import Workspace, lock, write_json
from assets.hub import ModelFiles
from assets.multimodal import TEXT_NAMES
from assets.quantised import NF4, RECORD, copy_folder, find_copy, source_of
from finetune import train_ranks as ranks
from finetune.spec import TrainSpec
from finetune.train_canary import quantised_layers
from finetune.train_model import compute_dtype, quantisation

SHARD = 2 * 2**30
NF4_BYTES = 0.53


def ensure(workspace: Workspace, files: ModelFiles, spec: TrainSpec, report: Any) -> Path:
    """The folder of the copy, made by the first rank of this machine while the others wait for it."""
    from finetune.train_trainer import precision_of

    while (found := find_copy(workspace, files)) is None:
        if ranks.local_rank():
            time.sleep(1)
            continue
        with lock(copy_folder(workspace, files), timeout=-1):
            if find_copy(workspace, files) is None:
                quantise(workspace, files, compute_dtype(precision_of(spec)), report)
    return found


def quantise(workspace: Workspace, files: ModelFiles, dtype: torch.dtype, report: Any, shard: int = SHARD) -> Path:
    """Write the copy; what an interrupted attempt left is kept. UserError when the disk is too small for it or the
    checkpoint's tensors are not those of its architecture."""
    folder = copy_folder(workspace, files)
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    config, layers, wanted = _architecture(files.folder, dtype)
    sources = {_own_name(name): (path, name) for path, name in _tensors(files.folder)}
    missing = sorted(wanted - set(sources))
    if missing:
        raise UserError("train.cannot_quantise", model=files.id, names=", ".join(missing[:3]))
    _check_disk(sources, layers, part)
    _convert({n: s for n, s in sources.items() if n in wanted}, layers, dtype, part, report, shard)
    _finish(files, config, dtype, part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def _architecture(folder: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any], set[str]]:
    """The configuration of the copy, its 4-bit layers by weight name, and the names of all tensors that it needs."""
    config = AutoConfig.from_pretrained(folder)
    if config.model_type == "gemma3":
        config = config.text_config
        config.architectures = ["Gemma3ForCausalLM"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    quantiser = AutoHfQuantizer.from_config(quantisation(dtype))
    quantiser._process_model_before_weight_loading(model, device_map=None)
    config.quantization_config = quantisation(dtype)
    config.dtype = dtype
    layers = {f"{name}.weight": layer for name, layer in quantised_layers(model).items()}
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    return config, layers, set(model.state_dict()) - tied


def _own_name(name: str) -> str:
    """A tensor's name in the text model, for checkpoints that hold more than that."""
    for pattern, own in TEXT_NAMES.items():
        name = re.sub(pattern, own, name)
    return name


def _tensors(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            yield from ((path, name) for name in file.keys())  # noqa: SIM118


def _check_disk(sources: dict[str, tuple[Path, str]], layers: dict[str, Any], part: Path) -> None:
    total = sum(layer.in_features * layer.out_features for layer in layers.values())
    whole = sum(path.stat().st_size for path in {path for path, _ in sources.values()})
    need = min(whole, int(total * NF4_BYTES) + max(0, whole - 2 * total))
    have = shutil.disk_usage(part).free + sum(f.stat().st_size for f in part.iterdir())
    if need > have:
        raise UserError("train.quantise_disk", need=f"{need / 2**30:.1f}", have=f"{have / 2**30:.1f}")


def _convert(
    sources: dict[str, tuple[Path, str]],
    layers: dict[str, Any],
    dtype: torch.dtype,
    part: Path,
    report: Any,
    shard: int,
) -> None:
    device = torch.device("cuda", ranks.local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    done = {name for _, name in _tensors(part)}
    buffer: dict[str, torch.Tensor] = {}
    for count, (name, (path, key)) in enumerate(sources.items()):
        if name in done:
            continue
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(key)
        buffer |= _packed(name, tensor, dtype, device) if name in layers else {name: _cast(tensor, dtype)}
        if sum(t.nbytes for t in buffer.values()) >= shard:
            _save(buffer, part)
            buffer = {}
        report.write("facts", quantised=round((count + 1) / len(sources), 4))
    if buffer:
        _save(buffer, part)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _packed(name: str, tensor: torch.Tensor, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    from bitsandbytes.nn import Params4bit

    options = {
        "quant_type": NF4["bnb_4bit_quant_type"],
        "compress_statistics": NF4["bnb_4bit_use_double_quant"],
        "quant_storage": getattr(torch, str(NF4["bnb_4bit_quant_storage"])),
    }
    weight = Params4bit(tensor.to(device, dtype), requires_grad=False, **options).to(device)
    constants = weight.quant_state.as_dict(packed=True)
    return {name: weight.data.cpu(), **{f"{name}.{key}": value.cpu() for key, value in constants.items()}}


def _save(tensors: dict[str, torch.Tensor], part: Path) -> None:
    """Under its name only when it is whole."""
    number = len(list(part.glob("model-*.safetensors"))) + 1
    temporary = part / "shard.tmp"
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, temporary, metadata={"format": "pt"})
    temporary.rename(part / f"model-{number:05d}.safetensors")


def _finish(files: ModelFiles, config: Any, dtype: torch.dtype, part: Path) -> None:
    """Configuration, index, tokenizer and, last, the record that makes it a whole copy."""
    for path in files.folder.iterdir():
        if path.suffix in (".json", ".jinja", ".model", ".txt") and not path.name.endswith(".index.json"):
            shutil.copyfile(path, part / path.name)
    config.save_pretrained(part)
    places = {name: path.name for path, name in _tensors(part)}
    size = sum(path.stat().st_size for path in part.glob("*.safetensors"))
    write_json(part / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})
    record = {
        "version": 1,
        "source": {"id": files.id, "revision": source_of(files)},
        "dtype": str(dtype).removeprefix("torch."),
        "bitsandbytes": version("bitsandbytes"),
        "files": {path.name: path.stat().st_size for path in part.iterdir() if path.name != RECORD},
    }
    write_json(part / RECORD, record)
