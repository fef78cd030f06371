"""The engine protocol over OpenAI-compatible servers: vLLM, TGI, llama.cpp, Inference Providers and their like.

Covers: arms that are addresses (``https://host/v1#model-name``), both sides at the same time, what can be said of models
that answer elsewhere. Does not cover: one request (remote_engine_call.py), a pair of which one side is here
(remote_engine_switch.py). Nothing about the weights behind an address can be proven: no hash, no pane check.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

import httpx

from assets.errors import UserError
from compare.engine import (
    REMOTE,
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
from compare.remote_engine_address import Address, Keys, parse
from compare.remote_engine_call import Call, Patience, ask, body_of, list_models
from compare.remote_engine_events import Whole
from compare.remote_engine_fault import Fault
from compare.remote_engine_run import Run

log = logging.getLogger(__name__)
NO_CHECK = PaneCheck(None, None, None, 0.0)
_GREETING = ({"role": "user", "content": "안녕"},)
_TOLD = ("id", "root", "parent", "owned_by", "max_model_len", "created")


class _Says(Protocol):
    def __call__(self, event: Any, /) -> None: ...


class RemoteEngine:
    """Engine over other machines' servers. Thread-safe ``cancel``; one load or stream at a time."""

    def __init__(self, keys: Keys, patience: Patience | None = None) -> None:
        self._keys = keys
        self._patience = patience or Patience()
        self._addresses: dict[str, Address] = {}
        self._loaded: Loaded | None = None
        self._run: Run[Any] | None = None

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    def load(self, spec: LoadSpec) -> Iterator[Phase | Loaded]:
        """Ask every side for one token, so that a wrong key or name is known now. See Engine.

        UserError("remote.at") names the server and says why.
        """
        self._drop()
        addresses = {arm.key: parse(arm.base) for arm in spec.arms}
        yield Phase("engine.phase.start")
        yield Phase("engine.phase.check", 0.0)
        infos: dict[str, ArmInfo] = {}
        for key, found in self._events([partial(self._meet, key, a) for key, a in addresses.items()]):
            if isinstance(found, Fault):
                raise UserError("remote.at", server=addresses[key].server, why=UserError(found.key)) from found
            infos[key] = found
            yield Phase("engine.phase.check", len(infos) / len(addresses))
        if len(infos) < len(addresses):
            raise UserError("engine.load_cancelled")
        self._addresses = addresses
        self._loaded = Loaded(REMOTE, 0, {key: infos[key] for key in addresses}, NO_CHECK, {})
        yield self._loaded

    def stream(
        self, turns: Mapping[str, Sequence[Message]], system: str | None, sampling: Sampling
    ) -> Iterator[Delta | Done]:
        """See Engine. Texts come as the server sends them; ``tokens`` are its own count, or the pieces without one."""
        if self._loaded is None or not set(turns) <= set(self._addresses):
            raise UserError("engine.not_loaded")
        told: list[Message] = [{"role": "system", "content": system}] if system else []
        calls = {arm: self._call(self._addresses[arm], [*told, *said], sampling) for arm, said in turns.items()}
        started = time.monotonic()
        if sampling.max_new_tokens == 0:
            return iter([Done(arm, "length") for arm in turns])
        return self._stream([partial(self._answer, arm, call, started) for arm, call in calls.items()], list(turns))

    def _stream(self, jobs: Sequence[Any], arms: Sequence[str]) -> Iterator[Delta | Done]:
        open_ = dict.fromkeys(arms)
        for event in self._events(jobs):
            if isinstance(event, Done):
                del open_[event.arm]
            yield event
        yield from (Done(arm, "cancelled") for arm in open_)

    def changes(self, asked: ChangesAsked) -> Iterator[Changes]:
        """No server gives the chances of every token: UserError("engine.not_comparable")."""
        raise UserError("engine.not_comparable")

    def cancel(self) -> None:
        run = self._run
        if run is not None:
            run.cancel()

    def rest(self) -> None:
        """Nothing is held here."""

    def unload(self) -> None:
        """Forget the servers and their keys."""
        self._drop()
        self._keys.forget()

    def _drop(self) -> None:
        self.cancel()
        self._addresses, self._loaded = {}, None

    def _events(self, jobs: Sequence[Any]) -> Iterator[Any]:
        run = self._run = Run[Any](jobs)
        try:
            yield from run.events()
        finally:
            if self._run is run:
                self._run = None

    def _call(self, address: Address, messages: Sequence[Message], sampling: Sampling) -> Call:
        return Call(address, body_of(address, messages, sampling), self._keys.get(address.url))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made once: reading the certificates takes longer than a first token."""
        return httpx.create_ssl_context()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self._tls, timeout=httpx.Timeout(None, connect=self._patience.connect))

    async def _meet(self, arm: str, address: Address, say: _Says) -> None:
        """What a server says of a model, once it has answered with one token."""
        call = self._call(address, _GREETING, Sampling(temperature=0, max_new_tokens=1))
        try:
            async with self._client() as client:
                listed = await list_models(client, call, self._patience)
                ending = await ask(client, call, self._patience, lambda text: None)
        except Fault as fault:
            say((arm, fault))
            return
        told = _told(address, listed) | {"answered_as": ending.model, "fingerprint": ending.fingerprint}
        say((arm, ArmInfo("", "", None, 0, {name: value for name, value in told.items() if value not in ("", None)})))

    async def _answer(self, arm: str, call: Call, started: float, say: _Says) -> None:
        progress = _Progress(arm, started, say)
        try:
            async with self._client() as client:
                ending = await ask(client, call, self._patience, progress.hear)
            say(progress.done(ending.reason, ending.tokens))
        except asyncio.CancelledError:
            say(progress.done("cancelled"))
        except Fault as fault:
            say(progress.done("error", error=fault.key))
        except Exception:
            log.exception("an answer of %s failed", call.address.server)
            say(progress.done("error", error="engine.failed"))


class _Progress:
    """One answer while it comes: whole letters out, pieces and times counted."""

    def __init__(self, arm: str, started: float, say: _Says) -> None:
        self._arm, self._started, self._say = arm, started, say
        self._whole = Whole()
        self._pieces = 0
        self._first = self._last = started

    def hear(self, text: str) -> None:
        self._last = time.monotonic()
        self._first = self._first if self._pieces else self._last
        self._pieces += 1
        self._tell(self._whole.push(text))

    def done(self, reason: Any, tokens: int | None = None, error: str | None = None) -> Done:
        self._tell(self._whole.flush())
        count = self._pieces if tokens is None else tokens
        took = self._last - self._first
        speed = (count - 1) / took if count > 1 and took > 0 else 0.0
        return Done(self._arm, reason, count, self._first - self._started, speed, error)

    def _tell(self, text: str) -> None:
        if text:
            self._say(Delta(self._arm, text))


def _told(address: Address, listed: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Plain values for the record. ``listed`` says whether the server's own list names the model, None without one."""
    entry = next((one for one in listed or () if one.get("id") == address.model), {})
    known = {name: entry[name] for name in _TOLD if isinstance(entry.get(name), (str, int))}
    plain = {name: value[:200] if isinstance(value, str) else value for name, value in known.items()}
    return {"server": address.url, "model": address.model, "listed": bool(entry) if listed else None, "list": plain}
