"""A scriptable OpenAI-compatible server over real HTTP, for tests of what may come instead of an answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests import http_server


@dataclass(frozen=True)
class Reply:
    """What comes for one question. ``pieces`` are the texts of an event stream, ``pause`` seconds before each.

    ``status`` other than 200 sends ``body`` instead; ``stall`` waits that long before the first piece; ``cut`` closes
    the connection after that many pieces; ``raw`` is sent as it is after the headers of an event stream.
    """

    pieces: tuple[str, ...] = ("안녕", "하세요", ".")
    pause: float = 0.0
    status: int = 200
    body: str = ""
    kind: str = "text/event-stream"
    headers: tuple[tuple[str, str], ...] = ()
    stall: float = 0.0
    cut: int | None = None
    finish: str = "stop"
    done: bool = True
    linger: float = 0.0
    usage: int | None = 7
    raw: bytes | None = None
    reasoning: tuple[str, ...] = ()


@dataclass
class Script:
    """``replies`` by model name: the first one of a list is used once, the last one for ever. ``models`` is what the
    list of models answers: (status, body), after ``models_stall`` seconds."""

    replies: dict[str, list[Reply]] = field(default_factory=dict)
    models: tuple[int, str] = (200, '{"object": "list", "data": []}')
    models_stall: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def next(self, model: str) -> Reply:
        found = self.replies.get(model, [Reply()])
        return found.pop(0) if len(found) > 1 else found[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    script: Script


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        return None

    def do_GET(self) -> None:
        script = self.server.script
        script.paths.append(self.path)
        script.closing.wait(script.models_stall)
        status, body = script.models
        self._whole(status, body, "application/json")

    def do_POST(self) -> None:
        script = self.server.script
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        script.paths.append(self.path)
        script.asked.append(body)
        script.headers.append({name.lower(): value for name, value in self.headers.items()})
        reply = script.next(body["model"])
        try:
            self._reply(reply, body["model"])
        except (BrokenPipeError, ConnectionResetError):
            script.gone.append(body["model"])
            self.close_connection = True

    def _reply(self, reply: Reply, model: str) -> None:
        self.server.script.closing.wait(reply.stall)
        if reply.status != 200 or reply.kind != "text/event-stream":
            self._whole(reply.status, reply.body, reply.kind, reply.headers)
            return
        self.send_response(200)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if reply.raw is not None:
            self._chunk(reply.raw)
        else:
            self._events(reply, model)
        if reply.cut is None:
            self.server.script.closing.wait(reply.linger)
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def _events(self, reply: Reply, model: str) -> None:
        self._event(model, {"role": "assistant", "content": ""})
        for text in reply.reasoning:
            self._event(model, {"reasoning_content": text})
        for number, text in enumerate(reply.pieces):
            if number == reply.cut:
                return
            time.sleep(reply.pause)
            self._event(model, {"content": text})
        if reply.cut is not None:
            return
        if reply.finish:
            self._event(model, {}, reply.finish)
        if reply.usage is not None:
            usage = {"prompt_tokens": 5, "completion_tokens": reply.usage, "total_tokens": 5 + reply.usage}
            self._data(json.dumps({"id": "x", "model": model, "choices": [], "usage": usage}))
        if reply.done:
            self._data("[DONE]")

    def _event(self, model: str, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._data(json.dumps({"id": "x", "model": model, "choices": [choice]}))

    def _data(self, text: str) -> None:
        self._chunk(f"data: {text}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _whole(self, status: int, body: str, kind: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    """The server while inside; ``script.url`` is where it is."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.script = script
    with http_server.serving(server, script.closing) as url:
        script.url = f"{url}/v1"
        yield script
