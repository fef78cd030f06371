"""Models on other machines: answers, faults and what may be said of them, over real HTTP."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from assets.errors import UserError
from assets.words import LANGUAGES, Words
from compare.engine import Arm, ChangesAsked, Delta, Done, Loaded, LoadSpec, Sampling
from compare.remote_engine import RemoteEngine
from compare.remote_engine_address import Address, Keys, is_remote, parse
from compare.remote_engine_call import Patience, body_of
from compare.remote_engine_events import Whole
from compare.remote_engine_fault import retry_after
from compare.remote_engine_switch import EngineSwitch
from tests.compare.openai_server import Reply, Script, serving
from tests.fake_engine import FakeEngine

pytestmark = pytest.mark.alone
QUICK = Patience(connect=1.0, first=2.5, between=0.6, models=0.3, tries=3, backoff=0.02, longest=0.5)
TURNS = {"a": [{"role": "user", "content": "안녕?"}], "b": [{"role": "user", "content": "안녕?"}]}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def script() -> Iterator[Script]:
    with serving(Script()) as running:
        yield running


def load(engine: RemoteEngine | EngineSwitch, *bases: str) -> Loaded:
    arms = tuple(Arm(key, base) for key, base in zip("ab", bases, strict=True))
    *phases, loaded = engine.load(LoadSpec(arms))
    assert isinstance(loaded, Loaded) and phases and engine.loaded is loaded
    return loaded


def ready(script: Script, **replies: list[Reply]) -> RemoteEngine:
    """An engine with two names of one server; the replies are for the questions after loading."""
    engine = RemoteEngine(Keys(), QUICK)
    load(engine, f"{script.url}#one", f"{script.url}#two")
    script.replies = replies
    script.asked.clear()
    return engine


def told(events: Iterator[Delta | Done]) -> tuple[dict[str, str], dict[str, Done]]:
    texts, done = {"a": "", "b": ""}, {}
    for event in events:
        if isinstance(event, Done):
            assert event.arm not in done
            done[event.arm] = event
        else:
            assert event.arm not in done
            texts[event.arm] += event.text
    return texts, done


# Addresses and keys


@pytest.mark.parametrize(
    ("text", "url", "model"),
    [
        ("https://Host.example/v1#my-lora", "https://host.example/v1", "my-lora"),
        (" http://127.0.0.1:8000#org/name ", "http://127.0.0.1:8000/v1", "org/name"),
        ("https://h/v1/#m", "https://h/v1", "m"),
        ("https://h/api/v3/chat/completions#m:nebius", "https://h/api/v3", "m:nebius"),
        ("http://[::1]:8080/v1#/models/a.gguf", "http://[::1]:8080/v1", "/models/a.gguf"),
    ],
)
def test_addresses(text: str, url: str, model: str) -> None:
    assert is_remote(text)
    address = parse(text)
    assert address == Address(url, model) and parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("https://host/v1", "remote.no_model"),
        ("https://host/v1#  ", "remote.no_model"),
        ("https:///v1#m", "remote.bad_address"),
        ("https://ho st/v1#m", "remote.bad_address"),
        ("https://host:99999/v1#m", "remote.bad_address"),
        ("https://[::1/v1#m", "remote.bad_address"),
        ("https://me:hunter2@host/v1#m", "remote.no_secrets"),
        ("https://host/v1?api_key=hunter2#m", "remote.no_secrets"),
    ],
)
def test_addresses_that_are_none(text: str, key: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert caught.value.key == key and "hunter2" not in str(caught.value)


def test_no_address() -> None:
    assert not any(map(is_remote, ("org/name", "/a/folder", "./a", "httpserver/model", "")))


def test_names_of_an_address() -> None:
    address = parse("http://10.0.0.3:8000/v1#org/my-lora")
    assert (address.name, address.server, address.open_line) == ("my-lora", "10.0.0.3:8000", True)
    assert not parse("http://localhost:8000#m").open_line and not parse("https://h#m").open_line


def test_keys_stay_in_memory_and_unseen() -> None:
    keys = Keys()
    keys.put("u", " sk-secret ")
    keys.put("u", "")
    assert keys.get("u") == "sk-secret" and "secret" not in repr(keys) and "secret" not in str(vars(keys)["_guard"])
    with pytest.raises(UserError) as caught:
        keys.put("u", "열쇠\n")
    assert caught.value.key == "remote.bad_key" and "열쇠" not in str(caught.value)
    keys.forget()
    assert keys.get("u") is None


# Requests and letters


def test_the_request_leaves_out_what_is_off() -> None:
    body = body_of(Address("u", "m"), TURNS["a"], Sampling(seed=3))
    assert body["messages"] == TURNS["a"] and body["seed"] == 3 and body["stream"] is True
    assert "top_k" not in body and "repetition_penalty" not in body
    more = body_of(Address("u", "m"), TURNS["a"], Sampling(top_k=5, repetition_penalty=1.2))
    assert more["top_k"] == 5 and more["repetition_penalty"] == 1.2
    for greedy in (Sampling(top_p=0), Sampling(temperature=0, top_p=0.4)):
        body = body_of(Address("u", "m"), TURNS["a"], greedy)
        assert (body["temperature"], body["top_p"]) == (0, 1)


@pytest.mark.parametrize(
    ("pieces", "out"),
    [
        (["안", "녕"], ["안", "녕"]),
        (["\ud83d", "\ude00!"], ["", "😀!"]),
        (["\u1112\u1161", "\u11ab", "글"], ["", "", "\u1112\u1161\u11ab글"]),
        (["x\ud83d", "y"], ["x", "\ufffdy"]),
        (["\udc00y"], ["\ufffdy"]),
    ],
)
def test_only_whole_letters_come_out(pieces: list[str], out: list[str]) -> None:
    whole = Whole()
    assert [whole.push(piece) for piece in pieces] == out and whole.flush() == ""
    assert Whole().push("끝") == "끝"


def test_what_is_held_back_comes_at_the_end() -> None:
    whole = Whole()
    assert whole.push("가\u1112\u1161") == "가" and whole.flush() == "\u1112\u1161" and whole.flush() == ""
    assert whole.push("\ud83d") == "" and whole.flush() == "\ufffd"


# Answers


def test_both_sides_of_one_server(script: Script) -> None:
    engine = ready(script, one=[Reply(("안녕", "하세요"))], two=[Reply(("반가", "워요"), finish="length", usage=None)])
    texts, done = told(engine.stream(TURNS, "친절하게", Sampling(temperature=0, max_new_tokens=9)))
    assert texts == {"a": "안녕하세요", "b": "반가워요"}
    assert (done["a"].reason, done["a"].tokens) == ("stop", 7) and (done["b"].reason, done["b"].tokens) == ("length", 2)
    assert 0 < done["a"].seconds_to_first < 2 and done["a"].error is None
    asked = {body["model"]: body for body in script.asked}
    assert asked["one"]["messages"] == [{"role": "system", "content": "친절하게"}, *TURNS["a"]]
    assert set(script.paths) == {"/v1/models", "/v1/chat/completions"} and asked["two"]["max_tokens"] == 9


def test_a_slow_side_does_not_hold_the_other_up(script: Script) -> None:
    engine = ready(script, one=[Reply(stall=1.5)], two=[Reply()])
    events = engine.stream(TURNS, None, Sampling())
    begun, first = time.monotonic(), [next(events)]
    while not isinstance(first[-1], Done):
        first.append(next(events))
    assert {event.arm for event in first} == {"b"} and time.monotonic() - begun < 1.0
    assert told(events)[1]["a"].reason == "stop"


def test_both_sides_answer_at_the_same_time(script: Script) -> None:
    engine = ready(script, one=[Reply(tuple("가나다라마"), pause=0.05)], two=[Reply(tuple("가나다라마"), pause=0.05)])
    arms = [event.arm for event in engine.stream(TURNS, None, Sampling()) if isinstance(event, Delta)]
    assert arms.index("b") < 4 and arms.index("a") < 4


def test_nothing_is_asked_for_no_tokens(script: Script) -> None:
    engine = ready(script)
    _, done = told(engine.stream(TURNS, None, Sampling(max_new_tokens=0)))
    assert {d.reason for d in done.values()} == {"length"} and script.asked == []


@pytest.mark.parametrize("reply", [Reply(tuple("가나다라마바사") * 40, pause=0.05), Reply(stall=3)])
def test_cancelling(script: Script, reply: Reply) -> None:
    engine = ready(script, one=[reply], two=[Reply()])
    events = engine.stream(TURNS, None, Sampling())
    while not isinstance(event := next(events), Done):
        assert event.arm in ("a", "b")
    time.sleep(0.1)
    asked = time.monotonic()
    threading.Timer(0.05, engine.cancel).start()
    texts, done = told(events)
    assert done["a"].reason == "cancelled" and time.monotonic() - asked < 0.5
    assert told(engine.stream({"b": TURNS["b"]}, None, Sampling()))[1]["b"].reason == "stop"


def test_leaving_early_ends_the_request(script: Script) -> None:
    engine = ready(script, one=[Reply(tuple("가나다라마바사") * 40, pause=0.02)], two=[Reply()])
    events = engine.stream({"a": TURNS["a"]}, None, Sampling())
    next(events)
    closed = time.monotonic()
    events.close()  # type: ignore[attr-defined]
    assert time.monotonic() - closed < 0.5
    deadline = time.monotonic() + 3
    while not script.gone and time.monotonic() < deadline:
        time.sleep(0.02)
    assert script.gone == ["one"]


# Faults

PAGE = "<!doctype html><html><body>로그인</body></html>"


@pytest.mark.parametrize(
    ("replies", "reason", "error", "asked"),
    [
        ([Reply(status=429, headers=(("Retry-After", "0.1"),)), Reply()], "stop", None, 2),
        ([Reply(status=429, headers=(("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),)), Reply()], "stop", None, 2),
        ([Reply(status=429, headers=(("Retry-After", "3600"),))], "error", "remote.busy", 1),
        ([Reply(status=429)], "error", "remote.busy", 3),
        ([Reply(status=500), Reply(status=503), Reply()], "stop", None, 3),
        ([Reply(status=500)], "error", "remote.server_error", 3),
        ([Reply(cut=0), Reply()], "stop", None, 2),
        ([Reply(cut=2)], "error", "remote.cut", 1),
        ([Reply(finish="", done=False)], "error", "remote.cut", 1),
        ([Reply(finish="", done=True)], "stop", None, 1),
        ([Reply(done=False, usage=None, linger=4)], "stop", None, 1),
        ([Reply(stall=5)], "error", "remote.slow", 1),
        ([Reply(tuple("가나"), pause=0.9)], "error", "remote.stalled", 1),
        ([Reply(status=401)], "error", "remote.refused_key", 1),
        ([Reply(status=402)], "error", "remote.no_credit", 1),
        ([Reply(status=404, body='{"error": "The model does not exist"}')], "error", "remote.no_such_model", 1),
        ([Reply(status=404, body=PAGE, kind="text/html")], "error", "remote.html", 1),
        ([Reply(status=307, headers=(("Location", "http://127.0.0.1:9/v1"),))], "error", "remote.moved", 1),
        ([Reply(body=PAGE, kind="text/html")], "error", "remote.html", 1),
        ([Reply(raw=PAGE.encode())], "error", "remote.html", 1),
        ([Reply(raw=b"data: {oops\n\n")], "error", "remote.bad_reply", 1),
        ([Reply(raw=b'data: ["no object"]\n\n')], "error", "remote.bad_reply", 1),
        ([Reply(raw=b'data: {"choices": 3}\n\n')], "error", "remote.bad_reply", 1),
        ([Reply(raw=b"nothing at all\n")], "error", "remote.bad_reply", 1),
        ([Reply(raw=b"data: " + b"x" * (5 << 20))], "error", "remote.bad_reply", 1),
        ([Reply(body='{"detail": "no"}', kind="application/json")], "error", "remote.bad_reply", 1),
        ([Reply(raw=b'data: {"error": {"message": "CUDA"}}\n\n'), Reply()], "stop", None, 2),
        ([Reply(status=400, body="unknown field stream_options"), Reply()], "stop", None, 2),
        ([Reply(status=400, body="no system role")], "error", "remote.refused", 2),
        ([Reply(status=400, body="maximum context length is 4096")], "error", "remote.too_long", 1),
        ([Reply(status=400, body="Server is pinned to 'x'; requested model 'y'")], "error", "remote.no_such_model", 1),
        ([Reply(finish="content_filter")], "error", "remote.filtered", 1),
    ],
)  # fmt: skip
def test_what_may_come_instead(
    script: Script, replies: list[Reply], reason: str, error: str | None, asked: int
) -> None:
    engine = ready(script, one=replies, two=[Reply(("좋아요",))])
    texts, done = told(engine.stream(TURNS, None, Sampling()))
    assert (done["a"].reason, done["a"].error) == (reason, error)
    assert len([body for body in script.asked if body["model"] == "one"]) == asked
    assert texts["b"] == "좋아요" and done["b"].reason == "stop"
    assert texts["a"] == "안녕하세요." if reason == "stop" else len(texts["a"]) < 10
    if error is not None:
        assert all("{" not in Words(language)(error) for language in LANGUAGES)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("", None), ("soon", None), ("nan", None), ("-3", None), ("Wed, 99 Oct 2015 07:28:00 GMT", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)  # fmt: skip
def test_when_a_server_wants_to_be_asked_again(text: str, seconds: float | None) -> None:
    assert retry_after(httpx.Response(429, headers={"Retry-After": text})) == seconds


def test_settings_that_a_server_refuses(script: Script) -> None:
    engine = ready(script, one=[Reply(status=422, body="Unexpected fields")])
    _, done = told(engine.stream({"a": TURNS["a"]}, None, Sampling(top_k=40)))
    assert done["a"].error == "remote.refused_settings"


def test_a_reply_that_was_not_streamed(script: Script) -> None:
    whole = {
        "choices": [{"message": {"content": "통째로"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 3},
    }
    engine = ready(script, one=[Reply(body=json.dumps(whole), kind="application/json")])
    texts, done = told(engine.stream({"a": TURNS["a"]}, None, Sampling()))
    assert texts["a"] == "통째로" and done["a"].tokens == 3


def test_lines_as_servers_write_them(script: Script) -> None:
    chunk = '{"choices": [{"delta": {"content": "줄\u2028둘"}}]}'
    raw = f': hello\r\n\r\nevent: x\r\nid: 3\r\ndata:{chunk}\r\n\r\ndata: [DONE]\r\n\r\ndata: {{"late": 1}}\r\n\r\n'
    engine = ready(script, one=[Reply(raw=raw.encode())])
    texts, done = told(engine.stream({"a": TURNS["a"]}, None, Sampling()))
    assert texts["a"] == "줄\u2028둘" and done["a"].reason == "stop"


def test_thoughts_are_no_answer_but_a_sign_of_life(script: Script) -> None:
    engine = ready(script, one=[Reply(("답",), reasoning=("음", "…"))])
    texts, _ = told(engine.stream({"a": TURNS["a"]}, None, Sampling()))
    assert texts["a"] == "답"


# Loading


@pytest.mark.parametrize(
    ("models", "stall", "listed"),
    [
        ((200, '{"data": [{"id": "one", "root": "base", "max_model_len": 4096, "x": {}}]}'), 0.0, True),
        ((200, '{"data": [{"id": "other"}]}'), 0.0, False),
        ((200, '{"data": []}'), 0.0, None),
        ((200, "[]"), 0.0, None),
        ((200, PAGE), 0.0, None),
        ((500, "oops"), 0.0, None),
        ((200, '{"data": [{"id": "one"}]}'), 2.0, None),
    ],
)
def test_the_list_of_models_decides_nothing(
    script: Script, models: tuple[int, str], stall: float, listed: bool | None
) -> None:
    script.models, script.models_stall = models, stall
    engine = RemoteEngine(Keys(), QUICK)
    info = load(engine, f"{script.url}#one", f"{script.url}#one").arms["a"]
    assert info.told is not None and info.told.get("listed") is listed
    assert info.told["server"] == script.url and info.told["answered_as"] == "one"
    if listed:
        assert info.told["list"] == {"id": "one", "root": "base", "max_model_len": 4096}
    assert told(engine.stream(TURNS, None, Sampling()))[1]["a"].reason == "stop"


def test_what_is_loaded_claims_no_proof(script: Script) -> None:
    loaded = load(RemoteEngine(Keys(), QUICK), f"{script.url}#one", f"{script.url}#two")
    assert (loaded.device, loaded.memory_bytes, loaded.weights) == ("remote", 0, "")
    assert (loaded.check.base_error, loaded.check.adapter_error, loaded.check.difference) == (None, None, None)
    assert all(info.adapter_sha256 is None and info.base_revision == "" for info in loaded.arms.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_loading_says_which_server_and_why(script: Script, language: str) -> None:
    script.replies["two"] = [Reply(status=401)]
    engine = RemoteEngine(Keys(), QUICK)
    with pytest.raises(UserError) as caught:
        load(engine, f"{script.url}#one", f"{script.url}#two")
    words = Words(language)
    text = words.error(caught.value)
    assert parse(f"{script.url}#two").server in text and words("remote.refused_key") in text
    assert engine.loaded is None
    with pytest.raises(UserError, match="not_loaded"):
        next(engine.stream(TURNS, None, Sampling()))


def test_nobody_there() -> None:
    with pytest.raises(UserError) as caught:
        load(RemoteEngine(Keys(), QUICK), "http://127.0.0.1:9/v1#m", "http://127.0.0.1:9/v1#m")
    assert caught.value.values["why"].key == "remote.unreachable"  # type: ignore[attr-defined]


def test_loading_can_be_cancelled(script: Script) -> None:
    script.replies["one"] = [Reply(stall=3)]
    engine = RemoteEngine(Keys(), QUICK)
    threading.Timer(0.3, engine.cancel).start()
    begun = time.monotonic()
    with pytest.raises(UserError, match="load_cancelled"):
        load(engine, f"{script.url}#one", f"{script.url}#two")
    assert time.monotonic() - begun < 1.5


def test_a_key_goes_to_its_server_and_nowhere_else(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = Keys()
    keys.put(script.url, "sk-very-secret")
    with serving(Script()) as other:
        engine = RemoteEngine(keys, QUICK)
        loaded = load(engine, f"{script.url}#one", f"{other.url}#two")
        events = list(engine.stream(TURNS, None, Sampling()))
        assert {h["authorization"] for h in script.headers} == {"Bearer sk-very-secret"}
        assert not any("authorization" in h for h in other.headers)
    assert "very-secret" not in caplog.text + repr(loaded) + repr(events) + repr(vars(engine))
    engine.unload()
    assert keys.get(script.url) is None and engine.loaded is None


def test_chances_of_tokens_are_not_to_be_had(script: Script) -> None:
    with pytest.raises(UserError, match="not_comparable"):
        RemoteEngine(Keys()).changes(ChangesAsked("a", "b", TURNS["a"], None, {"a": "x", "b": "y"}))


# One side here, one elsewhere


def switch(script: Script, **fake: object) -> tuple[EngineSwitch, FakeEngine]:
    here = FakeEngine(**fake)  # type: ignore[arg-type]
    return EngineSwitch(here, RemoteEngine(Keys(), QUICK)), here


def test_one_side_here_and_one_elsewhere(script: Script) -> None:
    engine, here = switch(script)
    loaded = load(engine, "org/base", f"{script.url}#two")
    assert [arm.base for arm in here.specs[0].arms] == ["org/base"]
    assert loaded.device == "cpu+remote" and list(loaded.arms) == ["a", "b"] and loaded.versions == {"torch": "2.13.0"}
    assert loaded.arms["a"].told is None and loaded.arms["b"].told is not None
    texts, done = told(engine.stream(TURNS, None, Sampling()))
    assert texts == {"a": here.answers["a"], "b": "안녕하세요."} and {d.reason for d in done.values()} == {"stop"}
    with pytest.raises(UserError, match="not_comparable"):
        engine.changes(ChangesAsked("a", "b", TURNS["a"], None, {"a": "x", "b": "y"}))


def test_neither_side_waits_for_the_other(script: Script) -> None:
    engine, _ = switch(script, pause=0.05)
    load(engine, "org/base", f"{script.url}#two")
    script.replies["two"] = [Reply(tuple("가나다라마"), pause=0.05)]
    arms = [event.arm for event in engine.stream(TURNS, None, Sampling()) if isinstance(event, Delta)]
    assert 0 < arms.index("b") + arms.index("a") < 4


def test_all_here_or_all_elsewhere(script: Script) -> None:
    engine, here = switch(script)
    load(engine, f"{script.url}#one", f"{script.url}#two")
    assert here.specs == [] and told(engine.stream(TURNS, None, Sampling()))[0]["a"] == "안녕하세요."
    load(engine, "org/base", "org/base")
    assert told(engine.stream(TURNS, None, Sampling()))[0]["b"] == here.answers["b"]
    assert list(engine.changes(ChangesAsked("a", "b", TURNS["a"], None, {"a": "x", "b": "y"})))
    engine.rest()
    assert here.rests == 1
    engine.unload()
    with pytest.raises(UserError, match="not_loaded"):
        engine.stream(TURNS, None, Sampling())


def test_cancelling_both_kinds(script: Script) -> None:
    engine, _ = switch(script, answers={"a": "가" * 400, "b": ""}, pause=0.02)
    load(engine, "org/base", f"{script.url}#two")
    script.replies["two"] = [Reply(stall=3)]
    threading.Timer(0.2, engine.cancel).start()
    begun = time.monotonic()
    _, done = told(engine.stream(TURNS, None, Sampling()))
    assert {d.reason for d in done.values()} == {"cancelled"} and time.monotonic() - begun < 1.5


def test_an_error_here_ends_the_other_side(script: Script) -> None:
    engine, here = switch(script)
    load(engine, "org/base", f"{script.url}#two")
    script.replies["two"] = [Reply(stall=3)]
    here.stream_error = UserError("engine.empty_prompt")
    begun = time.monotonic()
    with pytest.raises(UserError, match="empty_prompt"):
        list(engine.stream(TURNS, None, Sampling()))
    assert time.monotonic() - begun < 1.5


def test_a_wrong_server_is_known_before_anything_is_read(script: Script) -> None:
    engine, here = switch(script)
    script.replies["two"] = [Reply(status=404)]
    with pytest.raises(UserError):
        load(engine, "org/base", f"{script.url}#two")
    assert here.specs == [] and engine.loaded is None


# A real server

STARTER = ROOT / "workspace" / "models" / "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``transformers serve`` with the starter, in a process of its own with a Hub folder of its own."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("serve")
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(STARTER), "--device", "cpu"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=log, stderr=log
        )
    try:
        for _ in range(240):
            assert process.poll() is None, (home / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1#{STARTER}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_a_real_server(real_server: str) -> None:
    engine = RemoteEngine(Keys(), Patience(first=120))
    loaded = load(engine, real_server, real_server)
    info = loaded.arms["a"]
    assert info.told is not None and info.told["answered_as"].startswith(str(STARTER))
    assert "listed" not in info.told  # its list of models fails without a Hub cache
    turns = {key: [{"role": "user", "content": "What is the capital of France? Answer in one word."}] for key in "ab"}
    texts, done = told(engine.stream(turns, None, Sampling(temperature=0, max_new_tokens=12)))
    assert "Paris" in texts["a"] and texts["a"] == texts["b"]
    assert 0 < done["a"].tokens <= 13 and done["a"].seconds_to_first > 0 and done["a"].error is None
    events = engine.stream(
        {"a": [{"role": "user", "content": "Write a long story."}]}, None, Sampling(max_new_tokens=400)
    )
    next(events)
    cancelled = time.monotonic()
    engine.cancel()
    assert told(events)[1]["a"].reason == "cancelled" and time.monotonic() - cancelled < 1.0
    wrong = RemoteEngine(Keys(), QUICK)
    with pytest.raises(UserError) as caught:
        load(wrong, real_server.split("#")[0] + "#no-such-model", real_server)
    assert caught.value.values["why"].key == "remote.no_such_model"  # type: ignore[attr-defined]
