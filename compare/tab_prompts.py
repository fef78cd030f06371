"""Uploading a set of one's own prompts.

Covers: the file, the columns as they were understood and their correction, what was kept. Does not cover: reading files:
app.py passes in what does (``CompareServices.read_prompts``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from assets import prompt_sets
from assets.errors import UserError
from assets.words import Words
from compare.services import CompareServices

HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class PromptPanel:
    """``kept`` changes when a set was stored, which is when the pickers must be listed anew. ``fold`` is hidden until
    somebody is known to be the owner, who alone may send files."""

    kept: gr.State
    fold: gr.Accordion


def build(words: Words, services: CompareServices) -> PromptPanel:
    """The folded panel with its events."""
    with gr.Accordion(words("compare.own"), open=False, visible=False, elem_classes="n-fold", elem_id="n-own") as fold:
        gr.HTML(f'<p class="n-sub">{words("compare.own.sub")}</p>')
        file = gr.File(label=words("compare.own.file"), type="filepath", height=110, elem_id="n-own-file")
        columns = gr.Textbox(
            label=words("compare.own.columns"),
            info=words("compare.own.columns.info"),
            visible=False,
            elem_id="n-own-columns",
        )
        said = gr.HTML(elem_id="n-own-said")
    kept = gr.State(0)

    def add(path: str | None, text: str, count: int, request: gr.Request) -> list[Any]:
        return _add(path, text, count, request, words, services)

    def upload(path: str | None, count: int, request: gr.Request) -> list[Any]:
        return _add(path, "", count, request, words, services)

    file.upload(upload, [file, kept], [columns, said, kept], **HIDDEN)
    columns.submit(add, [file, columns, kept], [columns, said, kept], **HIDDEN)
    return PromptPanel(kept, fold)


def on_kept(panel: PromptPanel, handler: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
    """Run ``handler`` whenever a set was stored."""
    panel.kept.change(handler, inputs, outputs, **HIDDEN)


def _add(
    path: str | None, text: str, count: int, request: gr.Request, words: Words, services: CompareServices
) -> list[Any]:
    """Read, store, and say what became of it."""
    if path is None:
        return [gr.skip(), "", count]
    if not services.owner(request):
        raise gr.Error(words("app.owner_only"), print_exception=False)
    try:
        rows, used, dropped = services.read_prompts(Path(path), text)
    except UserError as error:
        return [gr.update(visible=bool(text)), f'<div class="n-note bad">{escape(words.error(error))}</div>', count]
    prompt_sets.store(services.workspace, Path(path).stem, rows)
    domains = Counter(row["domain"] for row in rows)
    parts = " · ".join(f"{words('compare.domain.' + domain)} {number}" for domain, number in domains.most_common())
    note = words("compare.own.kept", count=len(rows), parts=parts, dropped=dropped)
    return [gr.update(value=used, visible=True), f'<div class="n-note good">{escape(note)}</div>', count + 1]
