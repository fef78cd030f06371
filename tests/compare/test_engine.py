from __future__ import annotations

import math
import pickle
import subprocess
import sys

import pytest

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare.engine import PHASES, Arm, Done, Loaded, LoadSpec, Phase, Sampling
from tests.fakes import ScriptedEngine

SPEC = LoadSpec((Arm("a", "base"), Arm("b", "base", "adapter")))


def test_arms_need_different_keys() -> None:
    with pytest.raises(ValueError, match="different keys"):
        LoadSpec((Arm("a", "x"), Arm("a", "y")))
    with pytest.raises(ValueError, match="different keys"):
        LoadSpec(())


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_p": -1},
        {"top_k": -1},
        {"max_new_tokens": -1},
        {"seed": -1},
        {"repetition_penalty": 0},
        {"repetition_penalty": math.inf},
    ],
)
def test_what_cannot_be_drawn_is_named(bad: dict[str, float]) -> None:
    with pytest.raises(UserError) as caught:
        Sampling(**bad)  # type: ignore[arg-type]
    assert caught.value.values["name"] in bad


def test_extreme_but_possible_sampling_is_taken() -> None:
    Sampling(temperature=5, top_p=0, max_new_tokens=0, seed=1 << 80)
    Sampling(temperature=0, top_p=3)


def test_every_phase_has_words() -> None:
    for language in LANGUAGES:
        words = Words(language)
        assert all(key in words for key in PHASES)


def test_events_survive_a_pipe() -> None:
    events = [*ScriptedEngine().load(SPEC), Done("a", "error", error="engine.died"), UserError("engine.busy", x=1)]
    again = pickle.loads(pickle.dumps(events))
    assert again[:-1] == events[:-1]
    assert (again[-1].key, again[-1].values) == ("engine.busy", {"x": 1})


def test_the_fake_is_an_engine() -> None:
    engine = ScriptedEngine(pause=0)
    with pytest.raises(UserError, match="not_loaded"):
        engine.stream({}, None, Sampling())
    kinds = [type(event) for event in engine.load(SPEC)]
    assert kinds == [Phase, Phase, Loaded]
    turns = {key: [{"role": "user", "content": "one two"}] for key in ("a", "b")}
    events = list(engine.stream(turns, None, Sampling()))
    assert [event.arm for event in events] == ["a", "b"] * 3
    assert {event.reason for event in events if isinstance(event, Done)} == {"stop"}


def test_the_protocol_imports_nothing_heavy() -> None:
    code = "import sys, compare.engine, compare.worker; print({'torch', 'transformers', 'gradio'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
