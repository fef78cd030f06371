from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from assets.errors import UserError
from assets.files import Workspace
from compare.engine import (
    Arm,
    ArmInfo,
    Changes,
    ChangesAsked,
    Delta,
    Done,
    Loaded,
    LoadSpec,
    Message,
    PaneCheck,
    Phase,
    Sampling,
)
from compare.zero_engine import LEAST, MEMORY, MOST, Call, ZeroEngine, call_seconds, refusal
from tests.fake_spaces import FakeSpaces, error

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
SPEC = LoadSpec((Arm("a", "base"), Arm("b", "base", "adapter")))
SLOW = Sampling(max_new_tokens=1000)
CHANGES = ChangesAsked("a", "b", [], None, {})


class ScriptedRoom:
    """Says its own state: what was read before the fork, the process, and how many calls this process has had."""

    def __init__(self, workspace: Workspace, weight_bytes: int = 10**9) -> None:
        self.weight_bytes = weight_bytes
        self.adapter, self.calls, self.here = "", 0, os.getpid()
        self.over = threading.Event()

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        for share in range(4):
            yield Phase("engine.phase.quantise", share / 4)
        self.adapter = str(spec.arms[1].adapter)

    def settle(self) -> Iterator[Loaded]:
        assert os.getpid() != self.here
        if self.adapter == "wrong":
            raise UserError("engine.adapter_changes_nothing", adapter="wrong")
        infos = {key: ArmInfo("t", "r", None, 0) for key in "ab"}
        yield Loaded("cuda:0", 1, infos, PaneCheck(0, 0, 1, 0.1), {"pid": str(os.getpid())})

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        self.over.clear()
        self.calls += 1
        told = str(next(iter(turns.values()))[-1]["content"])
        if told == "lost":
            os._exit(1)
        return self._say(list(turns), told, sampling.max_new_tokens)

    def _say(self, arms: list[str], told: str, tokens: int) -> Iterator[Delta | Done]:
        yield from (Delta(arm, f"{self.adapter} {os.getpid()} {self.calls}") for arm in arms)
        if told == "lost later":
            os._exit(1)
        if told == "fault":
            raise ValueError("not a sentence")
        for _ in range(tokens if told == "slow" else 0):
            if self.over.wait(0.02):
                yield from (Done(arm, "cancelled", 1) for arm in arms)
                return
            yield from (Delta(arm, ".") for arm in arms)
        yield from (Done(arm, "stop", 1, 0.0, 5.0) for arm in arms)

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        yield Changes((), None, None)

    def cancel(self) -> None:
        self.over.set()

    def unload(self) -> None:
        self.adapter = ""


@pytest.fixture
def gpu() -> FakeSpaces:
    return FakeSpaces()


@pytest.fixture
def engine(tmp_path: Path, gpu: FakeSpaces) -> ZeroEngine:
    return ZeroEngine(Workspace(tmp_path).prepare(), gpu.GPU, ScriptedRoom)


def say(text: str = "one") -> dict[str, list[Message]]:
    return {arm: [{"role": "user", "content": text}] for arm in ("a", "b")}


def answer(engine: ZeroEngine, text: str = "one") -> tuple[dict[str, list[str]], dict[str, Done]]:
    """The words of each arm, and how each ended."""
    said: dict[str, str] = {"a": "", "b": ""}
    ends = {}
    for event in engine.stream(say(text), None, SLOW):
        if isinstance(event, Delta):
            said[event.arm] += event.text
        else:
            ends[event.arm] = event
    return {arm: text.split() for arm, text in said.items()}, ends


def test_the_function_is_known_before_anything_is_loaded(engine: ZeroEngine, gpu: FakeSpaces) -> None:
    assert gpu.decorated == 1 and gpu.forks == 0 and engine.loaded is None
    with pytest.raises(UserError, match="not_loaded"):
        next(engine.stream(say(), None, SLOW))


def test_both_answers_come_from_one_call_and_adapters_stay_for_the_next(engine: ZeroEngine, gpu: FakeSpaces) -> None:
    events = list(engine.load(SPEC))
    assert events[0] == Phase("engine.phase.start") and events[-1] == engine.loaded
    assert gpu.forks == len(gpu.asked) == 1  # only the check took a GPU
    first, ends = answer(engine)
    assert {end.reason for end in ends.values()} == {"stop"} and ends["a"].seconds_to_first > 0
    second, _ = answer(engine)
    assert gpu.forks == len(gpu.asked) == 3
    for said in (first, second):
        assert said["a"] == said["b"] and said["a"][0] == "adapter"
    assert first["a"][1] != second["a"][1] and first["a"][2] == second["a"][2] == "1"  # another process each


def test_a_fork_is_used_again_as_long_as_its_gpu_is_lent(engine: ZeroEngine, gpu: FakeSpaces) -> None:
    gpu.idle = True
    list(engine.load(SPEC))
    assert [answer(engine)[0]["a"][2] for _ in range(2)] == ["1", "2"] and gpu.forks == 1


def test_a_fork_older_than_the_models_is_replaced(engine: ZeroEngine, gpu: FakeSpaces) -> None:
    gpu.idle = True
    list(engine.load(SPEC))
    old = int(engine.loaded.versions["pid"]) if engine.loaded else 0
    list(engine.load(LoadSpec((Arm("a", "base"), Arm("b", "base", "other")))))
    assert engine.loaded is not None and int(engine.loaded.versions["pid"]) != old
    assert answer(engine)[0]["b"][0] == "other" and gpu.forks == 2
    until = time.monotonic() + 5
    while time.monotonic() < until and Path(f"/proc/{old}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{old}").exists(), "it gives its part of the GPU's memory back"


def test_cancelling_ends_both_and_the_next_is_whole(engine: ZeroEngine) -> None:
    list(engine.load(SPEC))
    threading.Timer(0.3, engine.cancel).start()
    started = time.monotonic()
    _, ends = answer(engine, "slow")
    assert {end.reason for end in ends.values()} == {"cancelled"} and time.monotonic() - started < 3
    assert {end.reason for end in answer(engine)[1].values()} == {"stop"}


def test_closing_early_ends_the_call(engine: ZeroEngine) -> None:
    list(engine.load(SPEC))
    events = engine.stream(say("slow"), None, SLOW)
    next(events)
    started = time.monotonic()
    events.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 2
    assert {end.reason for end in answer(engine)[1].values()} == {"stop"}


def test_what_cannot_be_put_to_the_models_arrives_as_a_sentence(engine: ZeroEngine) -> None:
    with pytest.raises(UserError) as told:
        list(engine.load(LoadSpec((Arm("a", "base"), Arm("b", "base", "wrong")))))
    assert told.value.key == "engine.adapter_changes_nothing" and told.value.values == {"adapter": "wrong"}
    assert engine.loaded is None


def test_a_gpu_that_is_taken_away_ends_the_answers(engine: ZeroEngine) -> None:
    list(engine.load(SPEC))
    for text, key in (("lost later", "zero.aborted"), ("fault", "engine.failed")):
        said, ends = answer(engine, text)
        assert said["a"][0] == "adapter"
        assert {(end.reason, end.error) for end in ends.values()} == {("error", key)}
    with pytest.raises(UserError, match=r"zero\.aborted"):
        answer(engine, "lost")
    assert {end.reason for end in answer(engine)[1].values()} == {"stop"}


QUOTA = "ZeroGPU quota exceeded"


@pytest.mark.parametrize(
    ("raised", "key", "values"),
    [
        (
            error(
                QUOTA, "You have exceeded your free ZeroGPU quota (60s requested vs. 3s left). Try again in 3:07:12. "
            ),
            "zero.quota_until",
            {"wait": "3:07:12"},
        ),
        (error(QUOTA, "You have exceeded your ZeroGPU runs limit. "), "zero.quota", {}),
        (error(QUOTA, "Space app has reached its GPU limit. Try re-running outside of examples"), "zero.quota", {}),
        (error(QUOTA, "No GPU was available after 60s. Try re-running outside"), "zero.no_gpu", {}),
        (error("ZeroGPU queue timeout", "No GPU was available after 60s. Retry later"), "zero.no_gpu", {}),
        (error("ZeroGPU client error", "Expired ZeroGPU proxy token"), "zero.no_gpu", {}),
        (error("ZeroGPU illegal duration", "The requested GPU duration (180s) is larger"), "zero.too_long", {}),
        (error("ZeroGPU pending credits exceeded", "You have too many"), "zero.pending", {}),
        (error("ZeroGPU worker error", "GPU task aborted"), "zero.aborted", {}),
        (error("ZeroGPU worker error", "ValueError"), "engine.failed", {}),
        (RuntimeError("ZeroGPU API /schedule error: 500"), "zero.failed", None),
    ],
)
def test_what_zerogpu_refuses_is_said(
    engine: ZeroEngine, gpu: FakeSpaces, raised: Exception, key: str, values: dict[str, Any] | None
) -> None:
    told = refusal(raised)
    assert told.key == key and (values is None or told.values == values)
    list(engine.load(SPEC))
    gpu.refuse = raised
    with pytest.raises(UserError) as refused:
        next(engine.stream(say(), None, SLOW))
    assert refused.value.key == key


def test_loading_can_be_cancelled_while_it_reads(engine: ZeroEngine, gpu: FakeSpaces) -> None:
    events = engine.load(SPEC)
    next(events)
    engine.cancel()
    with pytest.raises(UserError, match="load_cancelled"):
        list(events)
    assert engine.loaded is None and gpu.forks == 0


def test_more_than_is_lent_is_refused_before_a_gpu_is_asked_for(tmp_path: Path, gpu: FakeSpaces) -> None:
    engine = ZeroEngine(Workspace(tmp_path).prepare(), gpu.GPU, lambda w: ScriptedRoom(w, MEMORY + 1))
    with pytest.raises(UserError, match=r"zero\.too_large"):
        list(engine.load(SPEC))
    assert gpu.forks == 0 and engine.loaded is None


def test_what_tuning_changed_is_one_call_more(engine: ZeroEngine, gpu: FakeSpaces) -> None:
    list(engine.load(SPEC))
    assert list(engine.changes(CHANGES)) == [Changes((), None, None)] and gpu.forks == 2
    engine.unload()
    assert engine.loaded is None
    with pytest.raises(UserError, match="not_loaded"):
        list(engine.changes(CHANGES))


def test_seconds_grow_with_the_answer_and_the_model() -> None:
    small, large = 2 * 10**9, 6 * 10**9
    assert call_seconds("stream", 0, 0) == LEAST and call_seconds("stream", large, 10**6) == MOST
    assert call_seconds("stream", small, 256) < call_seconds("stream", large, 256) < call_seconds("stream", large, 1024)
    assert call_seconds("stream", large, 256) <= 30, "an anonymous visitor has two minutes a day"


def test_the_call_asks_for_those_seconds(engine: ZeroEngine, gpu: FakeSpaces) -> None:
    list(engine.load(SPEC))
    answer(engine)
    assert gpu.asked == [call_seconds("settle", 10**9, 0), call_seconds("stream", 10**9, 1000)]


def test_what_crosses_is_pickled_whole() -> None:
    call = Call(1, 2, "stream", (say(), "system", Sampling()), 20)
    for value in (call, Delta("a", "가"), Done("a", "stop", 3), Changes((), None, None), UserError("zero.quota", a=1)):
        back = pickle.loads(pickle.dumps(value))
        assert repr(back) == repr(value) and type(back) is type(value)


def test_the_app_elsewhere_never_imports_torch_for_it() -> None:
    asked = "import sys, compare.zero_engine; print('torch' in sys.modules, 'compare.zero_room' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
