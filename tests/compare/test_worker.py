from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assets.errors import UserError
from assets.files import Workspace
from assets.leases import holder
from compare.engine import Arm, Changes, ChangesAsked, Delta, Done, Loaded, LoadSpec, Message, Phase, Sampling
from compare.worker import WorkerEngine
from tests.models import make_adapter, make_model

SPEC = LoadSpec((Arm("a", "base"), Arm("b", "base", "adapter")))
SLOW = Sampling(max_new_tokens=1000)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[WorkerEngine]:
    worker = WorkerEngine(Workspace(tmp_path).prepare(), tmp_path / "engine.log", "tests.fakes:ScriptedEngine")
    yield worker
    worker.unload()


def say(text: str, *arms: str) -> dict[str, list[Message]]:
    return {arm: [{"role": "user", "content": text}] for arm in arms or ("a", "b")}


def gone(pid: int, within: float = 2.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def answers(engine: WorkerEngine, text: str = "one two") -> dict[str, Done]:
    return {event.arm: event for event in engine.stream(say(text), None, Sampling()) if isinstance(event, Done)}


def assert_works(engine: WorkerEngine) -> None:
    assert {arm: done.reason for arm, done in answers(engine).items()} == {"a": "stop", "b": "stop"}


def test_load_stream_unload(engine: WorkerEngine) -> None:
    assert (engine.health, engine.pid) == ("stopped", None)
    events = list(engine.load(SPEC))
    assert events[0] == Phase("engine.phase.start")
    assert isinstance(events[-1], Loaded) and engine.loaded == events[-1]
    assert (engine.health, engine.pid) == ("ready", int(events[-1].versions["pid"]))
    assert engine.pid != os.getpid()
    stream = list(engine.stream(say("하나 둘"), None, Sampling()))
    assert "".join(e.text for e in stream if isinstance(e, Delta) and e.arm == "a") == "하나둘"
    pid, start = engine.pid or 0, time.monotonic()
    engine.unload()
    assert gone(pid, 0.1) and time.monotonic() - start < 2
    assert engine.pid is None and not engine.loaded
    with pytest.raises(UserError, match="not_loaded"):
        next(engine.stream(say("x"), None, Sampling()))


def test_cancel_ends_answers_and_the_next_one_is_whole(engine: WorkerEngine) -> None:
    list(engine.load(SPEC))
    for script in ("slow", "hang"):
        threading.Timer(0.15, engine.cancel).start()
        start = time.monotonic()
        done = [e for e in engine.stream(say(script), None, SLOW) if isinstance(e, Done)]
        assert [e.reason for e in done] == ["cancelled"] * 2
        assert time.monotonic() - start < 2
        assert_works(engine)


def test_closing_the_stream_cancels_and_loses_nothing_of_the_next(engine: WorkerEngine) -> None:
    list(engine.load(SPEC))
    pid = engine.pid
    for _ in range(3):
        stream = engine.stream(say("slow"), None, SLOW)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert_works(engine)
    assert engine.pid == pid


@pytest.mark.parametrize("script", ["hang", "slow"], ids=["prefill", "decode"])
def test_kill_while_answering_costs_one_answer(engine: WorkerEngine, script: str) -> None:
    list(engine.load(SPEC))
    pid = engine.pid
    assert pid is not None
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    done = [e for e in engine.stream(say(script), None, SLOW) if isinstance(e, Done)]
    assert [(e.arm, e.reason, e.error) for e in done] == [(arm, "error", "engine.died") for arm in "ab"]
    assert gone(pid)
    assert engine.loaded is not None
    assert_works(engine)
    assert engine.pid != pid


def test_kill_while_idle_goes_unnoticed(engine: WorkerEngine) -> None:
    list(engine.load(SPEC))
    os.kill(engine.pid or 0, signal.SIGKILL)
    while engine.health == "ready":
        time.sleep(0.01)
    assert_works(engine)


def test_kill_while_loading(engine: WorkerEngine) -> None:
    load = engine.load(LoadSpec((Arm("a", "hang"),)))
    next(load), next(load)
    assert engine.health == "loading" and engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="engine.died"):
        next(load)
    list(engine.load(SPEC))
    assert_works(engine)


def test_cancelling_a_load_ends_the_process(engine: WorkerEngine) -> None:
    load = engine.load(LoadSpec((Arm("a", "hang"),)))
    next(load), next(load)
    pid = engine.pid or 0
    engine.cancel()
    with pytest.raises(UserError, match="load_cancelled"):
        next(load)
    assert gone(pid)
    load = engine.load(LoadSpec((Arm("a", "hang"),)))
    next(load), next(load)
    pid = engine.pid or 0
    load.close()  # type: ignore[attr-defined]
    assert gone(pid) and engine.loaded is None
    list(engine.load(SPEC))
    assert_works(engine)


def test_errors_keep_their_words_and_the_process(engine: WorkerEngine) -> None:
    list(engine.load(SPEC))
    pid = engine.pid
    with pytest.raises(UserError) as caught:
        list(engine.load(LoadSpec((Arm("a", "missing"),))))
    assert (caught.value.key, caught.value.values) == ("engine.adapter_not_found", {"adapter": "missing"})
    assert engine.loaded is None and engine.pid == pid
    with pytest.raises(UserError, match="engine.died"):
        list(engine.load(LoadSpec((Arm("a", "broken"),))))
    list(engine.load(SPEC))
    assert_works(engine)


@pytest.mark.parametrize("script", ["crash", "exit"])
def test_an_engine_that_falls_over_is_replaced(engine: WorkerEngine, script: str, tmp_path: Path) -> None:
    list(engine.load(SPEC))
    done = answers(engine, script)
    assert {(d.reason, d.error) for d in done.values()} == {("error", "engine.died")}
    assert_works(engine)
    if script == "crash":
        assert "ZeroDivisionError" in (tmp_path / "engine.log").read_text()


def test_unload_while_answering(engine: WorkerEngine) -> None:
    list(engine.load(SPEC))
    threading.Timer(0.1, engine.unload).start()
    done = [e for e in engine.stream(say("slow"), None, SLOW) if isinstance(e, Done)]
    assert [e.reason for e in done] == ["cancelled"] * 2
    assert engine.loaded is None


def test_one_request_at_a_time(engine: WorkerEngine) -> None:
    list(engine.load(SPEC))
    results: list[dict[str, Done]] = []
    threads = [threading.Thread(target=lambda: results.append(answers(engine))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 6
    assert all(done.reason == "stop" for result in results for done in result.values())


def test_the_child_outlives_the_thread_that_asked_for_it(engine: WorkerEngine) -> None:
    thread = threading.Thread(target=lambda: list(engine.load(SPEC)))
    thread.start()
    thread.join()
    pid = engine.pid
    time.sleep(0.3)
    assert_works(engine)
    assert engine.pid == pid


def test_the_child_ends_with_its_parent_and_the_parent_stays_light(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from assets.files import Workspace
from compare.engine import Arm, LoadSpec, Sampling
from compare.worker import WorkerEngine
home = Path({str(tmp_path)!r})
engine = WorkerEngine(Workspace(home).prepare(), home / "log", "tests.fakes:ScriptedEngine")
list(engine.load(LoadSpec((Arm("a", "base"),))))
stream = engine.stream({{"a": [{{"role": "user", "content": "hang"}}]}}, None, Sampling())
assert "torch" not in sys.modules and "transformers" not in sys.modules
print(engine.pid, flush=True)
next(stream)
"""
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
    assert gone(pid)


def test_resting_gives_the_memory_back_and_the_next_question_loads_again(engine: WorkerEngine) -> None:
    list(engine.load(SPEC))
    pid, start = engine.pid or 0, time.monotonic()
    engine.rest()
    assert gone(pid, 0.1) and time.monotonic() - start < 2
    assert engine.loaded is not None and engine.health == "stopped"
    assert_works(engine)
    assert engine.pid not in (None, pid)


def test_what_changed_on_disk_while_it_rested_is_not_answered_with(tmp_path: Path) -> None:
    worker = WorkerEngine(Workspace(tmp_path).prepare(), tmp_path / "engine.log", "tests.fakes:ScriptedEngine")
    list(worker.load(SPEC))
    worker.rest()
    (tmp_path / "other").touch()  # the scripted engine reports other weights from now on
    with pytest.raises(UserError, match="files_changed"):
        list(worker.stream(say("x"), None, Sampling()))
    assert worker.loaded is None and worker.pid is None


def test_changes_come_through_the_pipe_and_a_death_costs_only_them(engine: WorkerEngine) -> None:
    asked = ChangesAsked("a", "b", say("x")["a"], None, {"a": "하나", "b": "둘"})
    with pytest.raises(UserError, match="not_loaded"):
        list(engine.changes(asked))
    list(engine.load(SPEC))
    assert list(engine.changes(asked)) == [Changes((), None, None)]
    with pytest.raises(UserError, match="engine.died"):
        list(engine.changes(replace(asked, reference="exit")))
    assert list(engine.changes(asked)) == [Changes((), None, None)]
    assert_works(engine)


@pytest.mark.parametrize("when", ["loading", "prefill", "decode", "ready"])
def test_the_gpu_is_free_within_two_seconds_of_a_kill(engine: WorkerEngine, tmp_path: Path, when: str) -> None:
    workspace = Workspace(tmp_path)
    if when == "loading":
        running: Iterator[object] = engine.load(LoadSpec((Arm("a", "gpu"), Arm("b", "hang"))))
        next(running), next(running)
    else:
        list(engine.load(LoadSpec((Arm("a", "gpu"), Arm("b", "gpu", "adapter")))))
        running = engine.stream(say({"prefill": "hang", "decode": "slow"}.get(when, "x")), None, SLOW)
        if when == "decode":
            next(running)
        elif when == "prefill":
            threading.Thread(target=lambda: list(running), daemon=True).start()
    while not holder(workspace, "gpu-0") or (when == "prefill" and engine.health != "answering"):
        time.sleep(0.01)
    seen = holder(workspace, "gpu-0")
    assert seen is not None and seen["kind"] == "engine" and seen["pid"] == engine.pid
    os.kill(engine.pid or 0, signal.SIGKILL)
    deadline = time.monotonic() + 2
    while holder(workspace, "gpu-0") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if when == "loading":
        with pytest.raises(UserError, match="engine.died"):
            list(running)
    elif when == "decode":
        list(running)
    while engine.health == "answering":
        time.sleep(0.01)
    list(engine.load(LoadSpec((Arm("a", "gpu"), Arm("b", "gpu", "adapter")))))
    assert_works(engine)


@pytest.mark.slow
def test_the_real_engine_behind_the_pipe(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "llama")
    adapter = make_adapter(base, tmp_path / "adapter")
    real = LoadSpec((Arm("a", str(base)), Arm("b", str(base), str(adapter))))
    engine = WorkerEngine(Workspace(tmp_path).prepare(), tmp_path / "engine.log")
    load = engine.load(real)
    phases = [event for event, _ in zip(load, range(3), strict=False)]
    assert engine.pid is not None and len(phases) == 3
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="engine.died"):
        list(load)
    assert isinstance(list(engine.load(real))[-1], Loaded)
    whole = [event for event in engine.stream(say("안녕"), None, Sampling(seed=1)) if isinstance(event, Delta)]
    for events_before_the_kill in (0, 20):
        pid = engine.pid or 0
        stream = engine.stream(say("안녕 " * 40), None, Sampling(temperature=3, top_p=1, max_new_tokens=600))
        seen = [next(stream) for _ in range(events_before_the_kill)]
        os.kill(pid, signal.SIGKILL)
        done = [event for event in [*seen, *stream] if isinstance(event, Done)]
        assert {event.arm for event in done} == {"a", "b"}
        assert gone(pid)
        again = [event for event in engine.stream(say("안녕"), None, Sampling(seed=1)) if isinstance(event, Delta)]
        assert again == whole
    start = time.monotonic()
    engine.unload()
    assert time.monotonic() - start < 2
