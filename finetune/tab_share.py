"""Giving an adapter away: a zip, or a repository on the Hub.

Covers: components and events in the card of runs. Does not cover: what is given away (share.py, card.py). Only the owner
may; everybody else's click is refused by the handlers themselves.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.files import for_download
from assets.words import Words
from finetune import share
from finetune.services import TrainServices

log = logging.getLogger(__name__)
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_FETCH = "() => setTimeout(() => document.getElementById('train-share-file')?.click(), 150)"


def build(words: Words, services: TrainServices, picked: Any) -> None:
    """A folded part of the card of runs. ``picked`` holds the run's id."""
    with gr.Accordion(words("share.title"), open=False, elem_classes="n-plain", elem_id="train-share"):
        gr.HTML(f'<p class="n-sub">{words("share.sub")}</p>')
        with gr.Row(elem_classes="n-actions"):
            make = gr.Button(words("share.zip"), elem_id="train-share-zip")
        with gr.Row(elem_classes="n-choose"):
            repo = gr.Textbox(
                label=words("share.repo"), info=words("share.repo.info"), max_lines=1, elem_id="train-share-repo"
            )
            private = gr.Checkbox(True, label=words("share.private"), container=False, elem_classes="n-check")
        with gr.Row(elem_classes="n-actions"):
            publish = gr.Button(words("share.publish"), elem_id="train-share-publish")
        told = gr.HTML(elem_id="train-share-told")
        file = gr.DownloadButton("", elem_id="train-share-file", elem_classes="n-away")

    def collected(job_id: str | None, request: gr.Request) -> share.Shared:
        if not services.owner(request):
            raise UserError("app.owner_only")
        if not job_id:
            raise UserError("share.no_adapter")
        folder = services.jobs.folder(job_id)
        sha256 = share.digest(folder)
        return share.collect(folder, services.verdict(sha256, words) if sha256 else (), words)

    def zipped(job_id: str | None, request: gr.Request) -> tuple[Any, str]:
        try:
            found = collected(job_id, request)
            name = re.sub(r"[^\w.-]+", "-", found.name).strip("-.") or "adapter"
            path = share.write_zip(found, for_download(f"{name}.zip"))
        except Exception as error:
            return gr.update(value=None), _bad(error, words)
        return gr.update(value=str(path)), f'<p class="n-sub">{words("share.zipped", n=len(found.files))}</p>'

    def published(job_id: str | None, name: str, hidden: bool, request: gr.Request) -> Iterator[str]:
        yield f'<p class="n-sub">{words("share.publishing")}</p>'
        try:
            address = share.publish(collected(job_id, request), name or "", hidden)
        except Exception as error:
            yield _bad(error, words)
            return
        link = f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(address)}</a>'
        yield f'<p class="n-sub">{words("share.published", link=link)}</p>'

    made = make.click(zipped, picked, [file, told], **HIDDEN)
    made.success(None, None, None, js=_FETCH, api_visibility="private")
    publish.click(published, [picked, repo, private], told, concurrency_limit=2, **HIDDEN)


def _bad(error: Exception, words: Words) -> str:
    if not isinstance(error, UserError):
        log.error("sharing failed", exc_info=error)
        error = UserError("app.unexpected", reason=f"{type(error).__name__}: {error}"[:160])
    return f'<div class="n-note bad">{escape(words.error(error))}</div>'
