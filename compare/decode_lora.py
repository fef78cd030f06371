"""LoRA adapters applied to single rows of a batch, so that base and tuned model answer in one pass.

Covers: reading a PEFT LoRA folder (Unsloth, LLaMA-Factory and TRL write the same) and adding each adapter to its row by
forward hooks; the base row gets exactly nothing. Does not cover: DoRA's lengths (decode_dora.py), adapters that change more
than linear layers (trained embeddings, modules_to_save); they are refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from assets.errors import UserError
from compare.decode_dora import gain, stretch
from compare.decode_streams import side_stream

WEIGHTS = "adapter_model.safetensors"
# Options of LoraConfig under which base + scale * B A is not what the adapter computes, or not on top of this base.
_UNSUPPORTED = (
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "fan_in_fan_out",
)
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
_SAME_INPUT = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}
_OTHER_MODALITY = ("vision_tower.", "multi_modal_projector.", "vision_model.", "audio_tower.")


@dataclass(frozen=True)
class Low:
    """One linear layer's share: ``down`` is A transposed [in, r], ``up`` is scale * B transposed [r, out]. With DoRA
    ``gain`` [out] multiplies the layer's own output, and is in ``up`` already."""

    down: torch.Tensor
    up: torch.Tensor
    gain: torch.Tensor | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory. ``parts`` goes by module name within the model; ``sha256`` is that of the weights file."""

    name: str
    parts: Mapping[str, Low]
    sha256: str
    parameters: int


def read_adapter(folder: Path, model: nn.Module, dtype: torch.dtype) -> Adapter:
    """The adapter in ``folder``, placed beside the layers of ``model`` that it tunes.

    UserError when it is missing, pickled, damaged, of a kind that rows cannot carry, or made for another base.
    """
    config = _read_config(folder)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    except SafetensorError as error:
        raise UserError("engine.adapter_damaged", adapter=folder.name) from error
    modules = dict(model.named_modules())
    parts = {}
    for name, (down, up, lengths) in _parts(tensors, folder.name).items():
        found = _find(name, modules)
        if found is None:
            if name.startswith(_OTHER_MODALITY) or any(f".{part}" in name for part in _OTHER_MODALITY):
                continue
            raise UserError("engine.adapter_other_base", adapter=folder.name, module=name)
        part = _fit(modules[found], down, up, _scale(config, name, down.shape[0]), folder.name, found, lengths)
        parts[found] = Low(*(t if t is None else t.to(modules[found].weight.device, dtype).contiguous() for t in part))
    if not parts:
        raise UserError("engine.adapter_damaged", adapter=folder.name)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return Adapter(folder.name, parts, digest, sum(p.down.numel() + p.up.numel() for p in parts.values()))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise UserError("engine.adapter_not_found", adapter=folder.name)
    if not (folder / WEIGHTS).is_file():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise UserError("engine.adapter_pickled" if pickled else "engine.adapter_not_found", adapter=folder.name)
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("engine.adapter_damaged", adapter=folder.name) from error
    reasons = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("peft_type", "LORA") != "LORA":
        reasons.append(str(config["peft_type"]))
    if config.get("bias", "none") != "none":
        reasons.append("bias")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        reasons.append(start)
    if reasons:
        raise UserError("engine.adapter_unsupported", adapter=folder.name, what=", ".join(reasons))
    return config


Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def _parts(tensors: Mapping[str, torch.Tensor], adapter: str) -> dict[str, Part]:
    """Module name -> (A [r, in], B [out, r], with DoRA lengths [out]). Anything else in the file would be lost, so it is
    refused."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_(A|B|magnitude_vector)(?:\.default)?(?:\.weight)?", key)
        if match is None:
            raise UserError("engine.adapter_unsupported", adapter=adapter, what=key)
        found.setdefault(match[1], {})[match[2]] = tensor
    if any(set(pair) - {"magnitude_vector"} != {"A", "B"} for pair in found.values()):
        raise UserError("engine.adapter_damaged", adapter=adapter)
    return {name: (pair["A"], pair["B"], pair.get("magnitude_vector")) for name, pair in found.items()}


def _find(name: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The module's name in this model. Adapters of a multimodal checkpoint name its language part otherwise."""
    others = (name.replace(part, "model.") for part in ("model.language_model.", "language_model.model."))
    for candidate in (name, *others):
        if isinstance(modules.get(candidate), nn.Linear):
            return candidate
    return None


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) with rsLoRA; alpha_pattern by PEFT's rule. The rank is the one in the file."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", name)), None)
    alpha = config["lora_alpha"] if key is None else patterns[key]
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _fit(
    module: nn.Module,
    down: torch.Tensor,
    up: torch.Tensor,
    scale: float,
    adapter: str,
    name: str,
    lengths: torch.Tensor | None,
) -> Part:
    """``down`` and ``up`` as Low has them and its gain, in float32."""
    assert isinstance(module, nn.Linear)
    if down.shape[1] != module.in_features or up.shape[0] != module.out_features or down.shape[0] != up.shape[1]:
        raise UserError("engine.adapter_other_base", adapter=adapter, module=name)
    down, up = down.float(), up.float() * scale
    if lengths is None:
        return down.T, up.T, None
    factor = gain(module, up @ down, lengths, adapter, name)
    return down.T, (up.to(factor.device) * factor[:, None]).T, factor


class RowAdapters:
    """Which adapter goes to which row, and the hooks that put it there.

    Inside ``attached()`` each linear layer's output [rows, q, out] gets its rows' shares added in place. ``low`` says
    which row stands first in the batch, as finished rows at either end are left out.
    """

    def __init__(self, model: nn.Module, adapters: Sequence[Adapter | None]) -> None:
        self._modules = dict(model.named_modules())
        self._by_module: dict[str, list[tuple[int, Low]]] = {}
        self._sides: dict[torch.device, torch.cuda.Stream] = {}
        for row, adapter in enumerate(adapters):
            for name, part in adapter.parts.items() if adapter else ():
                self._by_module.setdefault(name, []).append((row, part))
                if part.up.is_cuda and part.up.device not in self._sides:
                    self._sides[part.up.device] = side_stream(part.up.device, "adapters")
        self._groups = [(names, _joint(names, self._by_module)) for names in _by_input(self._by_module)]

    @contextmanager
    def attached(self, low: int, high: int) -> Iterator[None]:
        """Rows ``low`` to ``high`` make up the batch. The hooks are gone afterwards, whatever happens."""
        handles = []
        try:
            for names, joint in self._groups:
                layers = []
                for name in names:
                    inside = [(row - low, part) for row, part in self._by_module[name] if low <= row < high]
                    if inside:
                        layers.append(_Shares(inside))
                        handles.append(self._modules[name].register_forward_hook(layers[-1].add))
                side = self._sides.get(layers[0].parts[0][1].up.device) if layers else None
                own = {row - low: down for row, down in joint.items() if low <= row < high}
                if side is not None or own:
                    handles.append(self._modules[names[0]].register_forward_pre_hook(_before(layers, own, side)))
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Shares:
    """What adapters add to one layer. ``ready``: for which input a share per part was computed beside it, and when;
    ``inner``: for which input the first half of a share was, by row."""

    def __init__(self, parts: Sequence[tuple[int, Low]]) -> None:
        self.parts = parts
        self.ready: tuple[torch.Tensor, list[torch.Tensor], torch.cuda.Event] | None = None
        self.inner: tuple[torch.Tensor, dict[int, torch.Tensor]] | None = None

    def add(self, module: nn.Linear, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x = inputs[0]
        ready, self.ready = self.ready, None
        if ready is not None and ready[0] is x:
            _, shares, done = ready
            torch.cuda.current_stream(output.device).wait_event(done)
            for (row, part), share in zip(self.parts, shares, strict=True):
                if part.gain is not None:
                    stretch(output[row], part.gain, module.bias)
                output[row] += share
            return
        known, self.inner = self.inner, None
        inner = known[1] if known is not None and known[0] is x else {}
        for row, part in self.parts:
            own = output[row]
            if part.gain is not None:
                stretch(own, part.gain, module.bias)
            first = inner[row] if row in inner else x[row].to(part.down.dtype) @ part.down
            if own.dtype == part.up.dtype:
                own.addmm_(first, part.up)
            else:
                own += first @ part.up


def _joint(names: Sequence[str], by_module: Mapping[str, Sequence[tuple[int, Low]]]) -> dict[int, torch.Tensor]:
    """Per row whose adapter tunes several of the layers ``names``, which read the same input: their A side by side."""
    parts: dict[int, list[torch.Tensor]] = {}
    for name in names:
        for row, part in by_module[name]:
            parts.setdefault(row, []).append(part.down)
    return {row: torch.cat(downs, 1) for row, downs in parts.items() if len(downs) > 1}


def _before(layers: Sequence[_Shares], joint: Mapping[int, torch.Tensor], side: torch.cuda.Stream | None) -> Any:
    """Before the first of ``layers``, which read the same input: of a single token their shares, on ``side``; of more
    the products with A, one for all layers.

    A token's small products leave most of a GPU idle. ``side`` begins when the layers' stream has come here and that
    stream waits before it adds: neither can see memory that the other still uses.
    """

    def begin(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0]
        if x.shape[1] > 1:
            _halve(layers, joint, x)
            return
        if side is None:
            return
        side.wait_stream(torch.cuda.current_stream(side.device))
        with torch.cuda.stream(side):
            for layer in layers:
                shares = [(x[row].to(part.down.dtype) @ part.down) @ part.up for row, part in layer.parts]
                done = torch.cuda.Event()
                done.record(side)
                layer.ready = x, shares, done

    return begin


def _halve(layers: Sequence[_Shares], joint: Mapping[int, torch.Tensor], x: torch.Tensor) -> None:
    """Leave each layer what its rows' adapters have to multiply by B."""
    for layer in layers:
        layer.inner = x, {}
    for row, down in joint.items():
        first = x[row].to(down.dtype) @ down
        place = 0
        for layer in layers:
            for own, part in layer.parts:
                if own == row and layer.inner is not None:
                    rank = part.down.shape[1]
                    layer.inner[1][row] = first[:, place : place + rank]
                    place += rank


def _by_input(names: Iterable[str]) -> list[list[str]]:
    """Layers that read the same tensor, in the order in which they are called."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        parent, _, own = name.rpartition(".")
        groups.setdefault((parent, _SAME_INPUT.get(own, own)), []).append(name)
    order = list(_SAME_INPUT)
    return [
        sorted(group, key=lambda name: order.index(name.rpartition(".")[2]) if len(group) > 1 else 0)
        for group in groups.values()
    ]
