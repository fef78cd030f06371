"""One adapter folder, made here or elsewhere, looked into without torch.

Covers: what a PEFT LoRA folder says about itself (Unsloth, LLaMA-Factory and TRL write the same), the record of the run
where there is one, what cannot be compared here and why. Does not cover: where folders are (adapters.py), whether one
fits a base (adapter_match.py), loading it (decode_lora.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.files import read_json
from compare.tensor_file import Tensor, look_at, read_header

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
RUN_VERSION = 1
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")
_LENGTHS = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_magnitude_vector(?:\.default)?(?:\.weight)?")  # DoRA's
# Options of LoraConfig under which an adapter is more, or other, than base + scale * B A, each with its reason.
_REFUSED: Mapping[str, str] = {
    "modules_to_save": "adapters.modules_to_save",
    "trainable_token_indices": "adapters.trained_tokens",
    "lora_bias": "adapters.bias",
    "target_parameters": "adapters.option",
    "layer_replication": "adapters.option",
    "alora_invocation_tokens": "adapters.option",
    "use_qalora": "adapters.option",
    "use_bdlora": "adapters.option",
    "arrow_config": "adapters.option",
    "kasa_config": "adapters.option",
    "velora_config": "adapters.option",
    "monteclora_config": "adapters.option",
    "fan_in_fan_out": "adapters.option",
}
# These start from changed base weights, so that on the plain base the adapter computes something else.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")


@dataclass(frozen=True)
class Module:
    """One tuned linear layer: its name in the model and the shape of B A, ``outputs`` x ``inputs``."""

    name: str
    rank: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Adapter:
    """An adapter folder. ``rank`` is the largest; ``targets`` the layers' short names; ``size`` the weights in bytes.

    ``every_layer`` is True when it was made for all layers of its base. What only run.json tells is None without one;
    ``finished_at`` is in seconds since 1970, ``template`` is Jinja text.
    """

    folder: Path
    name: str
    base_id: str
    base_revision: str | None
    rank: int
    alpha: float
    targets: tuple[str, ...]
    kind: str
    trained_parameters: int
    size: int
    modules: tuple[Module, ...] = field(repr=False)
    every_layer: bool = False
    template: str | None = field(default=None, repr=False)
    template_hash: str | None = None
    system: str | None = None
    date: str | None = None
    steps: int | None = None
    finished_at: float | None = None
    dataset: Mapping[str, Any] | None = None

    @cached_property
    def sha256(self) -> str:
        """Of adapter_model.safetensors; read when first asked for."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return file_digest(file, "sha256").hexdigest()


def inspect(folder: Path, check_values: bool = True) -> Adapter:
    """What is in an adapter folder. UserError with the reason for one that cannot be compared here.

    ``check_values`` False leaves out reading the weights (NaN, "changes nothing"), as a list of many adapters may.
    """
    config = _config(folder)
    tensors = read_header(folder / WEIGHTS)
    modules = _modules(tensors, folder.name, bool(config.get("use_dora")))
    if check_values:
        _check_values(folder, tensors)
    run = _run(folder)
    base = run.get("base") or {}
    return Adapter(
        folder=folder,
        name=run.get("name") or folder.name,
        base_id=base.get("id") or config.get("base_model_name_or_path") or "",
        base_revision=base.get("revision") or config.get("revision"),
        rank=max(module.rank for module in modules),
        alpha=_alpha(config, folder.name),
        targets=tuple(sorted({module.name.rsplit(".", 1)[-1] for module in modules})),
        kind="dora" if config.get("use_dora") else "rslora" if config.get("use_rslora") else "lora",
        trained_parameters=sum(tensor.numbers for tensor in tensors),
        size=(folder / WEIGHTS).stat().st_size,
        modules=modules,
        every_layer=_every_layer(config),
        template=run.get("template"),
        template_hash=run.get("template_hash"),
        system=run.get("system"),
        date=run.get("date"),
        steps=(run.get("metrics") or run).get("steps"),
        finished_at=_seconds(run.get("finished_at")),
        dataset=run.get("dataset"),
    )


def _config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, refused where it says that the adapter is not a plain LoRA."""
    if not (folder / CONFIG).is_file():
        raise UserError("adapters.no_config", folder=folder.name)
    if not (folder / WEIGHTS).is_file():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise UserError("adapters.pickled" if pickled else "adapters.no_weights", folder=folder.name)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("adapters.bad_config", folder=folder.name) from error
    if not isinstance(config, dict):
        raise UserError("adapters.bad_config", folder=folder.name)
    kind = str(config.get("peft_type") or "LORA").upper()
    if kind != "LORA":
        raise UserError("adapters.not_lora", folder=folder.name, kind=kind)
    for option, reason in _REFUSED.items():
        if value := config.get(option):
            listed = ", ".join(map(str, value)) if isinstance(value, list) else option
            raise UserError(reason, folder=folder.name, option=listed if reason != "adapters.option" else option)
    if config.get("bias", "none") != "none":
        raise UserError("adapters.bias", folder=folder.name, option=config["bias"])
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise UserError("adapters.changes_base", folder=folder.name, option=start)
    return config


def _alpha(config: Mapping[str, Any], folder: str) -> float:
    alpha = config.get("lora_alpha", 8)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise UserError("adapters.bad_config", folder=folder)
    return float(alpha)


def _modules(tensors: Iterable[Tensor], folder: str, dora: bool) -> tuple[Module, ...]:
    halves: dict[str, dict[str, Tensor]] = {}
    lengths: dict[str, Tensor] = {}
    for tensor in tensors:
        if dora and (match := _LENGTHS.fullmatch(tensor.name)):
            lengths[match["module"]] = tensor
            continue
        match = _NAME.fullmatch(tensor.name)
        if match is None or "_orig_mod" in tensor.name:
            embeddings = "embed" in tensor.name or tensor.name.endswith("lm_head.weight")
            key = "adapters.embeddings" if embeddings else "adapters.other_tensor"
            raise UserError(key, folder=folder, tensor=tensor.name)
        halves.setdefault(match["module"], {})[match["half"]] = tensor
    if not halves:
        raise UserError("adapters.empty", folder=folder)
    modules = tuple(_module(name, pair, folder) for name, pair in sorted(halves.items()))
    if dora and {name: tensor.shape for name, tensor in lengths.items()} != {m.name: (m.outputs,) for m in modules}:
        raise UserError("adapters.dora", folder=folder)
    return modules


def _module(name: str, pair: Mapping[str, Tensor], folder: str) -> Module:
    if set(pair) != {"A", "B"}:
        raise UserError("adapters.half", folder=folder, module=name)
    down, up = pair["A"].shape, pair["B"].shape
    if len(down) != 2 or len(up) != 2 or down[0] != up[1] or 0 in (*down, *up):
        raise UserError("adapters.shapes", folder=folder, module=name)
    return Module(name, rank=down[0], inputs=down[1], outputs=up[0])


def _check_values(folder: Path, tensors: Iterable[Tensor]) -> None:
    nonzero: dict[str, set[str]] = {}
    for tensor in tensors:
        values = look_at(folder / WEIGHTS, tensor)
        if not values.finite:
            raise UserError("adapters.not_finite", folder=folder.name, tensor=tensor.name)
        match = _NAME.fullmatch(tensor.name)
        if match and values.any_nonzero:
            nonzero.setdefault(match["module"], set()).add(match["half"])
    if not any(halves == {"A", "B"} for halves in nonzero.values()):
        raise UserError("adapters.changes_nothing", folder=folder.name)


def _every_layer(config: Mapping[str, Any]) -> bool:
    """Whether the adapter was made for all layers of its base: short names and no choice of layers."""
    targets = config.get("target_modules")
    short = isinstance(targets, list) and all("." not in str(name) for name in targets)
    return short and config.get("layers_to_transform") is None and not config.get("exclude_modules")


def _run(folder: Path) -> dict[str, Any]:
    """run.json inside the folder or beside it; {} when there is none of ours."""
    for path in (folder / "run.json", folder.parent / "run.json"):
        if not path.is_file():
            continue
        try:
            run = read_json(path)
        except ValueError as error:
            raise UserError("adapters.bad_run", folder=folder.name) from error
        if isinstance(run, dict) and isinstance(run.get("base"), dict):
            if run.get("version", 0) > RUN_VERSION:
                raise UserError("adapters.newer_run", folder=folder.name)
            return run
    return {}


def _seconds(when: str | float | None) -> float | None:
    """Seconds since 1970 of a number or of an ISO 8601 text."""
    return datetime.fromisoformat(when).timestamp() if isinstance(when, str) else when
