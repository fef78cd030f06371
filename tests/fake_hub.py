"""A Hub over real HTTP that keeps repositories in memory, with faults for tests.

Covers what huggingface_hub 2.4 asks for small files: who may enter, a repository's info, making one, the preupload
question, commits, downloads. Files are never LFS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests import http_server

TOKEN = "hf_" + "t" * 34


@dataclass(frozen=True)
class Fault:
    """What happens instead of one request. ``status`` is answered; 0 cuts the connection, after the work was done when
    ``late``; ``stall`` seconds pass first; ``twice`` does the work two times, as a proxy that repeats a request."""

    status: int | None = None
    stall: float = 0.0
    late: bool = False
    twice: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Repo:
    private: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)


@dataclass
class FakeHub:
    """``faults`` by kind of request ("info", "create", "preupload", "commit", "head", "get"), used one after another."""

    repos: dict[str, Repo] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, kind: str) -> Fault:
        with self.guard:
            self.asked.append(kind)
            waiting = self.faults.get(kind, [])
            return waiting.pop(0) if waiting else Fault()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: FakeHub


class _Refused(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        return None

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hub = self.server.hub
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = unquote(urlsplit(self.path).path)
        kind = self._kind_of(path)
        fault = hub.fault(kind)
        hub.closing.wait(fault.stall)
        try:
            if fault.status and not fault.late:
                raise _Refused(fault.status)
            if fault.status == 0 and not fault.late:
                self._cut()
                return
            answer = self._answer(kind, path, body)
            if fault.twice:
                answer = self._answer(kind, path, body)
            if fault.status == 0:
                self._cut()
                return
            self._send(200, *answer)
        except _Refused as refused:
            headers = fault.headers + ((("X-Error-Code", refused.code),) if refused.code else ())
            self._send(refused.status, b'{"error": "no"}', headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _kind_of(self, path: str) -> str:
        return _kind(self.command, path)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def _send(self, status: int, data: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(data))), ("Content-Type", "application/json"), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _answer(self, kind: str, path: str, body: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        hub = self.server.hub
        if self.headers.get("authorization", "").removeprefix("Bearer ") not in hub.tokens:
            raise _Refused(401)
        with hub.guard:
            if kind == "validate":
                return b'{"errors": [], "warnings": []}', ()
            if kind == "create":
                return self._create(json.loads(body))
            parts = path.removeprefix("/api").removeprefix("/datasets/").removeprefix("/models/").split("/")
            repo = hub.repos.get("/".join(parts[:2]))
            if repo is None:
                raise _Refused(404, "RepoNotFound")
            if kind == "info":
                return _json(_info("/".join(parts[:2]), repo)), ()
            if kind == "preupload":
                files = [file["path"] for file in json.loads(body)["files"]]
                return _json({"files": [_mode(name, repo) for name in files]}), ()
            if kind == "commit":
                return self._commit(repo, "/".join(parts[:2]), body), ()
            return _file(repo, "/".join(parts[4:]))

    def _create(self, asked: dict[str, Any]) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        name = f"{asked['organization']}/{asked['name']}"
        self.server.hub.repos.setdefault(name, Repo(private=asked.get("visibility") == "private"))
        place = "datasets/" if asked.get("type") == "dataset" else ""
        return _json({"url": f"{self.server.hub.url}/{place}{name}", "name": name}), ()

    def _commit(self, repo: Repo, name: str, body: bytes) -> bytes:
        lines = [json.loads(line) for line in body.splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        assert {line["key"] for line in lines} <= {"header", "file"}
        for file in files:
            assert file["encoding"] == "base64"
            repo.files[file["path"]] = base64.b64decode(file["content"])
        repo.commits.append([file["path"] for file in files])
        sha = _sha(repo)
        return _json({"commitUrl": f"{self.server.hub.url}/datasets/{name}/commit/{sha}", "commitOid": sha})


def _kind(command: str, path: str) -> str:
    for kind in ("preupload", "commit"):
        if f"/{kind}/" in path and command == "POST":
            return kind
    if path == "/api/repos/create":
        return "create"
    if path == "/api/validate-yaml":
        return "validate"
    if "/resolve/" in path:
        return command.lower()
    return "info"


def _file(repo: Repo, name: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    if name not in repo.files:
        raise _Refused(404, "EntryNotFound")
    data = repo.files[name]
    return data, (("ETag", f'"{_blob(data)}"'), ("X-Repo-Commit", _sha(repo)))


def _info(name: str, repo: Repo) -> dict[str, Any]:
    files = [{"rfilename": f, "size": len(d), "blobId": _blob(d)} for f, d in sorted(repo.files.items())]
    return {"id": name, "private": repo.private, "sha": _sha(repo), "siblings": files}


def _mode(name: str, repo: Repo) -> dict[str, Any]:
    found = repo.files.get(name)
    return {"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": _blob(found) if found else None}


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha(repo: Repo) -> str:
    return hashlib.sha1(f"{len(repo.commits)}".encode()).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@contextmanager
def hub_serving() -> Iterator[FakeHub]:
    """The Hub while inside; ``url`` is its endpoint."""
    hub = FakeHub()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub
    with http_server.serving(server, hub.closing) as url:
        hub.url = url
        yield hub
