"""Who is asking, and what they may do: visitors chat, raters vote through their own link, owners do everything.

Covers: finding the owner (at this computer, by password or one-time link, by a Hugging Face account on a Space), the
marks that open a handler to visitors or raters, sessions of owners. Does not cover: refusing (guard.py for events,
gate.py for routes), the page where one signs in (owner_page.py), a rater's link, which the study checks at every call.

A handler without a mark is the owner's, so one that is added tomorrow is closed until somebody opens it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

COOKIE = "naranhi-owner"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
STAYS = 14 * 24 * 3600.0  # seconds for which an owner who signed in stays one
_SESSIONS = 200
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "cf-connecting-ip")
_WRITERS = ("admin", "write")
_MARK = "_naranhi_open_to"
_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Role(Enum):
    VISITOR = "visitor"
    OWNER = "owner"


@dataclass(frozen=True)
class OpenTo:
    """To whom a handler is open: "visitor" or "rater". One that ``generates`` counts against a visitor's answers."""

    role: str
    generates: bool = False


def for_visitors(handler: _Handler) -> _Handler:
    """Anybody who opens the page may call this."""
    setattr(handler, _MARK, OpenTo("visitor"))
    return handler


def for_visitors_limited(handler: _Handler) -> _Handler:
    """Anybody may call this so many times a minute: it makes the models answer."""
    setattr(handler, _MARK, OpenTo("visitor", generates=True))
    return handler


def for_raters(handler: _Handler) -> _Handler:
    """Part of the raters' page: open to all, because it asks for a rater's link itself at every call."""
    setattr(handler, _MARK, OpenTo("rater"))
    return handler


def open_to(handler: object) -> OpenTo | None:
    """None for what only the owner may call."""
    found = getattr(handler, _MARK, None)
    return found if isinstance(found, OpenTo) else None


@dataclass(frozen=True)
class Door:
    """How owners come in. ``public``: others than this computer reach the server. ``names``: Hugging Face accounts
    that own the Space. ``hosts``: names under which the server is known besides the request's own."""

    public: bool = False
    space: bool = False
    everyone_owns: bool = False
    names: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    oauth: bool = False

    @classmethod
    def from_environment(cls, host: str, everyone_owns: bool) -> Door:
        """On a Space its account (or organisation) and NARANHI_OWNERS ("ann,ben"). NARANHI_HOSTS are names that a
        proxy gives the app without passing them on. Gradio's sign-in is the real one only
        where SYSTEM says so; elsewhere it lets everybody in under one name, for trying things out."""
        space = os.environ.get("SPACE_ID", "")
        own = os.environ.get("SPACE_AUTHOR_NAME") or space.partition("/")[0]
        named = (own, *os.environ.get("NARANHI_OWNERS", "").split(","))
        oauth = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
        return cls(
            public=bool(space) or host not in LOOPBACK,
            space=bool(space),
            everyone_owns=everyone_owns,
            names=frozenset(name.strip().lower() for name in named if name.strip()),
            hosts=frozenset(h.strip() for h in f"{_get('SPACE_HOST')},{_get('NARANHI_HOSTS')}".split(",") if h.strip()),
            oauth=bool(space) and os.environ.get("SYSTEM") == "spaces" and all(os.environ.get(name) for name in oauth),
        )


@dataclass
class Access:
    """One per process; thread-safe. ``password`` is "" where none is set. Takes gradio's requests and Starlette's."""

    door: Door
    password: str = field(default="", repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)
    _sessions: dict[str, float] = field(default_factory=dict, repr=False)
    _invitation: str = field(default="", repr=False)

    def owner(self, request: Any) -> bool:
        return self.role(request) is Role.OWNER

    def role(self, request: Any) -> Role:
        """VISITOR unless something proves more. A page of another site never acts for the owner whose browser it uses."""
        if self.door.everyone_owns:
            return Role.OWNER
        if request is None:
            return Role.VISITOR
        headers = _headers(request)
        if foreign(headers, self.door.hosts):
            return Role.VISITOR
        known = self._is_here(request, headers) or self._has_session(headers) or self._is_named(request)
        return Role.OWNER if known else Role.VISITOR

    def _is_here(self, request: Any, headers: Mapping[str, str]) -> bool:
        """At this computer, and not through a proxy that stands on it: its address would be this computer's too. The
        name in the address is checked because a foreign name can be made to lead here (DNS rebinding)."""
        if self.door.space or getattr(getattr(request, "client", None), "host", None) not in LOOPBACK:
            return False
        name = urlsplit(f"//{headers.get('host', 'localhost')}").hostname or ""
        return (name in LOOPBACK or name.endswith(".localhost")) and not any(h in headers for h in _FORWARDED)

    def signed_in(self, request: Any) -> bool:
        """Whether this browser signed in on our own page (owner_page.py)."""
        return self._has_session(_headers(request))

    def _has_session(self, headers: Mapping[str, str]) -> bool:
        given = _cookie(headers)
        with self._lock:
            return bool(given) and self._sessions.get(_digest(given), 0.0) > time.time()

    def _is_named(self, request: Any) -> bool:
        """By a Hugging Face account that the Space's own sign-in has verified."""
        account = self.account(request)
        if not account or not self.door.names:
            return False
        name = str(account.get("preferred_username", "")).lower()
        orgs = account.get("orgs") or []
        writes = {str(org.get("preferred_username", "")).lower() for org in orgs if org.get("roleInOrg") in _WRITERS}
        return name in self.door.names or bool(writes & self.door.names)

    def account(self, request: Any) -> dict[str, Any]:
        """Who signed in with Hugging Face; {} for nobody."""
        if not self.door.oauth:
            return {}
        raw = getattr(request, "request", None) or request
        info = (getattr(raw, "scope", None) or {}).get("session", {}).get("oauth_info") or {}
        if not isinstance(info, dict) or float(info.get("expires_at") or 0) < time.time():
            return {}
        return dict(info.get("userinfo") or {})

    def invite(self) -> str:
        """A code that makes whoever brings it first an owner, once; an earlier one ends."""
        code = secrets.token_urlsafe(24)
        with self._lock:
            self._invitation = _digest(code)
        return code

    def enter(self, given: str) -> str | None:
        """A new session for the password or the one-time code; None for anything else."""
        with self._lock:
            invited = bool(self._invitation) and secrets.compare_digest(_digest(given), self._invitation)
            known = bool(self.password) and secrets.compare_digest(_digest(given), _digest(self.password))
            if not invited and not known:
                return None
            if invited:
                self._invitation = ""
            session = secrets.token_urlsafe(32)
            self._sessions[_digest(session)] = time.time() + STAYS
            for old in list(self._sessions)[:-_SESSIONS]:
                del self._sessions[old]
            return session

    def leave(self, headers: Mapping[str, str]) -> None:
        """End the session of this browser."""
        with self._lock:
            self._sessions.pop(_digest(_cookie(headers)), None)


def foreign(headers: Mapping[str, str], hosts: Iterable[str] = ()) -> bool:
    """Whether a page of another site sent this: its Origin is not the address that was asked."""
    origin = headers.get("origin")
    if origin is not None:
        asked = {headers.get("host", ""), headers.get("x-forwarded-host", "").split(",")[0].strip(), *hosts}
        return urlsplit(origin).netloc not in asked - {""}
    return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"


def _get(name: str) -> str:
    return os.environ.get(name, "")


def _headers(request: Any) -> Mapping[str, str]:
    found = getattr(request, "headers", None)
    return found if isinstance(found, Mapping) else {}


def _cookie(headers: Mapping[str, str]) -> str:
    """The value of our cookie. Other programs on this computer set theirs for the same name, in any shape they like."""
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
