"""The one place that every request passes: which routes there are, who may use them, how much may be sent.

Covers: closing every route that the pages do not use, files and uploads for owners only, sizes and counts for everyone
else, the sign-in page. Does not cover: events (guard.py), headers (headers.py).

Gradio brings routes for things that are not wanted here (its API by name, a proxy, component servers, deep links,
monitoring, editing by a model): the list says what is open, so a route that a later version adds is closed. Uploads
and ``file=`` are the owner's: raters and visitors send words and get words.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from assets import owner_page
from assets.access import Access, Role
from assets.guard import caller
from assets.headers import App, Receive, Scope, Send
from assets.limits import Limits

API = "/gradio_api"
_OWN = frozenset({f"{API}/upload", f"{API}/upload_progress", f"{API}/file"})
_EVENTS = frozenset({f"{API}/queue/join", f"{API}/queue/data", f"{API}/cancel", f"{API}/reset"})
_QUIET = frozenset({f"{API}/app_id", f"{API}/startup-events", f"{API}/heartbeat"})
_PAGE = frozenset({"/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", f"{API}/theme.css"})
_SIGN_IN = frozenset({"/login/huggingface", "/login/callback", "/logout"})
_PREFIXES = ("/assets/", "/static/", "/svelte/", f"{API}/heartbeat/")
_FILE = f"{API}/file="
_WORDS = 128 * 1024  # bytes that somebody who is not the owner may send at once: a conversation, no files
_OWNERS_WORDS = 16 * 2**20
UPLOAD = 220 * 2**20  # a file of data; more is better read from the Hub or a folder


class Gate:
    """ASGI middleware inside gradio's own. ``pages`` are its pages' paths without slashes, as "en"."""

    def __init__(self, app: App, access: Access, limits: Limits, pages: Iterable[str]) -> None:
        self.app = app
        self.access = access
        self.limits = limits
        self.open = _EVENTS | _QUIET | _PAGE | {"/"} | {f"/{page}" for page in pages}
        if access.door.oauth:
            self.open |= _SIGN_IN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        path = scope["path"].rstrip("/") or "/"
        if path == owner_page.PATH:
            await (await owner_page.answer(request, self.access, self.limits))(scope, receive, send)
            return
        refused = self._refused(request, path)
        await (refused or self.app)(scope, receive, send)

    def _refused(self, request: Request, path: str) -> Response | None:
        """None for what may pass."""
        own = path in _OWN or path.startswith(_FILE)
        if not own and path not in self.open and not path.startswith(_PREFIXES):
            return PlainTextResponse("Not found", 404)
        if self.access.role(request) is Role.OWNER:
            if path.startswith(_FILE) and not served(path[len(_FILE) :]):
                return PlainTextResponse("Not found", 404)
            return _too_large(request, UPLOAD if own else _OWNERS_WORDS)
        if own:
            return PlainTextResponse("Only the owner may send and fetch files", 403)
        if not path.startswith(API):
            return None
        wait = self.limits.calls.take(caller(request, behind_proxy=self.access.door.space))
        if wait:
            return PlainTextResponse("Too many requests", 429, {"retry-after": str(1 + int(wait))})
        return _too_large(request, _WORDS)


def served(path: str) -> bool:
    """Whether this is a file in gradio's folder of uploads and downloads, also once links are followed. (It would fetch
    an address of the internet for whoever asks, and serve what a link in that folder leads to.)"""
    folder = os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio")
    try:
        return "\0" not in path and Path(path).resolve().is_relative_to(Path(folder).resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def _too_large(request: Request, most: int) -> Response | None:
    """A body must say its length, which the server then holds it to."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return None
    length: Any = request.headers.get("content-length", "")
    if not length.isdigit():
        return PlainTextResponse("Length required", 411)
    return PlainTextResponse("Too large", 413) if int(length) > most else None
