"""Handing a trained model over: merged into 16 bits, as GGUF.

Covers: components and events in the card of runs. Does not cover: the work, which a process of its own does (merge.py).
Only the owner may; everybody else's click is refused by the handlers themselves.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from assets.errors import UserError
from assets.words import Words, size
from finetune import merge, outcome
from finetune.services import TrainServices

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
INTERVAL = 2.0


def build(words: Words, services: TrainServices, picked: Any) -> None:
    """A folded part of the card of runs. ``picked`` holds the run's id."""
    with gr.Accordion(words("merge.title"), open=False, elem_classes="n-plain", elem_id="train-merge") as fold:
        gr.HTML(f'<p class="n-sub">{words("merge.sub")}</p>')
        with gr.Row(elem_classes="n-actions"):
            go = gr.Button(words("merge.go"), elem_id="train-merge-go")
        with gr.Column(visible=False, elem_classes="n-plain") as more:
            gr.HTML(f'<p class="n-sub">{words("merge.gguf.sub")}</p>')
            with gr.Row(elem_classes="n-choose"):
                outtype = gr.Radio(
                    [(words(f"merge.gguf.type.{name}"), name) for name in merge.GGUF_TYPES],
                    value=merge.GGUF_TYPES[0],
                    label=words("merge.gguf.type"),
                    elem_classes="n-pills",
                    elem_id="train-merge-type",
                )
            with gr.Row(elem_classes="n-actions"):
                convert = gr.Button(words("merge.gguf"), elem_id="train-merge-gguf")
        told = gr.HTML(elem_id="train-merge-told")
    timer = gr.Timer(INTERVAL, active=False)
    outputs = [go, more, convert, told, timer]

    def show(job_id: str | None, said: str = "") -> list[Any]:
        return shown(_folder(services, job_id), words, said)

    def begin(kind: merge.Kind) -> Any:
        def handler(job_id: str | None, chosen: str, request: gr.Request) -> list[Any]:
            try:
                if not services.owner(request):
                    raise UserError("app.owner_only")
                folder = _folder(services, job_id)
                if folder is None:
                    raise UserError("merge.nothing")
                merge.start(folder, kind, chosen)
            except UserError as error:
                return show(job_id, bad(words.error(error)))
            return show(job_id)

        return handler

    fold.expand(show, picked, outputs, **HIDDEN)
    picked.change(show, picked, outputs, **HIDDEN)
    timer.tick(show, picked, outputs, concurrency_limit=8, **HIDDEN)
    go.click(begin("merge"), [picked, outtype], outputs, trigger_mode="once", **HIDDEN)
    convert.click(begin("gguf"), [picked, outtype], outputs, trigger_mode="once", **HIDDEN)


def _folder(services: TrainServices, job_id: str | None) -> Path | None:
    try:
        return services.jobs.folder(job_id) if job_id else None
    except UserError:
        return None


def shown(folder: Path | None, words: Words, said: str = "") -> list[Any]:
    """merge button, GGUF part, GGUF button, sentence, timer; ``said`` is shown above what the record tells."""
    try:
        now = merge.read(folder) if folder is not None else None
    except UserError as error:
        now, said = None, said + bad(words.error(error))
    whole = folder is not None and outcome.made(folder) == folder / outcome.MODEL
    source = folder is not None and merge.source(folder) is not None
    busy = now is not None and now.running
    label = words("merge.again" if source else "merge.go")
    ready = merge.converter() is not None
    missing = words("merge.gguf.missing", variable=merge.VARIABLE) if source and not ready else ""
    note = f'<p class="n-note">{escape(missing)}</p>' if missing else ""
    return [
        gr.update(visible=not whole, interactive=not busy, value=label),
        gr.update(visible=source),
        gr.update(interactive=ready and not busy),
        said + (told(now, words) if now is not None else "") + note,
        gr.Timer(active=busy),
    ]


def told(now: merge.Merge, words: Words) -> str:
    """Where it is, what came of it, or why nothing did."""
    parts = []
    if now.running:
        percent = f"{now.share * 100:.0f}"
        bar = f'<div class="n-bar" role="progressbar" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
        parts.append(f'{bar}<p class="n-sub">{words(f"merge.phase.{now.phase}")}</p>')
    if now.state == "failed":
        parts.append(bad(words(now.error["key"], **now.error["values"])))
    if now.result and not (now.running and now.kind == "merge"):
        parts.append(_merged(dict(now.result), words))
    if now.gguf and not (now.running and now.kind == "gguf"):
        done = words("merge.gguf.done", file=now.gguf["file"], size=size(now.gguf["bytes"]))
        parts.append(f'<div class="n-note good">{escape(done)}</div>')
    return "".join(parts)


def _merged(found: dict[str, Any], words: Words) -> str:
    done = words("merge.done", folder=found["folder"], size=size(found["bytes"]), shards=found["shards"])
    proof = words(
        "merge.proof",
        tokens=found["tokens"],
        off=f"{found['divergence']:.4f}",
        limit=f"{found['tolerance']:.4f}",
        same=f"{found['same_token'] * 100:.1f}",
    )
    lines = "".join(f'<p class="n-sub">{escape(text)}</p>' for text in (proof, words("merge.use")))
    return f'<div class="n-note good">{escape(done)}</div>{lines}'


def bad(text: str) -> str:
    return f'<div class="n-note bad">{escape(text)}</div>'
