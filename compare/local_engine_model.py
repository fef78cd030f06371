"""One base model in memory, in 4-bit NF4 or as it is, on one device or layer by layer on several.

Covers: which class, dtype and attention a checkpoint needs, quantising while it is read, progress, errors as sentences.
Does not cover: where files come from (assets/hub.py), adapters (decode_lora.py), which layer goes where (spread.py).
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from accelerate.hooks import remove_hook_from_submodules
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, Gemma3ForCausalLM
from transformers.utils import logging as transformers_logging

from assets.attention import attention_for
from assets.errors import UserError
from assets.hub import ModelFiles
from assets.multimodal import TEXT_NAMES
from assets.quantised import NF4
from compare.decode_fused import prepare
from compare.decode_norm import fuse_norms
from compare.decode_stages import Stage, device_map, lay_out

T = TypeVar("T")
NF4_BYTES = 0.53


class _Stopped(Exception):
    pass


def pick_device(wanted: str) -> torch.device:
    """For "auto" the first CUDA device, else the CPU. UserError for a device that is not there."""
    if wanted == "auto":
        wanted = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError("engine.no_device", device=wanted)
    return device


def pick_dtype(device: torch.device, quantise: bool) -> torch.dtype:
    """bfloat16 wherever the hardware computes in it, else float16 on CUDA and float32 on a CPU."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if quantise and _packs() else torch.float32


def load_model(
    files: ModelFiles,
    quantise: bool,
    device: torch.device,
    kernels: bool = True,
    stages: Sequence[Stage] = (),
    meant_for: torch.device | None = None,
) -> Generator[float, None, Any]:
    """Read and quantise a checkpoint; yields the share done and returns the model, ready for inference.

    ``kernels``: give it our own for decode steps, where they work (decode_fused.py). ``stages``: where its layers go
    when there are several devices, of which ``device`` is the first. ``meant_for``: where it will be moved to and compute
    (move_model), when that is not where it is read.

    UserError when it is pickled, needs code of its own, is of an unknown architecture, or does not fit. A checkpoint
    that is already quantised stays as it is. Closing the generator stops the reading at the next tensor.
    """
    if not list(files.folder.glob("*.safetensors")):
        raise UserError("engine.no_safetensors", model=files.id)
    try:
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except ValueError as error:
        key = "engine.needs_remote_code" if "trust_remote_code" in str(error) else "engine.unknown_architecture"
        raise UserError(key, model=files.id) from error
    quantised = getattr(config, "quantization_config", None) is not None
    if len(stages) < 2:  # else the plan has looked at the room
        _check_room(files, quantise and not quantised, device)
    on_gpu = (meant_for or device).type == "cuda"
    dtype = torch.bfloat16 if on_gpu and device.type == "cpu" else pick_dtype(device, quantise)
    options: dict[str, Any] = {
        "dtype": dtype,
        "device_map": _device_map(config, device, stages),
        "use_safetensors": True,
        "attn_implementation": attention_for(config, on_gpu),
    }
    if quantise and not quantised:  # an explicit None would switch off the detection of quantised checkpoints
        options["quantization_config"] = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype)
    try:
        model = yield from _with_progress(lambda: _read(files.folder, config, options))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError("engine.no_memory", model=files.id) from error
    if len(stages) > 1:
        remove_hook_from_submodules(model)  # accelerate's, which copy what a layer reads anew for every layer
        lay_out(model, stages)
    _prepare(model)
    if kernels and device.type == "cuda":
        model.decode_kernels = prepare(model)
    return model


def move_model(model: Any, device: torch.device) -> Any:
    """A model that was read on the host for this device, onto it."""
    moved = model.to(device)
    if device.type == "cuda":
        fuse_norms(moved)
    return moved


def memory_held(device: torch.device) -> int:
    """Bytes: allocated on the CUDA device, or resident in this process."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def _device_map(config: Any, device: torch.device, stages: Sequence[Stage]) -> dict[str, torch.device]:
    """For ``from_pretrained``. The host's memory is one, however many devices are played on it."""
    if len(stages) < 2 or all(stage.device.type == "cpu" for stage in stages):
        return {"": torch.device("cpu") if device.type == "cpu" else device}
    text = config.text_config if config.model_type == "gemma3" else config
    with torch.device("meta"):
        return device_map(AutoModelForCausalLM.from_config(text), stages)


def _read(folder: Path, config: Any, options: dict[str, Any]) -> Any:
    if config.model_type == "gemma3":
        # The multimodal class would bring its vision tower along; its language part is a class of its own.
        text = config.text_config
        if getattr(config, "quantization_config", None) is not None:
            text.quantization_config = config.quantization_config
        return Gemma3ForCausalLM.from_pretrained(folder, config=text, key_mapping=TEXT_NAMES, **options)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, trust_remote_code=False, **options)


def _packs() -> bool:
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def _prepare(model: Any) -> None:
    """Inference mode; bitsandbytes' packed CPU kernel only for the shapes that it can take (it asserts on others)."""
    from bitsandbytes.nn import Linear4bit

    model.eval().requires_grad_(False)
    if model.device.type == "cuda":
        fuse_norms(model)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            whole = module.in_features % max(64, state.blocksize) == 0 and module.out_features % 32 == 0
            module.support_avx512bf16_for_cpu = module.support_avx512bf16_for_cpu and whole


def _check_room(files: ModelFiles, quantise: bool, device: torch.device) -> None:
    """UserError("engine.no_memory") when the weights alone are larger than what is free."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    needed = sum(_bytes_needed(path, quantise) for path in files.folder.glob("*.safetensors"))
    if needed > free:
        raise UserError("engine.no_memory", model=files.id)


def _bytes_needed(path: Path, quantise: bool) -> float:
    """From the file's header alone: layers' matrices in NF4, the rest at two bytes; quantised files as they are."""
    if not quantise:
        return path.stat().st_size
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0.0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        count = 1
        for size in entry["shape"]:
            count *= size
        layer = len(entry["shape"]) == 2 and not any(part in name for part in ("embed", "lm_head"))
        total += count * (NF4_BYTES if layer else 2)
    return total


def _with_progress(work: Callable[[], T]) -> Generator[float, None, T]:
    """Run ``work`` in a thread and yield the shares that transformers' progress bars report meanwhile."""
    shares: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    stopped = threading.Event()
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # handed to the caller's thread, where it is raised
            failure.append(error)
        finally:
            shares.put(None)

    def bar(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        return _watched(args[0], shares, stopped)

    before = transformers_logging.set_tqdm_hook(bar)
    thread = threading.Thread(target=run, name="read-model", daemon=True)
    try:
        thread.start()
        while (share := shares.get()) is not None:
            yield share
    finally:
        stopped.set()
        thread.join()
        transformers_logging.set_tqdm_hook(before)
    if failure:
        raise failure[0]
    return result[0]


def _watched(items: Any, shares: queue.SimpleQueue[float | None], stopped: threading.Event) -> Iterator[Any]:
    for i, item in enumerate(items):
        if stopped.is_set():
            raise _Stopped
        shares.put(i / len(items))
        yield item
