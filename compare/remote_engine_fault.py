"""Why a server gave no (whole) answer, as the key of a sentence for the person.

Covers: refusals by status, how long to wait before another try. Does not cover: faults of the connection and of the
reply (remote_engine_call.py). What a server says is only searched, never shown: it may quote a key.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any

import httpx

_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)
_UNKNOWN = ("not found", "does not exist", "unknown", "pinned", "no such", "not supported")
_LONG = ("context", "too long", "maximum", "exceed")


class Fault(Exception):
    """Why there is no (whole) answer. ``key`` names a sentence; ``again`` after ``after`` seconds it may work."""

    def __init__(self, key: str, again: bool = False, after: float | None = None, lean: bool = False) -> None:
        super().__init__(key)
        self.key, self.again, self.after, self.lean = key, again, after, lean


def refused(response: httpx.Response, raw: bytes, body: Mapping[str, Any]) -> Fault:
    """What a status other than 200 means for the person."""
    status, said = response.status_code, raw[:4096].decode("utf-8", "replace").lower()
    if status in (401, 403):
        return Fault("remote.refused_key")
    if status == 402:
        return Fault("remote.no_credit")
    if status in _AGAIN:
        return Fault("remote.busy" if status in (429, 503, 529) else "remote.server_error", True, retry_after(response))
    if 300 <= status < 400:
        return Fault("remote.moved")
    if "html" in response.headers.get("content-type", "").lower() or said.lstrip().startswith("<"):
        return Fault("remote.html")
    if status == 404 or ("model" in said and any(word in said for word in _UNKNOWN)):
        return Fault("remote.no_such_model")
    if status == 413 or any(word in said for word in _LONG):
        return Fault("remote.too_long")
    if {"top_k", "repetition_penalty"} & set(body):
        return Fault("remote.refused_settings", lean=True)
    return Fault("remote.refused", lean=True)


def retry_after(response: httpx.Response) -> float | None:
    """Seconds, from a number or a date; None without the header or when it is neither."""
    text = response.headers.get("retry-after", "").strip()
    try:
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
