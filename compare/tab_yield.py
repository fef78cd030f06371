"""Asks whether the comparison may give its GPU to a training job that waits for it.

Covers: one note with a button above all tabs, seen while a job waits and only by who may unload. Does not cover: which
job waits (machine.py), starting it (the training room does as soon as the lease is free).
"""

from __future__ import annotations

import logging
from html import escape
from typing import Any

import gradio as gr

from assets.words import Words
from compare.services import CompareServices

log = logging.getLogger(__name__)
INTERVAL = 3.0
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def build(words: Words, services: CompareServices) -> None:
    """The note and its events, in the Blocks that are open."""
    with gr.Row(visible=False, elem_classes="n-yield", elem_id="n-yield") as row:
        text = gr.HTML()
        give = gr.Button(words("compare.yield.give"), variant="primary", size="sm", min_width=150, scale=0)

    def look(request: gr.Request) -> list[Any]:
        job = services.machine.wanted() if services.machine is not None and services.owner(request) else None
        if job is None:
            return [gr.update(visible=False), gr.skip()]
        return [gr.update(visible=True), f'<p class="n-note warn">{words("compare.yield", name=escape(job))}</p>']

    def unload(request: gr.Request) -> list[Any]:
        if services.owner(request):
            services.desk.unload()
            gr.Info(words("compare.yield.given"), title=words("app.name"))
        return look(request)

    gr.Timer(INTERVAL).tick(look, None, [row, text], concurrency_limit=8, **HIDDEN)
    give.click(unload, None, [row, text], **HIDDEN)
