"""Whether an adapter belongs on a base.

Covers: the same id, a known mirror of it, else the shapes of the tuned layers against the base's config.json. Does not
cover: whether the weights are the ones it was trained on, which shapes cannot tell (the engine checks that the adapter
answers differently from its base).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from assets.catalog import ModelCard, find_model
from assets.errors import UserError
from compare.adapter_folder import Adapter, Module

How = Literal["same", "mirror", "shapes", "unchecked"]
_OTHER_MODALITY = ("vision_tower", "multi_modal_projector", "vision_model", "audio_tower")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_KEYS: Mapping[str, str] = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
}


@dataclass(frozen=True)
class Match:
    """How the two were found to fit. ``note`` is something to tell the person: a key of the strings with its values.

    "unchecked": the ids are unknown and no tuned layer is one whose sizes a config.json tells.
    """

    how: How
    note: tuple[str, Mapping[str, object]] | None = None


def match_base(
    adapter: Adapter,
    base_config: Mapping[str, Any],
    base_id: str,
    find: Callable[[str], ModelCard | None] = find_model,
) -> Match:
    """Whether ``adapter`` fits the base with this config.json. UserError("adapters.other_shape") or
    ("adapters.other_depth") says what differs."""
    ids = [name for name in (base_id, str(base_config.get("_name_or_path") or "")) if name]
    made_for, here = find(adapter.base_id), next((card for name in ids if (card := find(name))), None)
    sizes = _Sizes.of(base_config.get("text_config") or base_config, here)
    modules = [module for module in adapter.modules if not any(part in module.name for part in _OTHER_MODALITY)]
    checked = [_check(adapter, module, sizes.linears(), base_id) for module in modules]
    _check_layers(adapter, modules, sizes.layers, base_id)
    if any(name.lower() == adapter.base_id.lower() for name in ids):
        return Match("same")
    if made_for and here and made_for.id == here.id:
        return Match("mirror")
    how: How = "shapes" if any(checked) else "unchecked"
    note = "adapters.note.other_weights" if made_for and here else f"adapters.note.{how}"
    return Match(how, (note, {"made_for": adapter.base_id or "?", "base": base_id}))


@dataclass(frozen=True)
class _Sizes:
    """A decoder's widths; None for what nobody tells."""

    layers: int | None
    hidden: int | None
    intermediate: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    vocab: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any], card: ModelCard | None) -> _Sizes:
        """From config.json; what it leaves to its class's defaults (Gemma 3 does) comes from the catalogue."""
        found = {name: config[key] for name, key in _KEYS.items() if isinstance(config.get(key), int)}
        if "heads" in found and "hidden" in found:
            found.setdefault("head_dim", found["hidden"] // found["heads"])
            found.setdefault("kv_heads", found["heads"])
        known = dict(card.shape) if card else {}
        return cls(**{name: found.get(name, known.get(name)) for name in _KEYS})

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """(inputs, outputs) of the linear layers whose sizes are known, by their short names."""
        hidden, inner, heads, kv = self.hidden, self.intermediate, self.heads, self.kv_heads
        sizes: dict[str, tuple[int, int]] = {}
        if hidden and inner:
            sizes |= dict.fromkeys(("gate_proj", "up_proj"), (hidden, inner))
            sizes |= {"down_proj": (inner, hidden), "gate_up_proj": (hidden, 2 * inner)}
        if hidden and heads and kv and self.head_dim:
            q, k = heads * self.head_dim, kv * self.head_dim
            sizes |= {"q_proj": (hidden, q), "k_proj": (hidden, k), "v_proj": (hidden, k), "o_proj": (q, hidden)}
            sizes |= {"qkv_proj": (hidden, q + 2 * k)}
        if hidden and self.vocab:
            sizes |= {"lm_head": (hidden, self.vocab)}
        return sizes


def _check(adapter: Adapter, module: Module, sizes: Mapping[str, tuple[int, int]], base_id: str) -> bool:
    """Whether the sizes of this layer are known; UserError when they are and differ."""
    expected = sizes.get(module.name.rsplit(".", 1)[-1])
    if expected and expected != (module.inputs, module.outputs):
        raise UserError(
            "adapters.other_shape",
            **_both(adapter, base_id),
            module=module.name,
            found=f"{module.outputs}×{module.inputs}",
            expected=f"{expected[1]}×{expected[0]}",
        )
    return expected is not None


def _check_layers(adapter: Adapter, modules: list[Module], layers: int | None, base_id: str) -> None:
    numbers = [int(match[1]) for module in modules if (match := _LAYER.search(module.name))]
    if not numbers or layers is None:
        return
    found = max(numbers) + 1
    if found > layers or (adapter.every_layer and found < layers):
        raise UserError("adapters.other_depth", **_both(adapter, base_id), found=found, expected=layers)


def _both(adapter: Adapter, base_id: str) -> dict[str, str]:
    return {"adapter": adapter.name, "made_for": adapter.base_id or "?", "base": base_id}
