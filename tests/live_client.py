"""Somebody who asks a running app over plain HTTP, as its own pages do: for the script that looks at a live Space.

Covers: the pages, events through the queue with values by element, everything that was said, for what must not be in it.
Does not cover: what is expected (live_space.py).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from re import compile as pattern
from typing import Any

import httpx

from tests.abuse.site import API, base, plain, refused

_TIMES = 10
_TAG = pattern(r"<[^>]+>")


@dataclass
class Browser:
    """One page of one person. ``cookie``: as a browser sends it; ``token``: a Hugging Face token, whose account's quota
    ZeroGPU then counts. ``said`` is everything that was answered."""

    url: str
    cookie: str = ""
    token: str = ""
    host: str = ""
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        given = {
            "cookie": self.cookie,
            "authorization": f"Bearer {self.token}" if self.token else "",
            "host": self.host,
        }
        headers = {name: value for name, value in given.items() if value}
        self.web = httpx.Client(base_url=self.url.rstrip("/"), headers=headers, timeout=300, follow_redirects=True)
        self.session = secrets.token_hex(6)
        self.config: dict[str, Any] = {}

    def close(self) -> None:
        self.web.close()

    def get(self, path: str) -> httpx.Response:
        answer = self.web.get(path)
        self.said.append(plain(answer.text))
        return answer

    def read_config(self) -> dict[str, Any]:
        self.config = self.get("/config").json()
        return self.config

    def events(self) -> dict[int, dict[str, Any]]:
        """Everything with a handler on the server, by number."""
        return {d["id"]: d for d in self.config["dependencies"] if d["backend_fn"]}

    def event(self, name: str, touching: str = "") -> int:
        """The first page's event of this name that changes the element ``touching``. LookupError when there is none."""
        at = {c["id"] for c in self.config["components"] if touching in ("", c.get("props", {}).get("elem_id"))}
        known = [(n, d) for n, d in self.events().items() if base(d["api_name"]) == name]
        found = next((n for n, d in known if not touching or at & set(d["outputs"])), None)
        if found is None:
            raise LookupError(f"no event {name!r}: is this another version of the app?")
        return found

    def data(self, number: int, given: Mapping[str, Any]) -> list[Any]:
        """What the page would send: the components' values, those in ``given`` by their element's id."""
        parts = {c["id"]: c.get("props", {}) for c in self.config["components"]}
        props = [parts.get(one, {}) for one in self.events()[number]["inputs"]]
        return [given.get(str(p.get("elem_id")), p.get("value")) for p in props]

    def call(self, number: int, given: Mapping[str, Any] | None = None, empty: bool = False) -> Said:
        """One event to its end. RuntimeError when it breaks off."""
        data = [None] * len(self.events()[number]["inputs"]) if empty else self.data(number, given or {})
        asked = {"fn_index": number, "data": data, "session_hash": self.session, "event_data": None}
        while (answer := self.web.post(f"{API}/queue/join", json=asked)).status_code == 429:
            time.sleep(float(answer.headers.get("retry-after", 1)))
        answer.raise_for_status()
        own: list[dict[str, Any]] = []
        for _ in range(_TIMES):
            own += [one for one in self._stream() if one.get("event_id") == answer.json()["event_id"]]
            if own and own[-1].get("msg") == "process_completed":
                return Said(own[-1], [text for one in own for text in _texts(one.get("output"))])
        raise RuntimeError(f"the connection ended before the answer; last: {self.said[-1][:300]}")

    def _stream(self) -> Iterator[dict[str, Any]]:
        """To its end: a page that hangs up makes the server forget what its session asks next."""
        with self.web.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as stream:
            if stream.status_code == 429:  # what one address may ask in a second is used up
                time.sleep(float(stream.headers.get("retry-after", 1)))
                return
            stream.raise_for_status()
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    self.said.append(plain(line))
                    yield json.loads(line[5:])

    def panes(self) -> list[str]:
        """What stands in the two panes, as text."""
        shown = self.call(self.event("show", "n-text"))
        return [" ".join(unescape(_TAG.sub(" ", one)).split()) for one in shown.texts if 'class="n-pane"' in one][:2]


@dataclass(frozen=True)
class Said:
    """The queue's last message about an event, and every text in its results."""

    last: dict[str, Any]
    texts: list[str]

    @property
    def error(self) -> str:
        """What it failed with; "" when it went well."""
        return (
            ""
            if self.last["success"]
            else str((self.last.get("output") or {}).get("error") or "an error without words")
        )

    @property
    def refused(self) -> bool:
        """Whether the app said that this is the owner's."""
        return refused(self.last)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
