"""Signing in to the Hugging Face Hub, for models that ask for consent.

Covers: who is connected, signing in and out, which gated models open. Does not cover: keeping the token: that is the
Hub library's own store. The field is cleared at once and never echoed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from assets import hub
from assets.catalog import models
from assets.errors import UserError
from assets.words import Words

HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}


def build(words: Words, owner: Callable[[Any], bool]) -> None:
    """The panel inside the current container."""
    gr.HTML(f'<p class="n-sub">{words("train.hub.sub")}</p>')
    who = gr.HTML()
    with gr.Row():
        token = gr.Textbox(type="password", label=words("train.hub.token"), scale=3, elem_id="hub-token")
        login = gr.Button(words("train.hub.login"), min_width=110, elem_id="hub-login")
        logout = gr.Button(words("train.hub.logout"), min_width=110)
    check = gr.Button(words("train.hub.check"), elem_id="hub-check")
    opened = gr.HTML()

    def guarded(action: Callable[..., Any]) -> Callable[..., Any]:
        def handler(request: gr.Request, *values: Any) -> Any:
            if not owner(request):
                raise gr.Error(words("app.owner_only"), print_exception=False)
            return action(*values)

        return handler

    def sign_in(text: str) -> list[str]:
        try:
            hub.sign_in(text.strip())
        except UserError as error:
            return ["", _note(words.error(error), "bad")]
        return ["", identity(words)]

    def sign_out() -> str:
        hub.sign_out()
        return identity(words)

    login.click(guarded_text(guarded, sign_in), token, [token, who], **HIDDEN)
    logout.click(guarded(sign_out), None, who, **HIDDEN)
    check.click(guarded(lambda: gated(words)), None, opened, api_visibility="private")


def guarded_text(guard: Callable[..., Any], action: Callable[[str], Any]) -> Callable[..., Any]:
    """The same guard with the text first, as gradio passes it."""
    checked = guard(action)

    def handler(text: str, request: gr.Request) -> Any:
        return checked(request, text)

    return handler


def identity(words: Words) -> str:
    """Who is connected, as a note."""
    try:
        name = hub.who()
    except UserError:
        kept = words("train.hub.kept" if hub.has_token() else "train.hub.not_kept")
        return _note(words("train.hub.unreachable", kept=kept), "warn")
    return _note(words("train.hub.who", name=name), "good") if name else _note(words("train.hub.nobody"), "")


def gated(words: Words) -> str:
    """Each model that asks for consent, and whether this account may open it."""
    rows = []
    for card in models():
        if not card.gated:
            continue
        try:
            state, kind = words("train.hub.open") if hub.may_open(card.id) else words("train.hub.closed"), ""
        except UserError as error:
            state, kind = words.error(error), "bad"
        rows.append(f'<tr><td>{card.id}</td><td class="{kind}">{state}</td></tr>')
    return f'<table class="n-table">{"".join(rows)}</table>'


def _note(text: str, kind: str) -> str:
    return f'<div class="n-note {kind}">{text}</div>'
