"""One question to one OpenAI-compatible server, answered piece by piece.

Covers: the request, time-outs, tries again before the first token, the reply as server-sent events or as one JSON
object, everything that may come instead of one. Does not cover: several sides at once (remote_engine.py), cutting
bytes into events (remote_engine_events.py). Redirects are not followed: a key must not travel on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from compare.engine import Message, Sampling
from compare.remote_engine_address import Address
from compare.remote_engine_events import LIMIT, TooLong, read_events
from compare.remote_engine_fault import Fault, refused

LAST = 3.0  # seconds after the end was said for the count of tokens


@dataclass(frozen=True)
class Patience:
    """Seconds to wait: to connect, for the first token with all tries, between two pieces, for the list of models.

    ``tries`` of one question; ``backoff`` doubles from try to try; ``longest`` is the longest Retry-After obeyed.
    """

    connect: float = 10.0
    first: float = 180.0
    between: float = 60.0
    models: float = 5.0
    tries: int = 4
    backoff: float = 0.5
    longest: float = 30.0


@dataclass(frozen=True)
class Call:
    """A question on its way. ``key`` never shows in the repr."""

    address: Address
    body: Mapping[str, Any]
    key: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True)
class Ending:
    """``tokens`` as the server counted them, or None; ``model`` and ``fingerprint`` as the reply named them."""

    reason: Literal["stop", "length"]
    tokens: int | None = None
    model: str = ""
    fingerprint: str = ""


def body_of(address: Address, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    """The request's JSON. What is off (top_k 0, repetition penalty 1) is left out: not every server knows it."""
    greedy = sampling.temperature == 0 or sampling.top_p == 0
    body: dict[str, Any] = {
        "model": address.model,
        "messages": [dict(message) for message in messages],
        "max_tokens": sampling.max_new_tokens,
        "temperature": 0 if greedy else sampling.temperature,
        "top_p": 1 if greedy else sampling.top_p,
        "seed": sampling.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        body["repetition_penalty"] = sampling.repetition_penalty
    return body


async def ask(client: httpx.AsyncClient, call: Call, patience: Patience, hear: Callable[[str], None]) -> Ending:
    """Every piece of the answer to ``hear``, then how it ended. Tries again only while nothing was heard. Fault."""
    deadline = time.monotonic() + patience.first
    body = dict(call.body)
    attempt = 0
    while True:
        attempt += 1
        reply = _Reply(hear)
        try:
            await _once(client, call, body, patience, deadline, reply)
            return reply.ending()
        except Fault as fault:
            if fault.lean and "stream_options" in body:
                del body["stream_options"]  # only counts tokens; an old server may refuse a field that it does not know
                continue
            wait = patience.backoff * 2 ** (attempt - 1) if fault.after is None else fault.after
            hopeless = attempt >= patience.tries or wait > patience.longest or time.monotonic() + wait > deadline
            if reply.begun or not fault.again or hopeless:
                raise
        await asyncio.sleep(wait)


async def list_models(client: httpx.AsyncClient, call: Call, patience: Patience) -> list[dict[str, Any]] | None:
    """What the server says it has; None when it does not say. Nothing depends on it."""
    try:
        async with asyncio.timeout(patience.models):
            async with client.stream("GET", f"{call.address.url}/models", headers=call.headers) as response:
                found = json.loads(await _read(response)) if response.status_code == 200 else None
    except (httpx.HTTPError, TimeoutError, ValueError, RecursionError, Fault):
        return None
    data = found.get("data") if isinstance(found, dict) else None
    return [one for one in data if isinstance(one, dict)] if isinstance(data, list) else None


async def _once(
    client: httpx.AsyncClient,
    call: Call,
    body: Mapping[str, Any],
    patience: Patience,
    deadline: float,
    reply: _Reply,
) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as clock:
            async with client.stream(
                "POST", f"{call.address.url}/chat/completions", json=body, headers=call.headers
            ) as response:
                if response.status_code != 200:
                    raise refused(response, await _read(response), body)
                kind = response.headers.get("content-type", "").lower()
                if "html" in kind:
                    raise Fault("remote.html")
                if "json" in kind:
                    reply.whole(await _read(response))
                    return
                async with aclosing(read_events(response.aiter_bytes())) as events:
                    async for event in events:
                        if reply.take(event):
                            return
                        if reply.begun:
                            wait = min(LAST, patience.between) if reply.finished else patience.between
                            clock.reschedule(loop.time() + wait)
    except TimeoutError as error:
        if reply.finished:
            return
        raise Fault("remote.stalled" if reply.begun else "remote.slow") from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Fault("remote.unreachable", again=True) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise Fault("remote.bad_address") from error
    except httpx.HTTPError as error:
        if not reply.finished:
            raise Fault("remote.cut", again=True) from error
    except TooLong as error:
        raise Fault("remote.bad_reply") from error


async def _read(response: httpx.Response) -> bytes:
    """The body, up to LIMIT bytes."""
    found = b""
    async for chunk in response.aiter_bytes():
        found += chunk
        if len(found) > LIMIT:
            raise Fault("remote.bad_reply")
    return found


class _Reply:
    """What came so far. ``begun`` once there is anything of the answer, the model's thoughts included."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear = hear
        self.begun = False
        self._size = self._events = 0
        self._reason = ""
        self._done = False
        self._tokens: int | None = None
        self._model = self._fingerprint = ""

    @property
    def finished(self) -> bool:
        """Whether the answer is whole; the count of tokens may still come."""
        return bool(self._reason)

    def take(self, event: str) -> bool:
        """One event's data; True when it is the last one."""
        if event.strip() == "[DONE]":
            self._done = True
            return True
        self._chunk(_object(event))
        return False

    def whole(self, raw: bytes) -> None:
        """A reply that was not streamed, although it was asked to be."""
        self._chunk(_object(raw.decode("utf-8", "replace")))
        self._done = True

    def ending(self) -> Ending:
        """Fault("remote.cut") when the connection closed before the end was said, "…bad_reply" when nothing came."""
        if not (self._reason or self._done):
            raise Fault("remote.cut", again=True) if self._events else Fault("remote.bad_reply")
        if self._reason == "content_filter":
            raise Fault("remote.filtered")
        reason: Literal["stop", "length"] = "length" if self._reason in ("length", "max_tokens") else "stop"
        return Ending(reason, self._tokens, self._model, self._fingerprint)

    def _chunk(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise Fault("remote.server_error", again=True)
        usage = chunk.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            self._tokens = usage["completion_tokens"]
        self._model = _text(chunk.get("model")) or self._model
        self._fingerprint = _text(chunk.get("system_fingerprint")) or self._fingerprint
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            if usage is None:
                raise Fault("remote.bad_reply")
            return
        self._events += 1
        for choice in choices[:1]:
            self._say(choice.get("delta") or choice.get("message"))
            self._reason = _text(choice.get("finish_reason")) or self._reason

    def _say(self, said: object) -> None:
        if not isinstance(said, dict):
            return
        if said.get("reasoning_content") or said.get("reasoning"):
            self.begun = True
        text = said.get("content")
        if isinstance(text, str) and text:
            self.begun = True
            self._size += len(text)
            if self._size > LIMIT:
                raise Fault("remote.bad_reply")
            self._hear(text)


def _object(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("<"):
        raise Fault("remote.html")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Fault("remote.bad_reply") from error
    if not isinstance(found, dict):
        raise Fault("remote.bad_reply")
    return found


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
