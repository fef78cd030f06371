"""One model whose layers lie on several devices, one stretch of layers after the other.

Covers: which module goes where, bringing what a layer reads to its device, and where the first and the last layer are.
All rows of all arms pass through together, as on one device. Steps are not recorded: every launch comes from the host.
Does not cover: how many layers a device gets (spread.py), reading the weights (local_engine_model.py). Rehearsed on
CPUs; not measured on several cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Stage:
    """So many consecutive layers on one device."""

    device: torch.device
    layers: int


def layers_of(model: Any) -> tuple[str, nn.ModuleList]:
    """Name and list of the decoder's layers. ValueError for a model that has none."""
    base = model.base_model
    lists = [(name, part) for name, part in base.named_children() if isinstance(part, nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of layers")
    name, found = max(lists, key=lambda named: len(named[1]))
    return (f"{model.base_model_prefix}.{name}" if base is not model else name), found


def device_map(model: Any, stages: Sequence[Stage]) -> dict[str, torch.device]:
    """Module name -> device, for ``from_pretrained``. ``model`` may be without weights.

    What comes after the layers lies with the last of them, but a head that shares the embedding's weights lies with it.
    """
    first, last = stages[0].device, stages[-1].device
    name, layers = layers_of(model)
    places = _places(stages, len(layers))
    found = {f"{name}.{number}": device for number, device in enumerate(places)}
    prefix = name.rpartition(".")[0]
    norms = [part for part, module in model.base_model.named_children() if "norm" in part and module is not layers]
    for part, _ in model.base_model.named_children():
        own = f"{prefix}.{part}" if prefix else part
        if own != name:
            found[own] = last if part in norms else first
    head = model.get_output_embeddings()
    for own, module in model.named_children():
        if own != (prefix or name).partition(".")[0]:
            found[own] = first if module is head and _tied(model) else last
    return found


def lay_out(model: Any, stages: Sequence[Stage]) -> None:
    """Let a model whose modules lie as ``device_map`` says run in one pass over all devices."""
    _, layers = layers_of(model)
    places = _places(stages, len(layers))
    mover = _Mover()
    for layer, device in zip(layers, places, strict=True):
        layer.register_forward_pre_hook(mover.to(device), with_kwargs=True)
    for part, module in model.base_model.named_children():
        if "norm" in part and module is not layers:
            module.register_forward_pre_hook(mover.to(places[-1]), with_kwargs=True)
    head = model.get_output_embeddings()
    head.register_forward_pre_hook(mover.to(places[0] if _tied(model) else places[-1]), with_kwargs=True)
    model.base_model.register_forward_hook(mover.forget)
    model.layer_devices = tuple(places)


def layer_devices(model: Any) -> tuple[torch.device, ...]:
    """The device of each layer of a model that was laid out; empty for one that lies on a single device."""
    found: tuple[torch.device, ...] = getattr(model, "layer_devices", ())
    return found


def first_device(model: Any) -> torch.device:
    """Where tokens go in."""
    places = layer_devices(model)
    device: torch.device = places[0] if places else model.get_input_embeddings().weight.device
    return device


def _places(stages: Sequence[Stage], count: int) -> list[torch.device]:
    places = [stage.device for stage in stages for _ in range(stage.layers)]
    if len(places) != count:
        raise ValueError(f"{len(places)} layers planned, the model has {count}")
    return places


def _tied(model: Any) -> bool:
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))


class _Mover:
    """Brings tensors to devices. What all layers read (masks, angles) is copied once per pass and device."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}

    def to(self, device: torch.device) -> Any:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            moved = tuple(_moved(value, device) for value in args)  # the hidden states: new in every layer
            return moved, {name: self._shared(value, device) for name, value in kwargs.items()}

        return before

    def forget(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The pass is over. Copies that a failed one leaves are never taken for others' and go with the next."""
        self._copies.clear()

    def _shared(self, value: Any, device: torch.device) -> Any:
        if isinstance(value, torch.Tensor):
            key = (id(value), device)
            known = self._copies.get(key)
            if known is None or known[0] is not value:
                known = self._copies[key] = (value, _moved(value, device))
            return known[1]
        if isinstance(value, (tuple, list)):
            return type(value)(self._shared(item, device) for item in value)
        if isinstance(value, dict):
            return {name: self._shared(item, device) for name, item in value.items()}
        return value


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
