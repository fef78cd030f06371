"""Tiny models and adapters made once for all tests of the local engine, and how to ask it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from assets.errors import UserError
from compare.engine import Arm, Delta, Done, Loaded, LoadSpec, Message, Phase, Sampling
from compare.local_engine import LocalEngine
from tests.models import ARCHITECTURES, make_adapter, make_model

SHORT = Sampling(temperature=1.2, max_new_tokens=16, seed=3)


class Shelf:
    """Models and adapters, made when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bases = {name: make_model(root / name, name) for name in ARCHITECTURES}
        self.adapters = {name: make_adapter(base, root / f"{name}-tuned") for name, base in self.bases.items()}

    def pair(self, name: str = "llama") -> LoadSpec:
        base = str(self.bases[name])
        return LoadSpec((Arm("a", base), Arm("b", base, str(self.adapters[name]))))


def load(engine: LocalEngine, spec: LoadSpec) -> Loaded:
    *phases, loaded = engine.load(spec)
    assert all(isinstance(phase, Phase) for phase in phases) and isinstance(loaded, Loaded)
    return loaded


def say(text: str, *arms: str) -> dict[str, list[Message]]:
    return {arm: [{"role": "user", "content": text}] for arm in arms or ("a", "b")}


def answer(
    engine: LocalEngine, turns: Mapping[str, list[Message]], sampling: Sampling = SHORT
) -> tuple[dict[str, str], dict[str, Done]]:
    texts, ends = dict.fromkeys(turns, ""), {}
    for event in engine.stream(turns, None, sampling):
        if isinstance(event, Delta):
            texts[event.arm] += event.text
        else:
            ends[event.arm] = event
    return texts, ends


def refusal(engine: LocalEngine, spec: LoadSpec) -> str:
    with pytest.raises(UserError) as caught:
        list(engine.load(spec))
    assert engine.loaded is None
    return caught.value.key
