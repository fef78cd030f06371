"""Where a model on another machine is reached, and the keys that open it.

Covers: addresses as people write them (``https://host/v1#model-name``), keys kept in memory. Does not cover: talking to
the server (remote_engine_call.py).
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from assets.errors import UserError

_ENDINGS = ("/chat/completions", "/completions", "/models")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """``url`` ends before "/chat/completions" and has no slash at its end; ``model`` is the server's own name for it."""

    url: str
    model: str

    @property
    def server(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    @property
    def name(self) -> str:
        """The last part of the model's name, as people read it."""
        return self.model.rstrip("/").rsplit("/", 1)[-1]

    @property
    def open_line(self) -> bool:
        """Whether what is sent, a key too, can be read on the way."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in _LOOPBACK

    def __str__(self) -> str:
        return f"{self.url}#{self.model}"


def is_remote(text: str) -> bool:
    return text.strip().lower().startswith(("http://", "https://"))


def parse(text: str) -> Address:
    """The address in a text. UserErrors: "remote.no_model" without "#name", "remote.no_secrets" for a key in it,
    "remote.bad_address"."""
    url, _, model = text.strip().partition("#")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError("remote.bad_address") from error
    if "@" in parts.netloc or parts.query:
        raise UserError("remote.no_secrets")
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise UserError("remote.bad_address")
    if not model.strip():
        raise UserError("remote.no_model")
    path = parts.path.rstrip("/")
    for ending in _ENDINGS:
        path = path.removesuffix(ending)
    place = f"[{host}]" if ":" in host else host
    return Address(f"{parts.scheme}://{place}{f':{port}' if port else ''}{path or '/v1'}", model.strip())


class Keys:
    """API keys by server, in memory only. Thread-safe. Whoever prints this object sees no key."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}
        self._guard = threading.Lock()

    def put(self, url: str, key: str) -> None:
        """Keep a key for a server; an empty one changes nothing. UserError("remote.bad_key") for what no header holds."""
        key = key.strip()
        if not key:
            return
        if not re.fullmatch("[!-~]+", key):
            raise UserError("remote.bad_key")
        with self._guard:
            self._kept[url] = key

    def get(self, url: str) -> str | None:
        with self._guard:
            return self._kept.get(url)

    def forget(self) -> None:
        with self._guard:
            self._kept.clear()
