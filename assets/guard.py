"""The one place that every event passes before anything of it runs.

Covers: refusing what a person may not call, how often a visitor may have the models answer, and saying no more than
necessary about errors to strangers. Does not cover: who is the owner (access.py), routes that are no events (gate.py).

Gradio runs every handler through ``Blocks.process_api``: from the queue, from its direct routes, hidden or not. Handlers
check the owner themselves as well; this is what makes one that forgets it, or has no check yet, the owner's.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr

from assets.access import Access, OpenTo, Role, open_to
from assets.limits import Limits
from assets.words import Words

log = logging.getLogger(__name__)
# Nobody pressed anything: a toast about such a refusal would puzzle whoever only opened the page.
_UNASKED = frozenset({"load", "tick", "change", "select", "expand", "then", "success", "unload"})


class GuardedBlocks(gr.Blocks):  # type: ignore[misc]
    """gr.Blocks whose events are the owner's unless their handler is marked (access.py)."""

    def __init__(self, access: Access, limits: Limits, **options: Any) -> None:
        self.access = access
        self.limits = limits
        super().__init__(**options)

    @property
    def expects_oauth(self) -> bool:
        """Gradio's sign-in routes; on a Space that has an OAuth application (``hf_oauth: true``)."""
        return self.access.door.oauth

    async def process_api(self, block_fn: Any, inputs: Any, *more: Any, **given: Any) -> dict[str, Any]:
        """As gradio's, after the check. Raises gr.Error for what is refused."""
        fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        requests = given.get("request")
        role = self._role(requests if isinstance(requests, list) else [requests])
        if role is Role.OWNER:
            return dict(await super().process_api(fn, inputs, *more, **given))
        words = Words("en" if getattr(fn, "page", "") == "en" else "ko")
        self._check(fn, requests, words, going_on=given.get("iterator") is not None)
        try:
            return dict(await super().process_api(fn, inputs, *more, **given))
        except gr.Error:
            raise
        except Exception as error:
            log.exception("a visitor's event failed")
            raise gr.Error(words("access.broke"), title=words("app.failed"), print_exception=False) from error

    def _role(self, requests: Iterable[Any]) -> Role:
        roles = [self.access.role(request) for request in requests]
        return Role.OWNER if roles and all(role is Role.OWNER for role in roles) else Role.VISITOR

    def _check(self, fn: Any, request: Any, words: Words, going_on: bool) -> None:
        allowed: OpenTo | None = open_to(fn.fn)
        if allowed is None:
            asked = any(event not in _UNASKED for _, event in fn.targets)
            raise _refusal(words("app.owner_only"), words, visible=asked)
        if allowed.generates and not going_on:
            wait = self.limits.answer(caller(request, behind_proxy=self.access.door.space))
            if wait:
                raise _refusal(words("access.too_often", seconds=max(1, round(wait))), words)


def _refusal(text: str, words: Words, visible: bool = True) -> gr.Error:
    return gr.Error(text, visible=visible, title=words("app.name"), print_exception=False)


def caller(request: Any, behind_proxy: bool) -> str:
    """The address to count by. On a Space the peer is the Hub's proxy, which appends where a request came from: the last
    address of the public internet in the list, for whoever asks may write what they like in front of it."""
    headers: Mapping[str, str] = getattr(request, "headers", None) or {}
    if behind_proxy:
        for name in reversed(headers.get("x-forwarded-for", "").split(",")):
            try:
                found = ipaddress.ip_address(name.strip())
            except ValueError:
                continue
            if found.is_global:
                return str(found)
    return str(getattr(getattr(request, "client", None), "host", ""))
