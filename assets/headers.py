"""What every answer tells the browser about its own safety.

Covers: the content security policy as far as Gradio's page allows, framing, referrers, and that no other site may read
what is answered. Does not cover: which requests are answered at all (gate.py).

Gradio's page needs inline scripts and ``new Function``, so scripts of the page itself cannot be told from injected ones;
but handlers in attributes (``onerror=``) are forbidden, scripts and connections go to this server only, and nothing is
embedded. Gradio's own CORS answer allows any site to read with the visitor's cookies; it is taken off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "script-src-attr 'none'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "media-src 'self' data: blob:",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "frame-src 'none'",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
)
_SPACE_FRAMES = "https://huggingface.co https://*.hf.space"


def security_headers(space: bool) -> list[tuple[bytes, bytes]]:
    """Of every answer. Only a Space may be framed, by the Hub's page around it."""
    frames = f"'self' {_SPACE_FRAMES}" if space else "'self'"
    found = {
        "content-security-policy": "; ".join((*_POLICY, f"frame-ancestors {frames}")),
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        "cross-origin-resource-policy": "same-origin",
        **({"cross-origin-opener-policy": "same-origin"} if space else {"x-frame-options": "SAMEORIGIN"}),
    }
    return [(name.encode(), value.encode()) for name, value in found.items()]


class SafeHeaders:
    """ASGI middleware around everything else."""

    def __init__(self, app: App, space: bool) -> None:
        self.app = app
        self.added = security_headers(space)
        self._names = {name for name, _ in self.added}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    if name.lower() not in self._names and not name.lower().startswith(b"access-control-")
                ]
                message = {**message, "headers": [*kept, *self.added]}
            await send(message)

        await self.app(scope, receive, safe if scope["type"] == "http" else send)
